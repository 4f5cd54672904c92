"""Downloads what is published elsewhere and needed here, ahead of time.

python tools/download.py vocabularies             the OpenSeg class lists of the published numbers
python tools/download.py weights configs/....yaml   the CLIP weights that a config names, and
                                                  whether its mask generator's checkpoint is there

Files that are there already are left alone, so an interrupted download is continued by the same
command. HTTPS_PROXY is obeyed; without network, the errors say what belongs where.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import maskclippp  # noqa: F401  (makes detectron2 importable)

# isort: split
from maskclippp.clip.pretrained import find_pretrained
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.engine.errors import exit_on_bad_input
from maskclippp.files.downloads import download_all
from maskclippp.generators import check_generator
from maskclippp.words.openseg import ORIGIN, openseg_folder, remote_files

logger = logging.getLogger("maskclippp.download")

_TOWERS = ("VISUAL_ENCODER", "TEXT_ENCODER", "VISUAL_ENCODER_F", "TEXT_ENCODER_F")


def main(arguments: Sequence[str] | None = None) -> None:
    """What the command line asks for; bad input ends the process with one message."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    vocabularies = kinds.add_parser("vocabularies", help="the OpenSeg class lists")
    vocabularies.add_argument("--origin", default=ORIGIN, help="a mirror (default: %(default)s)")
    weights = kinds.add_parser("weights", help="the weights that a config names")
    weights.add_argument("config", help="a YAML file below configs/")
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
    """Fetch the CLIP weights of a config; FileNotFoundError says what must be done by hand."""
    cfg = get_cfg()
    merge_config_file(cfg, config)
    for name in _TOWERS:
        node = cfg.MODEL.MASKCLIPPP[name]
        if node.MODEL_NAME and node.PRETRAINED not in ("", "random"):
            file = find_pretrained(node.MODEL_NAME, node.PRETRAINED)
            logger.info("%s: %s", name, file.path)
    check_generator(cfg)


if __name__ == "__main__":
    main()
