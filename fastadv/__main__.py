"""``python -m fastadv``: the command line, also under torchrun."""

import logging
import os
import sys

from fastadv.cli import main
from fastadv.utils.launch import launched

if __name__ == "__main__":
    code = main()
    if not launched().alone:
        # A gloo thread may still hold the tensors of the last collective. If it releases them while the interpreter
        # shuts down, the process aborts, and torchrun takes a finished run for a failed one.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
