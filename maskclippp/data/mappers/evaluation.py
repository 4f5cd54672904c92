"""The evaluation mapper: resized image, original size, and ground truth where it is asked for."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from maskclippp.data.mappers.common import check_image_format, image_to_tensor, read_record_image
from maskclippp.data.mappers.transforms import shortest_edge_size
from maskclippp.data.semantic_maps import has_semantic_labels, read_semantic_labels
from maskclippp.files.images import LabelArray, check_same_size, read_panoptic_ids
from maskclippp.registry import SEGMENTOR_REGISTRY, get_part


class TestMapper:
    """Maps a dataset record to an evaluation input.

    A call returns a copy of the record with ``image`` (uint8 [3, h, w], shorter side ``min_size``,
    longer side at most ``max_size``; ``min_size`` 0 keeps the size) and ``height``, ``width`` of
    the original. With ``with_ground_truth`` also ``sem_seg`` (int64, class ids) with the dataset's
    ``ignore_label``, and ``pan_seg`` (int64, segment ids), as far as the record has them, at the
    original size, so that no small segment is lost to resizing; otherwise no annotation file is
    touched.
    """

    __test__ = False  # no test class, whatever pytest makes of its name

    @configurable
    def __init__(
        self,
        *,
        min_size: int,
        max_size: int,
        image_format: str,
        with_ground_truth: bool,
        ignore_label: int = 255,
    ) -> None:
        self.min_size = min_size
        self.max_size = max_size
        self.image_format = check_image_format(image_format)
        self.with_ground_truth = with_ground_truth
        self.ignore_label = ignore_label

    @classmethod
    def from_config(
        cls, cfg: CfgNode, dataset_name: str, with_ground_truth: bool | None = None
    ) -> dict[str, Any]:
        """``with_ground_truth`` None: yes when the configured segmentor takes its masks from it."""
        if with_ground_truth is None:
            name = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME
            generator = get_part(SEGMENTOR_REGISTRY, name, "MODEL.MASKCLIPPP.SEGMENTOR.NAME")
            with_ground_truth = generator.needs_ground_truth
        return {
            "min_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_size": cfg.INPUT.MAX_SIZE_TEST,
            "image_format": cfg.INPUT.FORMAT,
            "with_ground_truth": with_ground_truth,
            "ignore_label": MetadataCatalog.get(dataset_name).get("ignore_label", 255),
        }

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = copy.deepcopy(dict(record))
        image = read_record_image(out)
        original_size = (image.height, image.width)
        size = shortest_edge_size(*original_size, self.min_size, self.max_size)
        resized = F.resize(image, list(size), interpolation=v2.InterpolationMode.BILINEAR)
        out["image"] = image_to_tensor(resized, self.image_format)
        if not self.with_ground_truth:
            return out

        def checked(labels: LabelArray, file: str) -> torch.Tensor:
            check_same_size(original_size, out["file_name"], labels.shape, file)
            return torch.from_numpy(labels).long()

        if has_semantic_labels(out):
            out["sem_seg"] = checked(*read_semantic_labels(out, self.ignore_label))
            out["ignore_label"] = self.ignore_label
        if "pan_seg_file_name" in out:
            file = out["pan_seg_file_name"]
            out["pan_seg"] = checked(read_panoptic_ids(file), file)
        return out
