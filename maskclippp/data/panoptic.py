"""Datasets in COCO's panoptic format: a JSON, a folder of PNGs and a folder of images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskclippp.data.coco_json import Image, PanopticCategory, PanopticImage, read_panoptic
from maskclippp.data.dataset import Dataset
from maskclippp.errors import InputError
from maskclippp.files.images import LabelArray
from maskclippp.words import Vocabulary


def _stem(stem: str, _image: Image) -> tuple[str, str]:
    return f"{stem}.jpg", f"{stem}.png"


def _listed(stem: str, image: Image) -> tuple[str, str]:
    return image["file_name"], f"{stem}.png"


def _cityscapes(stem: str, _image: Image) -> tuple[str, str]:
    parts = Path(stem).name.split("_")
    if len(parts) < 3:
        raise InputError(
            f"{stem} is not a file of Cityscapes, where names are <city>_<sequence>_<frame>_..."
        )
    scene = f"{parts[0]}/{'_'.join(parts[:3])}"
    return f"{scene}_leftImg8bit.png", f"{scene}_gtFine_labelTrainIds.png"


# (name of the panoptic PNG without suffix, entry of the image) -> files below ``images`` and
# ``semantic_maps``.
_FILE_NAMES: Mapping[str, Callable[[str, Image], tuple[str, str]]] = {
    "stem": _stem,
    "listed": _listed,
    "cityscapes": _cityscapes,
}


@dataclass(frozen=True, kw_only=True)
class PanopticDataset(Dataset):
    """A dataset whose ``annotations`` are a JSON in COCO's panoptic format.

    Args:
        panoptic_maps: folder of the panoptic PNGs.
        semantic_maps: folder of label maps; labels that are missing are derived from the panoptic
            PNGs.
        instances: JSON of the same objects in COCO's instance format, for instance AP.
        evaluator: the metadata entry ``evaluator_type``.
        ignore: value of pixels without a class in the label maps.
        file_names: how images and label maps are named: "stem" (like the panoptic PNG), "listed"
            (images as in the JSON) or "cityscapes".
    """

    panoptic_maps: str
    semantic_maps: str | None = None
    instances: str | None = None
    evaluator: str = "coco_panoptic_seg"
    ignore: int = 255
    file_names: str = "stem"

    def __post_init__(self) -> None:
        if self.file_names not in _FILE_NAMES:
            raise InputError(
                f"dataset {self.name}: file_names must be one of {sorted(_FILE_NAMES)}, found "
                f"{self.file_names!r}"
            )

    @property
    def parts(self) -> dict[str, str]:
        """See :class:`Dataset`."""
        return {
            "images": self.images,
            "panoptic JSON": self.annotations,
            "panoptic PNGs": self.panoptic_maps,
        }

    def metadata(self, root: Path) -> dict[str, Any]:
        """See :class:`Dataset`."""
        classes = self.classes
        things = classes.things()
        return {
            "thing_classes": list(things.names),
            "thing_colors": [list(color) for color in things.colors],
            "thing_dataset_id_to_contiguous_id": {
                category: classes.positions[category] for category in things.ids
            },
            # As published, "stuff" means all classes, in the order of semantic outputs.
            "stuff_classes": list(classes.names),
            "stuff_colors": [list(color) for color in classes.colors],
            "stuff_dataset_id_to_contiguous_id": dict(classes.positions),
            "image_root": str(root / self.images),
            "panoptic_json": str(root / self.annotations),
            "panoptic_root": str(root / self.panoptic_maps),
            "sem_seg_root": self.semantic_maps and str(root / self.semantic_maps),
            "json_file": self.instances and str(root / self.instances),
            "evaluator_type": self.evaluator,
            "ignore_label": self.ignore,
            "label_divisor": 1000,
        }

    def load(self, root: Path, *, check_files: bool = True) -> list[dict[str, Any]]:
        """One record per annotated image; see :class:`Dataset`.

        Keys: ``file_name``, ``image_id``, ``height`` and ``width`` (if the JSON has them),
        ``pan_seg_file_name``, ``sem_seg_file_name`` (if there is a folder of label maps; the file
        may be missing), and ``segments_info`` with contiguous ``category_id`` and boolean
        ``isthing``.
        """
        layout = self.layout(root)
        json_file = root / self.annotations
        content = read_panoptic(
            layout.require(json_file), f"the COCO panoptic annotation of {self.name}"
        )
        classes = self.classes
        positions = self._positions(content["categories"], classes, json_file)
        images = {image["id"]: image for image in content["images"]}
        records = []
        for annotation in content["annotations"]:
            image = images[annotation["image_id"]]
            if self.file_names == "listed" and "file_name" not in image:
                raise InputError(
                    f"{json_file}: the annotation {annotation['file_name']} is of image "
                    f"{annotation['image_id']!r}, which is not listed with a file_name"
                )
            record = self._record(annotation, image, root)
            record["segments_info"] = [
                {
                    **segment,
                    "category_id": positions[segment["category_id"]],
                    "isthing": classes.is_thing[positions[segment["category_id"]]],
                }
                for segment in annotation["segments_info"]
            ]
            records.append(record)
        if not records:
            raise layout.missing(json_file, "at least one annotation")
        if check_files:
            for kind, key in (("images", "file_name"), ("panoptic PNGs", "pan_seg_file_name")):
                layout.require_files(kind, [record[key] for record in records])
        return records

    def _record(self, annotation: PanopticImage, image: Image, root: Path) -> dict[str, Any]:
        """Files, id and size of an annotated image."""
        stem = str(Path(annotation["file_name"]).with_suffix(""))
        image_file, semantic_file = _FILE_NAMES[self.file_names](stem, image)
        record: dict[str, Any] = {
            "file_name": str(root / self.images / image_file),
            "image_id": annotation["image_id"],
            "pan_seg_file_name": str(root / self.panoptic_maps / annotation["file_name"]),
            **{key: image[key] for key in ("height", "width") if key in image},
        }
        if self.semantic_maps is not None:
            record["sem_seg_file_name"] = str(root / self.semantic_maps / semantic_file)
        return record

    def _positions(
        self, categories: Sequence[PanopticCategory], classes: Vocabulary, json_file: Path
    ) -> dict[int, int]:
        """The class index of each category id; an InputError if the JSON has other categories."""
        shift = category_id_shift([category["id"] for category in categories], classes.ids)
        positions = {category - shift: index for index, category in enumerate(classes.ids)}
        self.check_categories(categories, positions, json_file)
        for category in categories:
            is_thing = classes.is_thing[positions[category["id"]]]
            if category["isthing"] != is_thing:
                raise InputError(
                    f"{json_file}: category {category['id']} ({category.get('name')}) has isthing "
                    f"{category['isthing']}, the class list says {int(is_thing)}"
                )
        return positions


def category_id_shift(found: Sequence[int], expected: Sequence[int]) -> int:
    """The number to add to the category ids of a JSON to get those of the class list: 0, 1 or -1.

    Some copies of a dataset count its categories from 0, others from 1. A shift is only detected if
    the JSON lists all categories.
    """
    for shift in (1, -1):
        if {category + shift for category in found} == set(expected):
            return shift
    return 0


def pixel_counts(ids: LabelArray) -> dict[int, int]:
    """The number of pixels of every value of a map, by ascending value."""
    flat = ids.ravel()
    # A map of hundreds of thousands of pixels has only thousands of runs to sort.
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])[: flat.size]
    lengths = np.diff(starts, append=flat.size)
    values, run_values = np.unique(flat[starts], return_inverse=True)
    pixels = np.bincount(run_values, weights=lengths, minlength=len(values))
    return {int(value): int(count) for value, count in zip(values, pixels, strict=True)}


def check_areas(
    pixels: Mapping[int, int], segments: Sequence[Mapping[str, Any]], place: str
) -> None:
    """Raise an InputError if a segment has more pixels than its area says, or its image fewer.

    Its intersection over union with a prediction would exceed 1, or be too low. Areas between them
    are legitimate: those of ADE20K count pixels that other segments cover.

    Args:
        pixels: of every segment of the map.
        segments: ``segments_info`` of the JSON.
        place: JSON and map, for messages.
    """
    largest = sum(pixels.values())
    for segment in segments:
        found = pixels.get(segment["id"], 0)
        if not found <= segment.get("area", found) <= largest:
            raise InputError(
                f"{place}: the area of segment {segment['id']} in segments_info must be from "
                f"{found}, the pixels of the segment, to {largest}, those of the image, found "
                f"{segment['area']}"
            )


def check_listed(
    pixels: Mapping[int, int], segments: Sequence[Mapping[str, Any]], place: str
) -> None:
    """Raise an InputError if a map has segments that its JSON does not list; see check_areas."""
    unlisted = sorted(pixels.keys() - {0} - {segment["id"] for segment in segments})
    if unlisted:
        raise InputError(
            f"{place}: segments_info does not list segment {unlisted[0]}, which has "
            f"{pixels[unlisted[0]]} pixels in the map ({len(unlisted)} segments with "
            f"{sum(pixels[i] for i in unlisted)} pixels are not listed): list them, or set their "
            "pixels to 0, no segment"
        )
