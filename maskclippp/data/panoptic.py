"""Registration of datasets in COCO's panoptic format: a JSON, a folder of PNGs, one of images."""

import functools
import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.data.files import read_json
from maskclippp.data.vocabularies import ClassEntry, load_class_list

ROOT_VARIABLE = "DETECTRON2_DATASETS"
_REQUIRED_KEYS = {
    "images": ("id",),
    "annotations": ("image_id", "file_name", "segments_info"),
    "categories": ("id", "isthing"),
}


@dataclass(frozen=True)
class PanopticDataset:
    """Where a panoptic dataset lies; all paths are relative to the root of all datasets.

    ``class_list`` names a list of :mod:`maskclippp.data.vocabularies` or is one;
    ``preparation`` is what a user who lacks the data is told to do; ``make_files`` is called before
    the records are read, by a dataset that can make its own files.
    """

    name: str
    images: str
    panoptic_json: str
    panoptic_maps: str
    semantic_maps: str
    class_list: str | tuple[ClassEntry, ...]
    preparation: str
    make_files: Callable[[], object] | None = None
    instances_json: str | None = None
    evaluator_type: str = "coco_panoptic_seg"
    ignore_label: int = 255
    image_suffix: str = ".jpg"

    @property
    def classes(self) -> tuple[ClassEntry, ...]:
        """The classes in contiguous order."""
        if isinstance(self.class_list, tuple):
            return self.class_list
        return load_class_list(self.class_list)


def datasets_root() -> Path:
    """``$DETECTRON2_DATASETS`` (default ``datasets``), absolute: a later chdir is harmless."""
    return Path(os.environ.get(ROOT_VARIABLE, "datasets")).expanduser().absolute()


def register_panoptic(dataset: PanopticDataset, root: Path) -> None:
    """Register records and metadata under ``dataset.name``; no file of the dataset is touched."""
    classes = dataset.classes
    things = [entry for entry in classes if entry.is_thing]
    positions = {entry.category_id: index for index, entry in enumerate(classes)}
    DatasetCatalog.register(
        dataset.name, functools.partial(load_panoptic_records, dataset, root, check_files=True)
    )
    instances = dataset.instances_json
    MetadataCatalog.get(dataset.name).set(
        thing_classes=[entry.words for entry in things],
        thing_colors=[list(entry.color) for entry in things],
        thing_dataset_id_to_contiguous_id={e.category_id: positions[e.category_id] for e in things},
        # As published, "stuff" holds all classes: it is what semantic outputs are numbered by.
        stuff_classes=[entry.words for entry in classes],
        stuff_colors=[list(entry.color) for entry in classes],
        stuff_dataset_id_to_contiguous_id=positions,
        image_root=str(root / dataset.images),
        panoptic_json=str(root / dataset.panoptic_json),
        panoptic_root=str(root / dataset.panoptic_maps),
        sem_seg_root=str(root / dataset.semantic_maps),
        json_file=None if instances is None else str(root / instances),
        evaluator_type=dataset.evaluator_type,
        ignore_label=dataset.ignore_label,
        label_divisor=1000,
    )


def load_panoptic_records(
    dataset: PanopticDataset, root: Path, *, check_files: bool
) -> list[dict[str, Any]]:
    """One record per annotated image.

    Keys: ``file_name``, ``image_id``, ``height`` and ``width`` (when the JSON has them),
    ``pan_seg_file_name``, ``sem_seg_file_name`` (the file may be absent: it can be derived), and
    ``segments_info`` with contiguous ``category_id`` and boolean ``isthing``.

    Raises FileNotFoundError (what is expected where, how to prepare it) and ValueError (JSON that
    is malformed or has categories that the class list lacks). With ``check_files`` the first
    record's image and panoptic PNG must exist, so that a wrong root is noticed at once.
    """
    if dataset.make_files is not None:
        dataset.make_files()
    json_file = root / dataset.panoptic_json
    _require(json_file.is_file(), json_file, dataset, root)
    content = read_json(
        json_file, _REQUIRED_KEYS, f"the COCO panoptic annotation of dataset {dataset.name}"
    )
    images = {image["id"]: image for image in content["images"]}
    classes = dataset.classes
    positions = {entry.category_id: index for index, entry in enumerate(classes)}
    _check_categories(content["categories"], classes, json_file)
    records = []
    for annotation in content["annotations"]:
        check_segments(annotation, json_file, ("id", "category_id"), positions)
        stem = Path(annotation["file_name"]).stem
        record: dict[str, Any] = {
            "file_name": str(root / dataset.images / f"{stem}{dataset.image_suffix}"),
            "image_id": annotation["image_id"],
            "pan_seg_file_name": str(root / dataset.panoptic_maps / annotation["file_name"]),
            "sem_seg_file_name": str(root / dataset.semantic_maps / annotation["file_name"]),
            "segments_info": [
                {
                    **segment,
                    "category_id": positions[segment["category_id"]],
                    "isthing": classes[positions[segment["category_id"]]].is_thing,
                }
                for segment in annotation["segments_info"]
            ],
        }
        image = images.get(annotation["image_id"], {})
        record.update({key: image[key] for key in ("height", "width") if key in image})
        records.append(record)
    _require(bool(records), json_file, dataset, root, "at least one annotation")
    if check_files:
        for key in ("file_name", "pan_seg_file_name"):
            _require(Path(records[0][key]).is_file(), Path(records[0][key]), dataset, root)
    return records


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
        raise ValueError(f"{place}: segments_info must be a list, found {segments!r}")
    for segment in segments:
        missing = [k for k in required_keys if not isinstance(segment, dict) or k not in segment]
        if missing:
            raise ValueError(f"{place}: the segment {segment!r} lacks {', '.join(missing)}")
        if categories is not None and segment["category_id"] not in categories:
            raise ValueError(
                f"{place}: segment {segment['id']} has category {segment['category_id']}, which is "
                "not in the list of classes: register the dataset with a class list that has it, "
                "or leave the segment out"
            )


def _check_categories(
    categories: Sequence[dict[str, Any]], classes: Sequence[ClassEntry], json_file: Path
) -> None:
    expected = {entry.category_id: entry.is_thing for entry in classes}
    for category in categories:
        identity = category["id"]
        if identity not in expected:
            raise ValueError(
                f"{json_file}: category {identity} ({category.get('name')}) is not in the list "
                "of classes"
            )
        if bool(category["isthing"]) != expected[identity]:
            raise ValueError(
                f"{json_file}: category {identity} ({category.get('name')}) has isthing "
                f"{category['isthing']}, the class list says {int(expected[identity])}"
            )


def _require(
    present: bool, path: Path, dataset: PanopticDataset, root: Path, what: str = "this file"
) -> None:
    if present:
        return
    setting = os.environ.get(ROOT_VARIABLE, "not set (default: datasets)")
    raise FileNotFoundError(
        f"dataset {dataset.name}: expected {what}: {path}\n"
        f"  images:          {root / dataset.images}\n"
        f"  panoptic JSON:   {root / dataset.panoptic_json}\n"
        f"  panoptic PNGs:   {root / dataset.panoptic_maps}\n"
        f"  {ROOT_VARIABLE} is {setting}, so the root is {root}\n"
        f"  How to prepare it: {dataset.preparation}"
    )
