"""Sphinx extension: writes the tables of published models from ``published.yaml``.

They replace the line ``{{ published_models }}`` of a page.
"""

from sphinx.application import Sphinx

from tools.published_tables import tables

PLACEHOLDER = "{{ published_models }}"


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    if PLACEHOLDER in source[0]:
        source[0] = source[0].replace(PLACEHOLDER, tables())


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
