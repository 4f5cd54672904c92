"""MaskCLIP++: CLIP fine-tuned as a mask classifier for open-vocabulary segmentation.

Importing the package makes ``detectron2`` importable (:mod:`maskclippp.detectron2_engine`). As soon
as detectron2's catalogs and models are imported, all datasets and the model are registered there.
"""

import importlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from maskclippp.detectron2_engine import call_after_import, ensure_detectron2, import_without

if TYPE_CHECKING:
    from maskclippp.predictor import Predictor as Predictor
    from maskclippp.predictor.models import list_models as list_models
    from maskclippp.segmentation import Segmentation as Segmentation

__version__ = "0.1.0"

ensure_detectron2()

# Containers run under user ids without a name or a home, which torch and caches ask for.
if os.name == "posix" and os.path.expanduser("~") == "~":  # noqa: PTH111  Path raises an error
    os.environ["HOME"] = os.getcwd()  # noqa: PTH109
    os.environ.setdefault("LOGNAME", str(os.getuid()))

# Importing the package takes no time: registering needs torch, and is due when names are looked up.
for _engine, _ours in (("detectron2.data", "data"), ("detectron2.modeling", "meta_arch")):
    call_after_import(_engine, partial(importlib.import_module, f"{__name__}.{_ours}"))

# timm can log to wandb, whose import takes seconds; we import it where WANDB.ENABLED asks for it.
import_without("timm.utils.summary", "wandb")

_LAZY = {
    "Predictor": "predictor",
    "Segmentation": "segmentation",
    "list_models": "predictor.models",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
