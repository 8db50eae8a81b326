"""Settings of the documentation site. `sphinx-build -W docs site` builds it, without network access."""

import sys
from pathlib import Path

import stlight

sys.path.insert(0, str(Path(__file__).parent))  # for site_reference.py

project = "The STLight supplement, reproduced"
author = "The STLight reproduction authors"
version = release = stlight.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_reference"]
# Headings get the anchors that GitHub gives them, so that a link works in both.
myst_heading_anchors = 3
nitpicky = True
# What `autodoc` links in signatures is documented only as far as reference/api.md says.
nitpick_ignore_regex = [("py:.*", ".*")]

# Docstrings put code between single backticks.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "STLight, reproduced"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# System fonts, and no highlighting of blocks that name no language: most are command lines.
highlight_language = "text"
