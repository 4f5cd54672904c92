"""``maskclippp models``."""

import sys
from collections.abc import Sequence

from maskclippp.engine.arguments import Parser
from maskclippp.files.published import KINDS, Published, published

_EXAMPLES = """examples:
  maskclippp models
  maskclippp models --kind model

'maskclippp download NAME' fetches one, 'maskclippp download --for CONFIG' what a config needs."""


def main(arguments: Sequence[str]) -> None:
    """List what is published, with published numbers and what is here."""
    parser = Parser(
        prog="maskclippp models",
        description="List the published models, mask generators and CLIPs.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--kind", choices=KINDS, help="only these")
    kind = parser.parse_args(arguments).kind
    for each, title in KINDS.items():
        if kind not in (None, each):
            continue
        sys.stdout.write(f"{title}\n")
        for entry in published().values():
            if entry.kind == each:
                sys.stdout.write(f"  {entry.name:<34}{_state(entry):<10}{_about(entry)}\n")
    if kind in (None, "model"):
        sys.stdout.write(
            "Also: default (for photographs) and shapes (built in). Numbers are percent.\n"
        )


def _state(entry: Published) -> str:
    if entry.local is not None:
        return "here" if entry.local.expanduser().is_file() else "missing"
    from maskclippp.clip.pretrained import find_pretrained
    from maskclippp.errors import InputError

    try:
        find_pretrained(entry.model_name, entry.tag, download=False)
    except InputError:
        return "missing"
    return "here"


def _about(entry: Published) -> str:
    if entry.kind == "model":
        numbers = ", ".join(f"{name} {value}" for name, value in entry.results.items())
        return f"{numbers}; masks of {entry.generator}"
    return entry.path or entry.url
