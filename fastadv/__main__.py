"""``python -m fastadv``: the command line, also under torchrun."""

import sys

from fastadv.cli import main

if __name__ == "__main__":
    sys.exit(main())
