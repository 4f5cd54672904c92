"""MaskCLIP++: CLIP fine-tuned as a mask classifier for open-vocabulary segmentation.

Importing the package makes ``detectron2`` importable (an installed one always wins, see
:mod:`maskclippp.detectron2_engine`) and registers every part and dataset by name.
"""

import sys
from pathlib import Path

from maskclippp.detectron2_engine import ensure_detectron2

__version__ = "0.1.0"

ensure_detectron2()

# The program of the same name imports what a command needs; torch alone takes seconds.
if Path((sys.argv or [""])[0]).stem != __name__ and sys.orig_argv[1:3] != ["-m", __name__]:
    # Registration of datasets and of the model; both need the engine to be importable.
    from maskclippp import data, meta_arch  # noqa: F401
