"""Folders and image copies for the PASCAL VOC and PASCAL Context scripts."""

from collections.abc import Iterable
from pathlib import Path

from maskclippp.data.layout import SPLIT_FOLDERS
from preparation.files import CopiedImage
from preparation.steps import Files


def challenge_folder(root: Path, year: int) -> Path:
    """``VOC<year>`` below the root if it exists, else ``VOCdevkit/VOC<year>``, as unpacked."""
    direct = root / f"VOC{year}"
    return direct if direct.is_dir() else root / "VOCdevkit" / f"VOC{year}"


def copied_images(names: Iterable[str], source: Path, target: Path, split: str) -> Files:
    """The images ``<name>.jpg`` of a split, copied to ``images/{training,validation}``."""
    folder = target / "images" / SPLIT_FOLDERS[split]
    copies = [CopiedImage(folder / f"{name}.jpg", source / f"{name}.jpg") for name in names]
    return Files(f"{split} images", copies)


def label_path(target: Path, kind: str, split: str, file_name: str) -> Path:
    """The path of a label map in ``annotations_<kind>``."""
    return target / f"annotations_{kind}" / SPLIT_FOLDERS[split] / file_name
