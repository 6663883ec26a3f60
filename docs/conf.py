"""Sphinx's configuration of the site. ``make docs`` builds it without a network; every warning is an error."""

import sys
from pathlib import Path

from soundfold import __version__

DOCS = Path(__file__).resolve().parent
# the extensions of this site, and the scripts that they use
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent / "scripts")]

project = "soundfold"
author = "the soundfold authors"
project_copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_copybutton",
    "mathml",
    # each writes pages before Sphinx reads them
    "command_pages",
    "configuration_pages",
    "result_pages",
    "augmentation_pages",
]
# results are data for the tables, no pages
exclude_patterns = ["_build", "results"]
nitpicky = True
# types without a page here: those of other libraries, whose indices are on servers, type variables, and parts of types
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|lightning|matplotlib|numpy|omegaconf|pandas|pathlib|torch|torchmetrics)\..*"),
    (r"py:class", r"Tensor|Module|Params|soundfold\.features\.augment\.X|dict\[str"),
]

html_theme = "furo"
html_title = f"soundfold {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_math_renderer = "mathml"

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# text-based notebooks run in a temporary folder, and only after they changed
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "executed")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120
# the default loads them from a server
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

# a prompt is not copied
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# `name` in a docstring is code
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
# of Lightning and PyTorch
autodoc_inherit_docstrings = False
