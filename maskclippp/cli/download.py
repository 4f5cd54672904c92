"""``maskclippp download``."""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from maskclippp.clip.pretrained import find_pretrained
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.errors import InputError, MissingFileError, exit_on_bad_input
from maskclippp.files.downloads import download_all
from maskclippp.generators import check_generator
from maskclippp.words.openseg import ORIGIN, openseg_folder, remote_files

logger = logging.getLogger("maskclippp.download")

_TOWERS = ("VISUAL_ENCODER", "TEXT_ENCODER", "VISUAL_ENCODER_F", "TEXT_ENCODER_F")
_EXAMPLES = """examples:
  maskclippp download vocabularies
  maskclippp download weights configs/shapes/linear_psm.yaml

Existing files are kept, so that the same command continues an interrupted download. HTTPS_PROXY is
respected; without a network, the error lists which file belongs where."""


def main(arguments: Sequence[str]) -> None:
    """Fetch what is published elsewhere and needed here."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        prog="maskclippp download",
        description="Download class lists and pretrained weights ahead of time.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    vocabularies = kinds.add_parser(
        "vocabularies", help="the OpenSeg class lists of the published numbers"
    )
    vocabularies.add_argument("--origin", default=ORIGIN, help="a mirror (default: %(default)s)")
    weights = kinds.add_parser(
        "weights", help="the CLIP weights of a config; also checks its mask generator's checkpoint"
    )
    weights.add_argument("config", help="a YAML file such as those in configs/")
    args = parser.parse_args(arguments)
    with exit_on_bad_input():
        if args.kind == "vocabularies":
            download_vocabularies(args.origin)
        else:
            download_weights(args.config)


def download_vocabularies(origin: str) -> None:
    """Fetch the class lists that are not in the cache yet; see :func:`download_all`."""
    files = remote_files(origin.rstrip("/"))
    fetched = download_all(files)
    logger.info("%d class lists in %s, %d of them new", len(files), openseg_folder(), fetched)


def download_weights(config: str) -> None:
    """Fetch the CLIP weights of a config; the InputError says what must be done by hand."""
    problems = []
    for key, file in files_of_config(config, download=True):
        if isinstance(file, InputError):
            problems.append(str(file))
        elif file is not None:
            logger.info("%s: %s", key.removesuffix(".PRETRAINED"), file)
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def files_of_config(
    config: str, *, download: bool
) -> Iterator[tuple[str, Path | InputError | None]]:
    """The files that a config needs: its key, and the file, or why it cannot be used.

    None: the mask generator lacks nothing.
    """
    cfg = get_cfg()
    merge_config_file(cfg, config)
    for tower in _TOWERS:
        node = cfg.MODEL.MASKCLIPPP[tower]
        key, name = f"{tower}.PRETRAINED", node.PRETRAINED
        if node.MODEL_NAME and name not in ("", "random"):
            yield key, _tried(partial(_pretrained, node, download=download))
        elif name not in ("", "random"):  # of a Swin Transformer
            yield key, _tried(partial(_local_file, key, name))
        if node.LOAD_FROM:
            key = f"{tower}.LOAD_FROM"
            yield key, _tried(partial(_local_file, key, node.LOAD_FROM))
    if cfg.MODEL.WEIGHTS:
        yield "MODEL.WEIGHTS", _tried(partial(_local_file, "MODEL.WEIGHTS", cfg.MODEL.WEIGHTS))
    generator = _tried(partial(check_generator, cfg))
    yield (
        f"SEGMENTOR {cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME}",
        generator if isinstance(generator, InputError) else None,
    )


def _tried(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except InputError as error:
        return error


def _pretrained(node: Any, *, download: bool) -> Path:
    return find_pretrained(node.MODEL_NAME, node.PRETRAINED, download=download).path


def _local_file(key: str, file: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise MissingFileError(f"{key}: {file} does not exist")
    return path
