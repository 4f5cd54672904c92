"""Registration of semantic datasets: a folder of images and one of label maps, paired by name."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskclippp.data.dataset import Dataset
from maskclippp.data.layout import SHOWN_FILES
from maskclippp.data.semantic_maps import LabelValues

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SemanticDataset(Dataset):
    """A folder of images and one of label maps.

    The label maps hold contiguous class ids unless ``values`` says what they hold; ``first_id`` is
    the number of class 0 in result files.
    """

    labels: str
    image_suffix: str = ".jpg"
    label_suffix: str = ".png"
    ignore_label: int = 255
    first_id: int = 0
    values: LabelValues | None = None

    @property
    def parts(self) -> dict[str, str]:
        """See :class:`Dataset`."""
        return {
            "images": f"{self.images}/*{self.image_suffix}",
            "label maps": f"{self.labels}/*{self.label_suffix}",
        }

    def load(self, root: Path) -> list[dict[str, Any]]:
        """See :func:`load_semantic_records`."""
        return load_semantic_records(self, root)

    def metadata(self, root: Path) -> dict[str, Any]:
        """See :class:`Dataset`."""
        classes = self.classes
        return {
            "stuff_classes": list(classes.names),
            "stuff_colors": [list(color) for color in classes.colors],
            "stuff_dataset_id_to_contiguous_id": {
                self.first_id + index: index for index in range(len(classes))
            },
            "thing_dataset_id_to_contiguous_id": {},  # there are no instances, for code that asks
            "image_root": str(root / self.images),
            "sem_seg_root": str(root / self.labels),
            "evaluator_type": "sem_seg",
            "ignore_label": self.ignore_label,
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
