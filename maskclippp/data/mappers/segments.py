"""Panoptic annotation of a record: a map of segment ids and the segments that are trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskclippp.data.mappers.common import masks_of_labels
from maskclippp.data.mappers.transforms import SegmentIds
from maskclippp.errors import InputError
from maskclippp.files.images import check_same_size, read_panoptic_ids


@dataclass(frozen=True)
class PanopticSegments:
    """The segments of an image that are no crowd, in the record's order.

    Attributes:
        ids: segment id of every pixel, [h, w].
        labels: the segments' ids, [n].
        classes: int64 [n].
    """

    ids: SegmentIds
    labels: Tensor
    classes: Tensor

    @classmethod
    def of_record(cls, record: Mapping[str, Any], height: int, width: int) -> "PanopticSegments":
        """Read a record's ``pan_seg_file_name``; ``height`` and ``width`` of its image.

        Raises:
            ValueError: the record has no panoptic annotation, or one of another size.
        """
        if "pan_seg_file_name" not in record or "segments_info" not in record:
            raise InputError(
                f"the mapper of INPUT.DATASET_MAPPER_NAME needs panoptic annotation "
                f"(pan_seg_file_name and segments_info), which the record of "
                f"{record['file_name']} lacks; choose a panoptic dataset or the mapper "
                "mask_former_semantic"
            )
        file = record["pan_seg_file_name"]
        ids = torch.from_numpy(read_panoptic_ids(file))
        check_same_size((height, width), record["file_name"], ids.shape, file)
        segments = [s for s in record["segments_info"] if not s.get("iscrowd", 0)]
        return cls(
            ids=ids.as_subclass(SegmentIds),
            labels=torch.tensor([s["id"] for s in segments], dtype=ids.dtype),
            classes=torch.tensor([s["category_id"] for s in segments], dtype=torch.int64),
        )

    def masks(self, ids: Tensor) -> Tensor:
        """bool [n, h', w']: every segment's mask in what the geometry made of ``ids``."""
        return masks_of_labels(ids.as_subclass(Tensor), self.labels)
