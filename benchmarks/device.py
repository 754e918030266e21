"""Where whole attacks and iterations are measured, and how many images they take there."""

from __future__ import annotations

import os

import torch

# FASTADV_TEST_DEVICE=cpu runs everything once, on next to nothing, to see that it works; its figures mean nothing.
REHEARSAL = os.environ.get("FASTADV_TEST_DEVICE") == "cpu"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not REHEARSAL else "cpu")
# For the rounds of one group, of which there are at least three: on a GPU many groups share eight minutes.
SECONDS = 0.0 if REHEARSAL else 10.0 if DEVICE.type == "cuda" else 45.0
TIMES = 16 if DEVICE.type == "cuda" else 1  # images for each that keeps a CPU busy
