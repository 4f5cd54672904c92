"""Registration of semantic datasets: a folder of images and one of label maps, paired by name."""

import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from maskclippp.data.layout import SHOWN_FILES, Layout
from maskclippp.data.lazy_metadata import register_metadata
from maskclippp.data.semantic_maps import LabelValues
from maskclippp.words import Vocabulary, load_class_list

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class SemanticDataset:
    """Where a semantic dataset lies; paths are relative to the root of all datasets.

    The label maps hold contiguous class ids, or ``values`` says what they hold. ``class_list``
    names a shipped class list (:mod:`maskclippp.words.class_files`) or is one; ``first_id`` is the
    number under which class 0 is written in result files.
    """

    name: str
    images: str
    labels: str
    class_list: str | Vocabulary
    preparation: str
    image_suffix: str = ".jpg"
    label_suffix: str = ".png"
    ignore_label: int = 255
    first_id: int = 0
    values: LabelValues | None = None

    @property
    def classes(self) -> Vocabulary:
        """The classes in contiguous order."""
        chosen = self.class_list
        return load_class_list(chosen) if isinstance(chosen, str) else chosen

    def layout(self, root: Path) -> Layout:
        """The parts below ``root``, for messages."""
        parts = {
            "images": f"{self.images}/*{self.image_suffix}",
            "label maps": f"{self.labels}/*{self.label_suffix}",
        }
        return Layout(self.name, root, parts, self.preparation)


def register_semantic(dataset: SemanticDataset, root: Path) -> None:
    """Register records and metadata under ``dataset.name``; no file is read."""
    DatasetCatalog.register(dataset.name, functools.partial(load_semantic_records, dataset, root))
    register_metadata(dataset.name, functools.partial(_metadata, dataset, root))


def _metadata(dataset: SemanticDataset, root: Path) -> dict[str, Any]:
    classes = dataset.classes
    return {
        "stuff_classes": list(classes.names),
        "stuff_colors": [list(color) for color in classes.colors],
        "stuff_dataset_id_to_contiguous_id": {
            dataset.first_id + index: index for index in range(len(classes))
        },
        "thing_dataset_id_to_contiguous_id": {},  # there are no instances, for code that asks
        "image_root": str(root / dataset.images),
        "sem_seg_root": str(root / dataset.labels),
        "evaluator_type": "sem_seg",
        "ignore_label": dataset.ignore_label,
    }


def load_semantic_records(dataset: SemanticDataset, root: Path) -> list[dict[str, Any]]:
    """One record, with ``file_name`` and ``sem_seg_file_name``, per pair of image and label map.

    The two folders are searched with all below them; a pair has the same relative path but for the
    suffix, and pairs are sorted by it. Files without partner are left out, with a warning that says
    how many there are and names the first ten. Raises FileNotFoundError (what is expected where,
    how to prepare it) when there is no image, no label map or no pair.
    """
    layout = dataset.layout(root)
    image_folder, label_folder = root / dataset.images, root / dataset.labels
    images = _files_by_stem(image_folder, dataset.image_suffix)
    labels = _files_by_stem(label_folder, dataset.label_suffix)
    if not images:
        raise layout.missing(image_folder, f"images *{dataset.image_suffix} in this folder")
    if not labels:
        raise layout.missing(label_folder, f"label maps *{dataset.label_suffix} in this folder")
    pairs = sorted(images.keys() & labels.keys())
    if not pairs:
        raise layout.missing(
            label_folder, f"label maps named as the images, such as {min(images)}, in this folder"
        )
    alone = [images[stem] for stem in sorted(images.keys() - labels.keys())]
    alone += [labels[stem] for stem in sorted(labels.keys() - images.keys())]
    if alone:
        _LOGGER.warning(
            "dataset %s has %d images and %d label maps; the %d files without partner are left "
            "out, the first of them %s",
            dataset.name,
            len(images),
            len(labels),
            len(alone),
            ", ".join(alone[:SHOWN_FILES]),
        )
    extra = {} if dataset.values is None else {"sem_seg_values": tuple(dataset.values)}
    return [
        {"file_name": images[stem], "sem_seg_file_name": labels[stem], **extra} for stem in pairs
    ]


def _files_by_stem(folder: Path, suffix: str) -> dict[str, str]:
    """Path of every file with this suffix, by its path relative to the folder without suffix."""
    files = {}
    # os.walk, because Path.rglob does not follow linked folders before Python 3.13.
    for parent, _, names in os.walk(folder, followlinks=True):
        prefix = os.path.relpath(parent, folder)
        for name in names:
            if name.endswith(suffix):
                stem = os.path.normpath(os.path.join(prefix, name))  # noqa: PTH118 - many files
                files[stem.removesuffix(suffix)] = str(Path(parent, name))
    return files
