"""Average precision on LVIS, where each image is annotated for only some of the classes."""

from typing import ClassVar

from maskclippp.evaluation.instance import InstanceEvaluator


class LVISEvaluator(InstanceEvaluator):
    """An :class:`InstanceEvaluator` with LVIS's rules (``federated`` in ``average_precision``).

    APr, APc, and APf are means over rare, common, and frequent classes.
    """

    convention = (
        "LVIS average precision: IoU 0.50:0.05:0.95, at most 300 detections per image over all "
        "classes; classes count in images that are annotated for them."
    )
    federated = True
    frequencies: ClassVar = {"APr": "r", "APc": "c", "APf": "f"}
    annotation_keys: ClassVar = {
        "images": ("neg_category_ids", "not_exhaustive_category_ids"),
        "annotations": ("area",),
        "categories": ("frequency",),
    }
