"""``python -m fastadv``: the command line, also under torchrun."""

import logging
import os
import sys

from fastadv.cli import main
from fastadv.distributed import launched

if __name__ == "__main__":
    code = main()
    if not launched().alone:
        # A thread of gloo's may still hold the tensors of the last collective. If it lets go of them while the
        # interpreter is being dismantled, the process aborts, and torchrun takes a run that is done for a failed one.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
