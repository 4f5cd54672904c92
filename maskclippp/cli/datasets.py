"""``maskclippp datasets``."""

import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from maskclippp.engine.arguments import Parser
from maskclippp.errors import InputError

_EXAMPLES = """examples:
  maskclippp datasets
  maskclippp datasets ade20k                  # names that contain "ade20k", with what is missing
  maskclippp datasets --config-file my.yaml   # also those of its DATASETS.CUSTOM

Datasets lie below $DETECTRON2_DATASETS (default: ./datasets); datasets/README.md says how to
prepare them. One that lacks its panoptic or instance annotation is still good for mIoU."""
# The metadata of a dataset that name files and folders.
_PATHS = ("image_root", "sem_seg_root", "panoptic_root", "panoptic_json", "json_file")


def main(arguments: Sequence[str]) -> None:
    """List the registered datasets."""
    parser = Parser(
        prog="maskclippp datasets",
        description="List the registered datasets, and which of them are complete.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("name", nargs="?", default="", help="only names that contain this text")
    parser.add_argument("--config-file", metavar="FILE", help="register its DATASETS.CUSTOM, too")
    args = parser.parse_args(arguments)
    if args.config_file:
        _register_custom(args.config_file)
    states = list(dataset_states())
    chosen = [(name, state) for name, state in states if args.name in name]
    if not chosen:
        names = [name for name, _ in states]
        near = difflib.get_close_matches(args.name, names, n=5, cutoff=0.2)
        raise InputError(
            f"no registered dataset has a name with {args.name!r}; similar names: "
            f"{', '.join(near) or 'none'}; maskclippp datasets lists all {len(names)}"
        )
    for name, state in chosen:
        sys.stdout.write(f"{name:<50} {state}\n")


def dataset_states() -> Iterator[tuple[str, str]]:
    """Name and state of every registered dataset: those that are complete come first."""
    from detectron2.data import DatasetCatalog

    import maskclippp.data  # noqa: F401  (registers)

    states = {name: _state(name) for name in sorted(DatasetCatalog.list())}
    order = ("built in", "present", "partly", "missing")
    return iter(sorted(states.items(), key=lambda item: order.index(item[1].split(":")[0])))


def _state(name: str) -> str:
    """``built in``, ``present``, ``partly: missing ...`` or ``missing: ...``."""
    from detectron2.data import MetadataCatalog

    metadata = MetadataCatalog.get(name)
    paths = [Path(path) for key in _PATHS if (path := metadata.get(key, None))]
    missing = [path for path in paths if not path.exists()]
    if not paths:
        return "built in"
    if not missing:
        return "present"
    if len(missing) < len(paths):
        return f"partly: without {', '.join(map(str, missing))}"
    others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"missing: {missing[0]}{others}"


def _register_custom(config: str) -> None:
    from maskclippp.config.keys import get_cfg
    from maskclippp.config.merging import merge_config_file
    from maskclippp.data.custom import register_custom_datasets

    cfg = get_cfg()
    merge_config_file(cfg, config)
    register_custom_datasets(cfg.DATASETS.CUSTOM)
