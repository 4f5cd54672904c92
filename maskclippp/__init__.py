"""MaskCLIP++: CLIP fine-tuned as a mask classifier for open-vocabulary segmentation.

Importing the package makes ``detectron2`` importable (:mod:`maskclippp.detectron2_engine`) and
registers all parts and datasets by name.
"""

import sys
from itertools import pairwise
from pathlib import Path

from maskclippp.detectron2_engine import ensure_detectron2

__version__ = "0.1.0"

ensure_detectron2()

# The command-line program imports only what a command needs: importing torch takes seconds.
_is_program = ("-m", __name__) in pairwise(sys.orig_argv)
if Path((sys.argv or [""])[0]).stem != __name__ and not _is_program:
    # These register datasets and model; both import detectron2.
    from maskclippp import data, meta_arch  # noqa: F401
