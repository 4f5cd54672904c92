"""``maskclippp download``."""

import logging
from collections.abc import Sequence

from maskclippp.engine.arguments import Parser
from maskclippp.files.published import find_published

_EXAMPLES = """examples:
  maskclippp download coco-pan_clip-convnext-base fcclip-convnext-base
  maskclippp download --for configs/shapes/linear_psm.yaml
  maskclippp download --for default
  maskclippp download vocabularies

'maskclippp models' lists the names. Existing files are kept and checked, and the same command
continues an interrupted download. HTTPS_PROXY is respected; without a network, the error lists
which file belongs where."""


def main(arguments: Sequence[str]) -> None:
    """Fetch what is published elsewhere and needed here."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = Parser(
        prog="maskclippp download",
        description="Download models, weights and class lists ahead of time.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="entries of 'maskclippp models', 'vocabularies' (the OpenSeg class lists of the "
        "published numbers), or 'weights CONFIG', the same as --for",
    )
    parser.add_argument(
        "--for",
        dest="config",
        metavar="CONFIG",
        help="fetch everything that a config, a published model or 'default' needs",
    )
    parser.add_argument("--origin", metavar="URL", help="a mirror with the same paths")
    args = parser.parse_args(arguments)
    names = list(args.names)
    if names[:1] == ["weights"] and len(names) == 2:
        names, args.config = [], names[1]
    if not names and not args.config:
        parser.error("name something to download, or give --for CONFIG")
    from maskclippp.cli import fetching

    if "vocabularies" in names:
        names.remove("vocabularies")
        fetching.download_vocabularies(args.origin)
    fetching.download_entries([find_published(name) for name in names], args.origin)
    if args.config:
        fetching.download_weights(args.config, args.origin)
