"""How the documentation site is made: `make docs` (Sphinx, MyST, Furo; nothing is read from the network)."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project = "Onward"
author = "The Onward developers"
project_copyright = "The Onward developers, Apache-2.0"
release = version_of("onward")

extensions = ["sphinx.ext.autodoc", "myst_parser", "_parts"]
exclude_patterns = ["_build"]
smartquotes = False

# Pages are Markdown that also reads well in the repository: links are paths, code without a language is plain text.
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
highlight_language = "text"
python_use_unqualified_type_names = True

# The reference: every public name, from its docstring (`_parts.py` reads the list).
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "Onward"
html_static_path = ["_static"]
html_css_files = ["onward.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
