"""The device that whole attacks and iterations are measured on, and how many images they get."""

from __future__ import annotations

import os

import torch

# FASTADV_TEST_DEVICE=cpu runs everything once at tiny sizes, to check that it works; the figures mean nothing.
REHEARSAL = os.environ.get("FASTADV_TEST_DEVICE") == "cpu"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not REHEARSAL else "cpu")
# Time for the rounds of one group, at least three; on a GPU many groups share eight minutes.
SECONDS = 0.0 if REHEARSAL else 10.0 if DEVICE.type == "cuda" else 45.0
TIMES = 16 if DEVICE.type == "cuda" else 1  # images on this device for each one on a CPU
