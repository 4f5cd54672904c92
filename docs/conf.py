"""The manual (`make docs`). Its source folder is the repository: links work here and on the web."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "extensions")]

from sphinx.application import Sphinx  # noqa: E402

from maskclippp import __version__  # noqa: E402  also makes detectron2 importable

project = "MaskCLIP++"
version = release = __version__
author = copyright = "the MaskCLIP++ authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "config_keys",
    "published_models",
]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "datasets/README.md"]
exclude_patterns = ["output", "pretrained", "wandb", "datasets/*/**", ".*", "docs/_build"]

myst_enable_extensions = ["deflist", "attrs_inline", "colon_fence"]
myst_heading_anchors = 3
# Files for contributors to the code, which the manual links but does not list.
suppress_warnings = ["toc.not_included"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"MaskCLIP++ {version}"
html_extra_path = [str(DOCS / "html_root")]  # index.html of the whole site
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Leave out the fields of named tuples, whose docstrings are generated."""
    app.connect(
        "autodoc-skip-member",
        lambda app, what, name, member, skip, options: (
            skip or type(member).__name__ == "_tuplegetter"
        ),
    )
