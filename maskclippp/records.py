"""The two main roads: the record of an image, and the result for an image.

A :class:`Record` starts as one entry of a dataset, gains an image from a mapper, and is what the
model and the evaluators take. An :class:`ImageResult` is what the model returns for it.
H and W are the size of the image file, h and w those of the image after the mapper.
"""

from typing import Any, TypedDict

from detectron2.structures import Instances
from torch import Tensor


class Segment(TypedDict, total=False):
    """One segment of a panoptic annotation. Datasets set the first three keys."""

    id: int  # its value in the panoptic map
    category_id: int  # contiguous class, 0..K-1; result files: the dataset's own id
    isthing: bool
    iscrowd: int  # 1: a group that is neither trained on nor counted as missed
    area: int  # pixels
    bbox: list[float]  # x, y, width, height in pixels


class ObjectAnnotation(TypedDict, total=False):
    """One object of an instance annotation."""

    category_id: int  # contiguous class, 0..K-1
    segmentation: Any  # polygons [[x1, y1, x2, y2, ...], ...], or a run-length code
    bbox: list[float]  # x, y, width, height in pixels
    bbox_mode: int  # detectron2's BoxMode
    iscrowd: int  # 1: a group of objects


class Record(TypedDict, total=False):
    """An image on its way through training or evaluation; every key is optional."""

    # Of the dataset. Paths are absolute, or relative to the working directory.
    file_name: str
    image_id: int | str
    height: int  # H; of results as well
    width: int  # W
    sem_seg_file_name: str  # label map; the file may be missing if the panoptic files exist
    sem_seg_values: tuple[tuple[int, ...], int]  # pixel value of each class, and the ignored one
    pan_seg_file_name: str  # panoptic map: R + 256 G + 65536 B is the segment id
    segments_info: list[Segment]
    annotations: list[ObjectAnnotation]
    neg_category_ids: list[int]  # LVIS: classes verified as absent
    not_exhaustive_category_ids: list[int]  # LVIS: classes that are not annotated exhaustively

    # Of both mappers.
    image: Tensor  # uint8 [3, h, w], RGB

    # Of the train mapper.
    instances: Instances  # gt_classes int64 [n], gt_masks bool [n, h, w]

    # Of the evaluation mapper, for generators of ground-truth masks.
    sem_seg: Tensor  # int64 [H, W], contiguous classes or ignore_label
    ignore_label: int
    pan_seg: Tensor  # int64 [H, W], segment ids


class ImageResult(TypedDict, total=False):
    """What the model returns for an image in evaluation; the config selects the keys."""

    sem_seg_labels: Tensor  # int64 [H, W], test classes
    sem_seg: Tensor  # float [K, H, W], scores of the test classes
    panoptic_seg: tuple[Tensor, list[Segment]]  # int32 [H, W] segment ids, and the segments
    instances: Instances  # pred_masks bool [n, H, W], pred_boxes, pred_classes int64 [n], scores
    mask_cls: Tensor  # int64 [Q], class of each mask of the generator: mask accuracy
    pred_masks: Tensor  # bool [Q, H, W]: the generator's masks alone
    category_overlapping_mask: Tensor  # bool [K], test classes that training has seen
