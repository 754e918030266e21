"""Let the environment that runs this see the packages of another one: python share_packages.py SITE_PACKAGES."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

other = str(Path(sys.argv[1]).resolve())
Path(sysconfig.get_path("purelib"), "shared.pth").write_text(f"import site; site.addsitedir({other!r})\n")
