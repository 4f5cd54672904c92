"""Registration of instance datasets: a folder of images and a JSON in the format of COCO or LVIS.

Metadata hold our words for the classes, whatever names the JSON has: categories are matched by id.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from maskclippp.data.dataset import Dataset
from maskclippp.errors import InputError
from maskclippp.files.images import read_json
from maskclippp.masks import run_length
from maskclippp.words import Vocabulary

_LOGGER = logging.getLogger(__name__)
_REQUIRED_KEYS = {
    "annotations": ("image_id", "category_id", "bbox", "segmentation"),
    "categories": ("id",),
}
_LVIS_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True, kw_only=True)
class InstanceDataset(Dataset):
    """A dataset in the instance format of COCO or LVIS. Its classes are the things of the list.

    ``evaluator_type`` is "coco" or "lvis"; LVIS names images by their URL, whose last folder is
    that of the split.
    """

    instances_json: str
    evaluator_type: str = "coco"

    @property
    def classes(self) -> Vocabulary:
        """The things in contiguous order."""
        return super().classes.things()

    @property
    def positions(self) -> dict[int, int]:
        """Contiguous class by category id."""
        return dict(self.classes.positions)

    @property
    def parts(self) -> dict[str, str]:
        """See :class:`Dataset`."""
        return {"images": self.images, "instances JSON": self.instances_json}

    def load(self, root: Path) -> list[dict[str, Any]]:
        """See :func:`load_instance_records`; all images must exist."""
        return load_instance_records(self, root, check_files=True)

    def metadata(self, root: Path) -> dict[str, Any]:
        """See :class:`Dataset`."""
        classes = self.classes
        return {
            "thing_classes": list(classes.names),
            "thing_colors": [list(color) for color in classes.colors],
            "thing_dataset_id_to_contiguous_id": self.positions,
            "image_root": str(root / self.images),
            "json_file": str(root / self.instances_json),
            "evaluator_type": self.evaluator_type,
        }


def load_instance_records(
    dataset: InstanceDataset, root: Path, *, check_files: bool
) -> list[dict[str, Any]]:
    """One record per image of the JSON, also for images without objects.

    Keys: ``file_name``, ``image_id``, ``height``, ``width``, ``annotations`` (``bbox`` as x, y,
    width, height; ``bbox_mode``; ``segmentation`` of polygons or run-length code; contiguous
    ``category_id``; ``iscrowd``), and with LVIS ``neg_category_ids`` and
    ``not_exhaustive_category_ids``. Objects whose polygons all have less than 3 points are left
    out, with a warning.

    Raises FileNotFoundError (what is expected where, how to prepare it; with ``check_files`` also
    for missing images) and ValueError (malformed JSON, categories that the class list lacks,
    annotations of images that the JSON does not list).
    """
    layout = dataset.layout(root)
    json_file = root / dataset.instances_json
    if not json_file.is_file():
        raise layout.missing(json_file)
    name_key = "coco_url" if dataset.evaluator_type == "lvis" else "file_name"
    content = read_json(
        json_file,
        {"images": ("id", "height", "width", name_key), **_REQUIRED_KEYS},
        f"the instance annotation of dataset {dataset.name}",
    )
    if not content["images"]:
        raise layout.missing(json_file, "at least one image")
    _check_categories(content["categories"], dataset, json_file)
    annotations = _annotations_by_image(content, dataset, json_file)
    records = []
    for image in content["images"]:
        # The URL ends in the folder of the split and the file.
        name = "/".join(image[name_key].split("/")[-2 if name_key == "coco_url" else 0 :])
        records.append(
            {
                "file_name": str(root / dataset.images / name),
                "image_id": image["id"],
                "height": image["height"],
                "width": image["width"],
                "annotations": annotations[image["id"]],
                **{key: image[key] for key in _LVIS_KEYS if key in image},
            }
        )
    if check_files:
        layout.require_files("images", [record["file_name"] for record in records])
    return records


def _annotations_by_image(
    content: Mapping[str, Any], dataset: InstanceDataset, json_file: Path
) -> defaultdict[int | str, list[dict[str, Any]]]:
    positions = dataset.positions
    image_ids = {image["id"] for image in content["images"]}
    by_image: defaultdict[int | str, list[dict[str, Any]]] = defaultdict(list)
    outlines_lost = 0
    for index, annotation in enumerate(content["annotations"]):
        place = f"{json_file}: annotations[{index}]"
        if annotation["image_id"] not in image_ids:
            raise InputError(f"{place} is of image {annotation['image_id']}, which is not listed")
        if annotation["category_id"] not in positions:
            raise InputError(
                f"{place} has category {annotation['category_id']}, which is not in the list of "
                f"{len(positions)} classes"
            )
        segmentation = _usable_segmentation(annotation["segmentation"])
        if segmentation is None:
            outlines_lost += 1
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
    if outlines_lost:
        _LOGGER.warning(
            "%s: %d objects without any polygon of at least 3 points are left out",
            json_file,
            outlines_lost,
        )
    return by_image


def _usable_segmentation(segmentation: Any) -> Any:
    """Polygons of at least 3 points, or compressed run-length code; None: nothing is left."""
    if isinstance(segmentation, dict):
        return run_length.compress(segmentation)
    polygons = [p for p in segmentation if len(p) >= 6 and len(p) % 2 == 0]
    return polygons or None


def _check_categories(
    categories: Sequence[Mapping[str, Any]], dataset: InstanceDataset, json_file: Path
) -> None:
    positions = dataset.positions
    unknown = [category for category in categories if category["id"] not in positions]
    if unknown:
        listed = ", ".join(f"{c['id']} ({c.get('name')})" for c in unknown[:10])
        raise InputError(
            f"{json_file}: {len(unknown)} categories are not among the {len(positions)} classes "
            f"of dataset {dataset.name}: {listed}"
        )
