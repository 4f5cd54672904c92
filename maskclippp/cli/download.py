"""``maskclippp download``."""

import argparse
import logging
from collections.abc import Sequence

from maskclippp.clip.pretrained import find_pretrained
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.errors import exit_on_bad_input
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
    """Fetch the CLIP weights of a config; MissingFileError says what must be done by hand."""
    cfg = get_cfg()
    merge_config_file(cfg, config)
    for name in _TOWERS:
        node = cfg.MODEL.MASKCLIPPP[name]
        if node.MODEL_NAME and node.PRETRAINED not in ("", "random"):
            file = find_pretrained(node.MODEL_NAME, node.PRETRAINED)
            logger.info("%s: %s", name, file.path)
    check_generator(cfg)
