from __future__ import annotations

import sys

# Only in the process that test_cuda_host.py starts.
collect_ignore = [] if "tests.cuda_host.plugin" in sys.modules else ["cases"]
