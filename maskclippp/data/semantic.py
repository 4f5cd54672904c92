"""Semantic datasets: a folder of images and a folder of label maps, paired by name."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskclippp.data.dataset import Dataset
from maskclippp.data.image_folder import files_by_stem
from maskclippp.data.layout import SHOWN_FILES
from maskclippp.data.semantic_maps import LabelValues
from maskclippp.errors import InputError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SemanticDataset(Dataset):
    """A dataset whose ``annotations`` are a folder of label maps.

    Args:
        image_suffix: of the image files; several if the folder is mixed.
        label_suffix: of the label maps; with what their names have more than the images'
            (``_mask.png``).
        ignore: label of pixels without a class.
        first_id: number of class 0 in result files.
        values: meaning of the pixel values; None: contiguous class ids and ``ignore``.
    """

    image_suffix: str | Sequence[str] = ".jpg"
    label_suffix: str | Sequence[str] = ".png"
    ignore: int = 255
    first_id: int = 0
    values: LabelValues | None = None

    @property
    def parts(self) -> dict[str, str]:
        """See :class:`Dataset`."""
        return {
            "images": f"{self.images}/*{_shown(self.image_suffix)}",
            "label maps": f"{self.annotations}/*{_shown(self.label_suffix)}",
        }

    def metadata(self, root: Path) -> dict[str, Any]:
        """See :class:`Dataset`."""
        classes = self.classes
        return {
            "stuff_classes": list(classes.names),
            "stuff_colors": [list(color) for color in classes.colors],
            "stuff_dataset_id_to_contiguous_id": {
                self.first_id + index: index for index in range(len(classes))
            },
            "thing_dataset_id_to_contiguous_id": {},  # for code that reads it
            "image_root": str(root / self.images),
            "sem_seg_root": str(root / self.annotations),
            "evaluator_type": "sem_seg",
            "ignore_label": self.ignore,
        }

    def load(self, root: Path, *, check_files: bool = True) -> list[dict[str, Any]]:  # noqa: ARG002
        """One record, ``file_name`` and ``sem_seg_file_name``, per pair; see :class:`Dataset`.

        Both folders are searched with their subfolders. A pair has the same relative path except
        for the suffix; pairs are sorted by it. Files without a partner are left out, with a warning
        that gives their number and the first ten. Having no image, label map or pair is an error.
        """
        layout = self.layout(root)
        image_folder, label_folder = root / self.images, root / self.annotations
        # Label maps beside the images are told from images by what their names have more.
        beside = isinstance(self.label_suffix, str) and not self.label_suffix.startswith(".")
        images = files_by_stem(
            image_folder, self.image_suffix, without=str(self.label_suffix) if beside else ""
        )
        labels = files_by_stem(label_folder, self.label_suffix)
        if not images:
            expected = f"images *{_shown(self.image_suffix)} in this folder"
            raise layout.missing(image_folder, expected)
        if not labels:
            expected = f"label maps *{_shown(self.label_suffix)} in this folder"
            raise layout.missing(label_folder, expected)
        pairs = sorted(images.keys() & labels.keys())
        if not pairs:
            example = f"label maps named like the images, such as {min(images)}, in this folder"
            raise layout.missing(label_folder, example)
        if images[pairs[0]] == labels[pairs[0]]:
            raise InputError(
                f"dataset {self.name}: {images[pairs[0]]} is found as image and as its label map: "
                "correct images or annotations, or tell them apart by image_suffix and label_suffix"
            )
        unpaired = [images[stem] for stem in sorted(images.keys() - labels.keys())]
        unpaired += [labels[stem] for stem in sorted(labels.keys() - images.keys())]
        if unpaired:
            _LOGGER.warning(
                "dataset %s has %d images and %d label maps; the %d files without a partner are "
                "left out, the first of them: %s",
                self.name,
                len(images),
                len(labels),
                len(unpaired),
                ", ".join(unpaired[:SHOWN_FILES]),
            )
        extra = {} if self.values is None else {"sem_seg_values": tuple(self.values)}
        return [
            {"file_name": images[stem], "sem_seg_file_name": labels[stem], **extra}
            for stem in pairs
        ]


def _shown(suffix: str | Sequence[str]) -> str:
    return suffix if isinstance(suffix, str) else "{" + ",".join(suffix) + "}"
