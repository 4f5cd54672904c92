"""MaskCLIP++: CLIP fine-tuned as a mask classifier for open-vocabulary segmentation.

Importing the package makes ``detectron2`` importable (an installed one always wins, see
:mod:`maskclippp.detectron2_engine`) and registers every part and dataset by name.
"""

from maskclippp.detectron2_engine import ensure_detectron2

ensure_detectron2()

# Registration of datasets and of the model; both need the engine to be importable.
from maskclippp import data, meta_arch  # noqa: E402

__all__ = ["data", "meta_arch"]

__version__ = "0.1.0"
