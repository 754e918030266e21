"""Configuration of the documentation site: ``make docs`` builds it into build/docs.

The source folder is the repository, so that pages link to CONTRIBUTING.md and to the measurements in benchmarks/results
by the same relative paths that work on a code host. Nothing on a page is loaded from another host.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_sphinx"))

project = "fastadv"
version = release = version_of("fastadv")
project_copyright = "The fastadv authors"
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/results/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = ["build", ".*", "docs/results/*/tables", "docs/_sphinx", "docs/_static"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "command_help",
    "short_names",
    "titles",
    "attack_options",
    "nothing_remote",
]
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r".*"),  # types of annotations: other projects' (nothing is fetched to link to them), or not public
    ("py:obj", r"typing\..*"),
    ("py:meth", r"_.*"),  # hooks for an attack of one's own
    ("py:exc", r"(CheckpointError|FailedElsewhere|TooManyBadImages)"),  # that nobody needs to catch
]
page_titles = {
    "docs/performance/cost": "Cost against work: figures",
    "docs/results/fashion-mnist/claims": "Claims of the paper",
}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
strip_signature_backslash = True  # or napoleon writes lambda_ without its underscore

myst_enable_extensions = ["colon_fence", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell, on a busy machine
logging.getLogger("traitlets").setLevel(logging.WARNING)
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"fastadv {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_sphinx/index.html"]
html_show_sphinx = False
html_copy_source = False
