"""Folders of images and label maps as people have them, and datasets of images alone."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskclippp.data.dataset import Dataset
from maskclippp.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
_SHADOWS = "__MACOSX"


@dataclass(frozen=True, kw_only=True)
class ImageDataset(Dataset):
    """A folder of images without annotation, to generate masks and labels for.

    Args:
        image_suffix: of the image files, if not all images are meant.
    """

    annotations: str = ""
    image_suffix: str | Sequence[str] = IMAGE_SUFFIXES

    @property
    def parts(self) -> dict[str, str]:
        """See :class:`Dataset`."""
        return {"images": self.images}

    def metadata(self, root: Path) -> dict[str, Any]:
        """See :class:`Dataset`."""
        classes = self.classes
        return {
            "stuff_classes": list(classes.names),
            "stuff_colors": [list(color) for color in classes.colors],
            "stuff_dataset_id_to_contiguous_id": dict(classes.positions),
            "thing_dataset_id_to_contiguous_id": {},
            "image_root": str(root / self.images),
            "evaluator_type": "images",
        }

    def load(self, root: Path, *, check_files: bool = True) -> list[dict[str, Any]]:  # noqa: ARG002
        """One record, ``file_name``, per image of the folder and its subfolders, by name."""
        images = files_by_stem(root / self.images, self.image_suffix)
        if not images:
            raise self.layout(root).missing(root / self.images, "images in this folder")
        return [{"file_name": file} for _, file in sorted(images.items())]


def files_by_stem(
    folder: Path, suffixes: str | Sequence[str], *, without: str = ""
) -> dict[str, str]:
    """All files that end with one of the suffixes, by their relative path without it.

    Upper and lower case of suffixes are the same. Hidden files and folders, and the shadows that
    macOS makes of files, are passed over.

    Args:
        without: files that end with this are passed over as well.

    Raises:
        InputError: two files have the same path but for the suffix.
    """
    endings = tuple(s.lower() for s in ([suffixes] if isinstance(suffixes, str) else suffixes))
    files: dict[str, str] = {}
    # os.walk, because Path.rglob does not follow linked folders before Python 3.13.
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != _SHADOWS]
        prefix = os.path.relpath(parent, folder)
        for name in names:
            lower = name.lower()
            if not lower.endswith(endings) or name.startswith("."):
                continue
            if without and lower.endswith(without.lower()):
                continue
            ending = next(ending for ending in endings if lower.endswith(ending))
            path = os.path.normpath(os.path.join(prefix, name))  # noqa: PTH118 - many files
            file = str(Path(parent, name))
            other = files.setdefault(path[: -len(ending)], file)
            if other != file:
                raise InputError(
                    f"{other} and {file} have the same name: remove one, or name the suffix that "
                    "is meant by image_suffix or label_suffix"
                )
    return files
