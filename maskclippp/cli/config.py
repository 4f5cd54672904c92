"""``maskclippp config``."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from maskclippp.engine.arguments import Parser
from maskclippp.errors import InputError

_EXAMPLES = """examples:
  maskclippp config configs/shapes/linear_psm.yaml
  maskclippp config configs/shapes/linear_psm.yaml SOLVER.BASE_LR 0.001
  maskclippp config SOLVER.VISUAL_ENCODER_MULTIPLIER
  maskclippp config PSM.NAME"""


def main(arguments: Sequence[str]) -> None:
    """Print a resolved config, or explain a key."""
    parser = Parser(
        prog="maskclippp config",
        description="Print a config with everything that its files and options set, or explain a "
        "key: its meaning and default.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("what", metavar="FILE|KEY", help="a config, or a key or its end")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(arguments)
    is_file = Path(args.what).suffix in (".yaml", ".yml")
    text = _resolved(args.what, args.options) if is_file else _explained(args.what)
    sys.stdout.write(text)


def _resolved(file: str, options: Sequence[str]) -> str:
    from maskclippp.config.keys import get_cfg
    from maskclippp.config.merging import merge_config_file, merge_options

    cfg = get_cfg()
    merge_config_file(cfg, file)
    merge_options(cfg, options)
    return str(cfg.dump())


def _explained(key: str) -> str:
    """The meaning and default of the keys that are or end in this name."""
    from maskclippp.config.descriptions import entries
    from maskclippp.config.keys import get_cfg

    described = {entry.name: entry for entry in entries()}
    # Sections that repeat the keys of another one.
    for twin in [entry for entry in described.values() if entry.twin]:
        for name in [name for name in described if name.startswith(f"{twin.twin}.")]:
            described.setdefault(twin.name + name.removeprefix(twin.twin), described[name])
    found = [name for name in described if name == key or name.endswith(f".{key}")]
    if not found:
        ends = {name.rpartition(".")[2] for name in described}
        near = difflib.get_close_matches(key, ends | described.keys(), n=3, cutoff=0.5)
        raise InputError(
            f"{key!r} is neither a config file (.yaml) nor a key of this project"
            + (f" (did you mean {' or '.join(near)}?)" if near else "")
            + "; keys of detectron2 itself are in its documentation"
        )
    cfg = get_cfg()
    lines = []
    for name in found:
        value = cfg
        for part in name.split("."):
            value = value[part]
        default = "" if described[name].is_section else f" (default: {value!r})"
        lines.append(f"{name}{default}\n  {described[name].meaning}\n")
    return "".join(lines)
