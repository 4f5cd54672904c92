"""Sphinx extension: writes the tables of published models from ``published.yaml``.

They replace the line ``{{ published_models }}`` of a page.
"""

from sphinx.application import Sphinx

from maskclippp.files.published import KINDS, Published, published

PLACEHOLDER = "{{ published_models }}"


def tables() -> str:
    """Markdown: fine-tuned models, one table per set of benchmarks, then all other files."""
    parts = []
    for kind, title in KINDS.items():
        parts.append(f"## {title[0].upper()}{title[1:]}")
        entries = [entry for entry in published().values() if entry.kind == kind]
        for columns in dict.fromkeys(tuple(entry.results) for entry in entries):
            rows = [entry for entry in entries if tuple(entry.results) == columns]
            parts.append(_models(columns, rows) if columns else _files(rows))
    return "\n\n".join(parts)


def _models(benchmarks: tuple[str, ...], entries: list[Published]) -> str:
    measured = "On ADE20K" if "mIoU" in benchmarks else "mIoU on each benchmark"
    lines = [
        f"{measured}, in percent:\n",
        f"| name | config | CLIP | generator | {' | '.join(benchmarks)} |",
        "|---" * (4 + len(benchmarks)) + "|",
    ]
    for entry in entries:
        cells = [
            f"[`{entry.name}`]({entry.url})",
            f"`configs/{entry.config}`",
            entry.clip,
            entry.generator,
            *map(str, entry.results.values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _files(entries: list[Published]) -> str:
    lines = ["| name | place |", "|---|---|"]
    for entry in entries:
        place = f"`{entry.path}`" if entry.path else f"open_clip's tag `{entry.tag}`"
        lines.append(f"| [`{entry.name}`]({entry.url or entry.page}) | {place} |")
    return "\n".join(lines)


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    if PLACEHOLDER in source[0]:
        source[0] = source[0].replace(PLACEHOLDER, tables())


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
