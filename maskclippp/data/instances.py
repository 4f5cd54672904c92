"""Datasets in the instance format of COCO or LVIS: a JSON and a folder of images.

Categories are matched by id; the metadata have our class names, not those of the JSON.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from maskclippp.data.coco_json import InstanceFile, read_instances
from maskclippp.data.dataset import Dataset
from maskclippp.masks import run_length
from maskclippp.words import Vocabulary

_LOGGER = logging.getLogger(__name__)
_LVIS_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True, kw_only=True)
class InstanceDataset(Dataset):
    """A dataset whose ``annotations`` are a JSON in the instance format of COCO or LVIS.

    Its classes are the things among ``words``.

    Args:
        evaluator: the metadata entry ``evaluator_type``, "coco" or "lvis". LVIS names images by
            their URL, which ends with the folder of the split and the file.
    """

    evaluator: str = "coco"

    @property
    def classes(self) -> Vocabulary:
        """The things in contiguous order."""
        return super().classes.things()

    @property
    def parts(self) -> dict[str, str]:
        """See :class:`Dataset`."""
        return {"images": self.images, "instances JSON": self.annotations}

    def metadata(self, root: Path) -> dict[str, Any]:
        """See :class:`Dataset`."""
        classes = self.classes
        return {
            "thing_classes": list(classes.names),
            "thing_colors": [list(color) for color in classes.colors],
            "thing_dataset_id_to_contiguous_id": dict(classes.positions),
            "image_root": str(root / self.images),
            "json_file": str(root / self.annotations),
            "evaluator_type": self.evaluator,
        }

    def load(self, root: Path, *, check_files: bool = True) -> list[dict[str, Any]]:
        """One record per image of the JSON, with or without objects; see :class:`Dataset`.

        Keys: ``file_name``, ``image_id``, ``height``, ``width``, ``annotations`` (``bbox`` as x, y,
        width, height; ``bbox_mode``; ``segmentation`` as polygons or compressed run-length code;
        contiguous ``category_id``; ``iscrowd``), and for LVIS ``neg_category_ids`` and
        ``not_exhaustive_category_ids``. Objects whose polygons all have less than 3 points are
        left out, with a warning.
        """
        layout = self.layout(root)
        json_file = root / self.annotations
        name_key, num_parts = ("coco_url", 2) if self.evaluator == "lvis" else ("file_name", 0)
        content = read_instances(
            layout.require(json_file),
            f"the instance annotation of {self.name}",
            required={
                "images": ("height", "width", name_key),
                "annotations": ("bbox", "segmentation"),
            },
        )
        if not content["images"]:
            raise layout.missing(json_file, "at least one image")
        positions = self.classes.positions
        self.check_categories(content["categories"], positions, json_file)
        objects = _objects_by_image(content, positions, json_file)
        images: Sequence[Mapping[str, Any]] = content["images"]
        records = [
            {
                "file_name": str(root / self.images / _last_parts(image[name_key], num_parts)),
                "image_id": image["id"],
                "height": image["height"],
                "width": image["width"],
                "annotations": objects[image["id"]],
                **{key: image[key] for key in _LVIS_KEYS if key in image},
            }
            for image in images
        ]
        if check_files:
            layout.require_files("images", [record["file_name"] for record in records])
        return records


def _last_parts(path: str, number: int) -> str:
    """The last ``number`` parts of a path or URL; 0: all parts."""
    return "/".join(path.split("/")[-number:])


def _objects_by_image(
    content: InstanceFile, positions: Mapping[int, int], json_file: Path
) -> defaultdict[int | str, list[dict[str, Any]]]:
    by_image: defaultdict[int | str, list[dict[str, Any]]] = defaultdict(list)
    without_outline = 0
    for annotation in content["annotations"]:
        segmentation = _usable_segmentation(annotation["segmentation"])
        if segmentation is None:
            without_outline += 1
            continue
        by_image[annotation["image_id"]].append(
            {
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": positions[annotation["category_id"]],
                "iscrowd": annotation.get("iscrowd", 0),
                "segmentation": segmentation,
            }
        )
    if without_outline:
        _LOGGER.warning(
            "%s: %d objects without any polygon of at least 3 points are left out",
            json_file,
            without_outline,
        )
    return by_image


def _usable_segmentation(segmentation: Any) -> Any:
    """The polygons of at least 3 points, or a compressed run-length code; None if empty."""
    if isinstance(segmentation, dict):
        return run_length.compress(segmentation)
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    return polygons or None
