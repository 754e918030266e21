from __future__ import annotations

import sys

# Only in the processes that test_fake_cuda.py starts.
collect_ignore = [] if "tests.fake_cuda.plugin" in sys.modules else ["cases"]
