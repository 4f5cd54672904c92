"""Registration of datasets in COCO's panoptic format: a JSON, a folder of PNGs, one of images."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskclippp.data.dataset import Dataset
from maskclippp.errors import InputError
from maskclippp.files.images import read_json
from maskclippp.words import Vocabulary

_REQUIRED_KEYS = {
    "images": ("id",),
    "annotations": ("image_id", "file_name", "segments_info"),
    "categories": ("id", "isthing"),
}


@dataclass(frozen=True, kw_only=True)
class PanopticDataset(Dataset):
    """A dataset in COCO's panoptic format.

    ``make_files`` is called before the records are read, by a dataset that can make its own files.
    ``image_of`` and ``semantic_of`` give the path of a file below ``images`` and ``semantic_maps``
    by the stem of the panoptic PNG; by default the files have that stem and the suffixes
    ``image_suffix`` and .png.
    """

    panoptic_json: str
    panoptic_maps: str
    semantic_maps: str
    make_files: Callable[[], object] | None = None
    instances_json: str | None = None
    evaluator_type: str = "coco_panoptic_seg"
    ignore_label: int = 255
    image_suffix: str = ".jpg"
    image_of: Callable[[str], str] | None = None
    semantic_of: Callable[[str], str] | None = None

    @property
    def parts(self) -> dict[str, str]:
        """See :class:`Dataset`."""
        return {
            "images": self.images,
            "panoptic JSON": self.panoptic_json,
            "panoptic PNGs": self.panoptic_maps,
        }

    def image_file(self, root: Path, stem: str) -> str:
        """The image that belongs to the panoptic PNG of this stem."""
        name = f"{stem}{self.image_suffix}" if self.image_of is None else self.image_of(stem)
        return str(root / self.images / name)

    def semantic_file(self, root: Path, stem: str) -> str:
        """The semantic label map that belongs to the panoptic PNG of this stem."""
        name = f"{stem}.png" if self.semantic_of is None else self.semantic_of(stem)
        return str(root / self.semantic_maps / name)

    def load(self, root: Path) -> list[dict[str, Any]]:
        """See :func:`load_panoptic_records`; all images and panoptic PNGs must exist."""
        return load_panoptic_records(self, root, check_files=True)

    def metadata(self, root: Path) -> dict[str, Any]:
        """See :class:`Dataset`."""
        classes = self.classes
        things = classes.things()
        instances = self.instances_json
        return {
            "thing_classes": list(things.names),
            "thing_colors": [list(color) for color in things.colors],
            "thing_dataset_id_to_contiguous_id": {
                category: classes.positions[category] for category in things.ids
            },
            # As published, "stuff" holds all classes: it is what semantic outputs are numbered by.
            "stuff_classes": list(classes.names),
            "stuff_colors": [list(color) for color in classes.colors],
            "stuff_dataset_id_to_contiguous_id": dict(classes.positions),
            "image_root": str(root / self.images),
            "panoptic_json": str(root / self.panoptic_json),
            "panoptic_root": str(root / self.panoptic_maps),
            "sem_seg_root": str(root / self.semantic_maps),
            "json_file": None if instances is None else str(root / instances),
            "evaluator_type": self.evaluator_type,
            "ignore_label": self.ignore_label,
            "label_divisor": 1000,
        }


def load_panoptic_records(
    dataset: PanopticDataset, root: Path, *, check_files: bool
) -> list[dict[str, Any]]:
    """One record per annotated image.

    Keys: ``file_name``, ``image_id``, ``height`` and ``width`` (when the JSON has them),
    ``pan_seg_file_name``, ``sem_seg_file_name`` (the file may be absent: it can be derived), and
    ``segments_info`` with contiguous ``category_id`` and boolean ``isthing``.

    Raises FileNotFoundError (what is expected where, how to prepare it) and ValueError (JSON that
    is malformed or has categories that the class list lacks). With ``check_files`` every image and
    every panoptic PNG must exist: a run must not end at the one that does not.
    """
    if dataset.make_files is not None:
        dataset.make_files()
    layout = dataset.layout(root)
    json_file = root / dataset.panoptic_json
    if not json_file.is_file():
        raise layout.missing(json_file)
    content = read_json(
        json_file, _REQUIRED_KEYS, f"the COCO panoptic annotation of dataset {dataset.name}"
    )
    images = {image["id"]: image for image in content["images"]}
    classes = dataset.classes
    shift = category_id_shift([category["id"] for category in content["categories"]], classes.ids)
    positions = {category - shift: index for index, category in enumerate(classes.ids)}
    _check_categories(content["categories"], classes, positions, json_file)
    records = []
    for annotation in content["annotations"]:
        check_segments(annotation, json_file, ("id", "category_id"), positions)
        stem = Path(annotation["file_name"]).stem
        record: dict[str, Any] = {
            "file_name": dataset.image_file(root, stem),
            "image_id": annotation["image_id"],
            "pan_seg_file_name": str(root / dataset.panoptic_maps / annotation["file_name"]),
            "sem_seg_file_name": dataset.semantic_file(root, stem),
            "segments_info": [
                {
                    **segment,
                    "category_id": positions[segment["category_id"]],
                    "isthing": classes.is_thing[positions[segment["category_id"]]],
                }
                for segment in annotation["segments_info"]
            ],
        }
        image = images.get(annotation["image_id"], {})
        record.update({key: image[key] for key in ("height", "width") if key in image})
        records.append(record)
    if not records:
        raise layout.missing(json_file, "at least one annotation")
    if check_files:
        layout.require_files("images", [record["file_name"] for record in records])
        layout.require_files("panoptic PNGs", [record["pan_seg_file_name"] for record in records])
    return records


def category_id_shift(found: Sequence[int], expected: Sequence[int]) -> int:
    """What to add to the category ids of a JSON to get those of the class list: 0, 1 or -1.

    Some copies of a dataset count its categories from 0, others from 1. Only a JSON that lists all
    categories tells; any other one must have the ids of the class list.
    """
    for shift in (1, -1):
        if {identity + shift for identity in found} == set(expected):
            return shift
    return 0


def check_segments(
    annotation: Mapping[str, Any],
    json_file: str | Path,
    required_keys: Sequence[str],
    categories: Container[int] | None = None,
) -> None:
    """Check the segments of one image's panoptic annotation.

    Raises ValueError naming file, image and what is wrong: no list of segments, a segment that
    lacks one of ``required_keys``, or a category that is not in ``categories`` (None: any is).
    """
    place = f"{json_file}, image {annotation['image_id']} ({annotation['file_name']})"
    segments = annotation["segments_info"]
    if not isinstance(segments, list):
        raise InputError(f"{place}: segments_info must be a list, found {segments!r}")
    for segment in segments:
        missing = [k for k in required_keys if not isinstance(segment, dict) or k not in segment]
        if missing:
            raise InputError(f"{place}: the segment {segment!r} lacks {', '.join(missing)}")
        if categories is not None and segment["category_id"] not in categories:
            raise InputError(
                f"{place}: segment {segment['id']} has category {segment['category_id']}, which is "
                "not in the list of classes: register the dataset with a class list that has it, "
                "or leave the segment out"
            )


def _check_categories(
    categories: Sequence[dict[str, Any]],
    classes: Vocabulary,
    positions: Mapping[int, int],
    json_file: Path,
) -> None:
    for category in categories:
        identity = category["id"]
        if identity not in positions:
            raise InputError(
                f"{json_file}: category {identity} ({category.get('name')}) is not in the list "
                "of classes"
            )
        is_thing = classes.is_thing[positions[identity]]
        if bool(category["isthing"]) != is_thing:
            raise InputError(
                f"{json_file}: category {identity} ({category.get('name')}) has isthing "
                f"{category['isthing']}, the class list says {int(is_thing)}"
            )
