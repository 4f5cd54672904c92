"""The train mappers once more, spelt out with numpy and Pillow for comparison.

Each function seeds numpy, draws in the documented order and returns what the mapper must give.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from maskclippp.config.keys import get_cfg


@dataclass
class Expected:
    """Arrays of one training input; ``labels`` only for the semantic mapper."""

    image: np.ndarray  # uint8 [h, w, 3], RGB
    classes: list[int]
    masks: np.ndarray  # bool [n, h, w]
    labels: np.ndarray | None = None


def plain_coco_panoptic_lsj(record: dict[str, Any], config: dict[str, Any], seed: int) -> Expected:
    node = _input_config(config)
    side = node.IMAGE_SIZE
    image, ids = _load(record)
    np.random.seed(seed)
    if node.RANDOM_FLIP != "none" and np.random.uniform() < 0.5:
        axis = 1 if node.RANDOM_FLIP == "horizontal" else 0
        image, ids = np.flip(image, axis), np.flip(ids, axis)
    height, width = ids.shape
    target = side * np.random.uniform(node.MIN_SCALE, node.MAX_SCALE)
    scale = min(target / height, target / width)
    new_height, new_width = round(height * scale), round(width * scale)
    image = _resize_image(image, new_height, new_width)
    ids = resize_ids(ids, new_height, new_width)
    share = np.random.uniform()
    top = round(max(new_height - side, 0) * share)
    left = round(max(new_width - side, 0) * share)
    image, ids = image[top : top + side, left : left + side], ids[top : top + side, left:][:, :side]
    segments = [s for s in record["segments_info"] if not s["iscrowd"]]
    return Expected(
        image=_pad(image, side, 128),
        classes=[s["category_id"] for s in segments],
        masks=np.stack([_pad(ids == s["id"], side, False) for s in segments]),
    )


def plain_mask_former_semantic(
    record: dict[str, Any], config: dict[str, Any], seed: int
) -> Expected:
    image, labels, _ = _resize_crop_flip_pad(record, config, seed)
    classes = [int(label) for label in np.unique(labels) if label != 255]
    return Expected(image, classes, np.stack([labels == c for c in classes]), labels)


def plain_mask_former_panoptic(
    record: dict[str, Any], config: dict[str, Any], seed: int
) -> Expected:
    image, labels, ids = _resize_crop_flip_pad(record, config, seed)
    segments = [s for s in record["segments_info"] if not s["iscrowd"]]
    masks = np.stack([ids == s["id"] for s in segments])
    return Expected(image, [s["category_id"] for s in segments], masks, labels)


def _resize_crop_flip_pad(
    record: dict[str, Any], config: dict[str, Any], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, class ids and segment ids."""
    node = _input_config(config)
    image, ids = _load(record)
    labels = np.full(ids.shape, 255)
    for segment in record["segments_info"]:
        labels[ids == segment["id"]] = segment["category_id"]
    np.random.seed(seed)
    height, width = labels.shape
    shortest = int(np.random.choice(node.MIN_SIZE_TRAIN))
    scale = shortest / min(height, width)
    scale = min(scale, node.MAX_SIZE_TRAIN / max(height, width))
    new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)
    image = _resize_image(image, new_height, new_width)
    ids = resize_ids(ids, new_height, new_width)
    rows = (np.arange(new_height) * height / new_height).astype(int)
    columns = (np.arange(new_width) * width / new_width).astype(int)
    labels = labels[rows][:, columns]
    crop_height = min(node.CROP.SIZE[0], new_height)
    crop_width = min(node.CROP.SIZE[1], new_width)
    for _ in range(10):
        top = np.random.randint(new_height - crop_height + 1)
        left = np.random.randint(new_width - crop_width + 1)
        window = np.s_[top : top + crop_height, left : left + crop_width]
        counts = np.unique(labels[window][labels[window] != 255], return_counts=True)[1]
        limit = node.CROP.SINGLE_CATEGORY_MAX_AREA
        if limit == 1 or (len(counts) > 1 and counts.max() < limit * counts.sum()):
            break
    image, labels, ids = image[window], labels[window], ids[window]
    if np.random.uniform() < 0.5:
        image, labels, ids = np.flip(image, 1), np.flip(labels, 1), np.flip(ids, 1)
    side = node.SIZE_DIVISIBILITY
    if side > 0:
        image, labels, ids = _pad(image, side, 128), _pad(labels, side, 255), _pad(ids, side, 0)
    return image, labels, ids


def resize_ids(ids: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest resizing as Pillow does it on the 8-bit picture that holds the ids."""
    channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    resized = Image.fromarray(channels).resize((width, height), Image.Resampling.NEAREST)
    return np.array(resized).astype(int) @ [1, 256, 65536]


def _input_config(config: dict[str, Any]) -> Any:
    cfg = get_cfg()
    cfg.merge_from_list([item for pair in config.items() for item in pair])
    return cfg.INPUT


def _load(record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    image = np.array(Image.open(record["file_name"]))
    colors = np.array(Image.open(record["pan_seg_file_name"])).astype(int)
    return image, colors @ [1, 256, 65536]


def _resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _pad(values: np.ndarray, side: int, fill: Any) -> np.ndarray:
    padded = np.full((side, side, *values.shape[2:]), fill, dtype=values.dtype)
    cut = values[:side, :side]
    padded[: cut.shape[0], : cut.shape[1]] = cut
    return padded
