"""The documentation site, of the Markdown pages of the checkout and of docstrings: `make docs`.

The source directory is the root of the checkout, not `docs/`, so that the same relative links
between pages, model cards and code work here and where the repository is browsed.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent / "extensions"))

import rws_keras

project = "rws_keras"
author = "The rws_keras authors"
version = release = rws_keras.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "markdown_docstrings",
    "command_help",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "zoo/**README.md",
    "benchmarks/NOTES.md",
    "training/README.md",
    "training/NOTES.md",
    "serving/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
# Not searched for pages: what git ignores, and whatever begins with a dot.
exclude_patterns = [".*", "build", "dist", "runs", "models"]

html_theme = "furo"
html_title = "rws_keras"
# The site starts at its root, the pages are below docs/.
html_extra_path = ["redirect"]
html_show_copyright = False

# A reference to something of ours that is not on the site is an error.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(collections|numpy|pandas|tensorflow\w*)\..*")]

myst_enable_extensions = ["dollarmath"]
# Headings that links may end in.
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
# Docstrings say what the arguments are, with their shapes; the aliases of the signatures would
# be spelled out in full.
autodoc_typehints = "none"
# Methods that override those of Keras or TFP would repeat the documentation of these.
autodoc_inherit_docstrings = False

napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Reference"]
