"""Write the README's tables of published models from ``maskclippp/files/published.yaml``.

    python -m tools.published_tables

The manual has more of them, by ``docs/extensions/published_models.py``.
"""

from pathlib import Path

from maskclippp.files.published import KINDS, Published, published

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- begin: python -m tools.published_tables -->", "<!-- end -->"


def tables() -> str:
    """Markdown for the manual: all that is published, with addresses, configs and places."""
    parts = []
    for kind, title in KINDS.items():
        parts.append(f"## {title[0].upper()}{title[1:]}")
        for columns, rows in _by_results(kind):
            parts.append(_models(columns, rows) if columns else _files(rows))
    return "\n\n".join(parts)


def readme_tables() -> str:
    """Markdown for the README: the published numbers of the fine-tuned models."""
    parts = []
    for columns, entries in _by_results("model"):
        header = f"| {_measured(columns)}, percent | CLIP | generator | {' | '.join(columns)} |"
        lines = [header, "|---" * (3 + len(columns)) + "|"]
        for entry in entries:
            numbers = map(str, entry.results.values())
            cells = [f"`{entry.name}`", entry.clip, entry.generator, *numbers]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def with_tables(page: str) -> str:
    """A page with the README's tables between the two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{readme_tables()}\n{END}{after}"


def _by_results(kind: str) -> list[tuple[tuple[str, ...], list[Published]]]:
    """The entries of a kind, those with numbers of the same benchmarks together."""
    entries = [entry for entry in published().values() if entry.kind == kind]
    sets = dict.fromkeys(tuple(entry.results) for entry in entries)
    return [(names, [e for e in entries if tuple(e.results) == names]) for names in sets]


def _measured(benchmarks: tuple[str, ...]) -> str:
    return "On ADE20K" if "mIoU" in benchmarks else "mIoU on each benchmark"


def _models(benchmarks: tuple[str, ...], entries: list[Published]) -> str:
    lines = [
        f"{_measured(benchmarks)}, in percent:\n",
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


def main() -> None:
    """Rewrite the README."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
