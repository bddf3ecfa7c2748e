"""How the documentation site is made: `make docs` (Sphinx, MyST, Furo; nothing is read from the network).

The notebooks of the gallery are executed, each in a kernel of its own; `-D nb_execution_mode=off` leaves that out.
"""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs of the notebooks are compiled once; a second build reads them.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / "_build" / ".jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

project = "Onward"
author = "The Onward developers"
project_copyright = "The Onward developers, Apache-2.0"
release = version_of("onward")

extensions = ["sphinx.ext.autodoc", "myst_nb", "sphinxcontrib.bibtex", "_parts"]
# What the notebooks gave in a build before lies beside it.
exclude_patterns = ["_build", "jupyter_execute"]
smartquotes = False

# Pages are Markdown that also reads well in the repository: links are paths, code without a language is plain text.
source_suffix = {".md": "myst-nb"}
myst_heading_anchors = 3
highlight_language = "text"
python_use_unqualified_type_names = True

# Notebooks are text, and their outputs are made here.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

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
