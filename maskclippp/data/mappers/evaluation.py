"""The evaluation mapper: resized image, original size and, on request, ground truth."""

import copy
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from maskclippp.data.mappers.images import image_to_tensor, read_record_image
from maskclippp.data.mappers.transforms import shortest_edge_size
from maskclippp.data.semantic_maps import has_semantic_labels, read_semantic_labels
from maskclippp.files.images import LabelArray, check_same_size, read_panoptic_ids
from maskclippp.records import Record


def resized_for_test(image: Image.Image, min_size: int, max_size: int) -> Tensor:
    """uint8 [3, h, w] of an RGB image: shorter side ``min_size`` (0 keeps the size), longer side
    at most ``max_size``.
    """
    size = shortest_edge_size(image.height, image.width, min_size, max_size)
    resized = F.resize(image, list(size), interpolation=v2.InterpolationMode.BILINEAR)
    return image_to_tensor(resized)


class EvaluationMapper:
    """Maps a dataset record to an evaluation input.

    A call returns a copy of the record with ``image`` (uint8 [3, h, w], shorter side ``min_size``,
    longer side at most ``max_size``; ``min_size`` 0 keeps the size) and ``height``, ``width`` of
    the original. With ``resize_on_device``, ``image`` has its own size, and ``resize_to`` is the
    size that the model gives it. With ``with_ground_truth`` it adds ``sem_seg`` (int64, class ids)
    with the dataset's ``ignore_label``, and ``pan_seg`` (int64, segment ids), if the record has
    them, at the original size so that no small segment is lost. Otherwise it reads no annotation
    file.
    """

    @configurable
    def __init__(
        self,
        *,
        min_size: int,
        max_size: int,
        with_ground_truth: bool,
        ignore_label: int = 255,
        resize_on_device: bool = False,
    ) -> None:
        self.min_size = min_size
        self.max_size = max_size
        self.with_ground_truth = with_ground_truth
        self.ignore_label = ignore_label
        self.resize_on_device = resize_on_device

    @classmethod
    def from_config(
        cls, cfg: CfgNode, dataset_name: str, with_ground_truth: bool
    ) -> dict[str, Any]:
        """From the INPUT section and the metadata of a registered dataset."""
        return {
            "min_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_size": cfg.INPUT.MAX_SIZE_TEST,
            "with_ground_truth": with_ground_truth,
            "ignore_label": MetadataCatalog.get(dataset_name).get("ignore_label", 255),
            "resize_on_device": cfg.INPUT.RESIZE_ON_DEVICE,
        }

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that an image of this size is resized to."""
        return shortest_edge_size(height, width, self.min_size, self.max_size)

    def __call__(self, record: Record) -> Record:
        out = copy.deepcopy(record)
        image = read_record_image(record)
        out["height"], out["width"] = size = (image.height, image.width)
        if self.resize_on_device:
            out["image"] = image_to_tensor(image)
            out["resize_to"] = self.output_size(image.height, image.width)
        else:
            out["image"] = resized_for_test(image, self.min_size, self.max_size)
        if not self.with_ground_truth:
            return out

        def checked(labels: LabelArray, file: str) -> Tensor:
            check_same_size(size, record["file_name"], labels.shape, file)
            return torch.from_numpy(labels).long()

        if has_semantic_labels(record):
            out["sem_seg"] = checked(*read_semantic_labels(record, self.ignore_label))
            out["ignore_label"] = self.ignore_label
        if "pan_seg_file_name" in record:
            file = record["pan_seg_file_name"]
            out["pan_seg"] = checked(read_panoptic_ids(file), file)
        return out
