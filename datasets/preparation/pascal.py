"""What the scripts for PASCAL VOC and PASCAL Context share: folders and copied images."""

from collections.abc import Iterable
from pathlib import Path

from maskclippp.data.layout import SPLIT_FOLDERS
from preparation.files import CopiedImage
from preparation.steps import Files


def challenge_folder(root: Path, year: int) -> Path:
    """``VOCdevkit/VOC<year>`` below the root, as the archives unpack, or ``VOC<year>`` itself."""
    direct = root / f"VOC{year}"
    return direct if direct.is_dir() else root / "VOCdevkit" / f"VOC{year}"


def copied_images(names: Iterable[str], source: Path, target: Path, split: str) -> Files:
    """The images ``<name>.jpg`` of a split, copied to ``images/{training,validation}``."""
    folder = target / "images" / SPLIT_FOLDERS[split]
    copies = [CopiedImage(folder / f"{name}.jpg", source / f"{name}.jpg") for name in names]
    return Files(f"{split} images", copies)


def label_path(target: Path, kind: str, split: str, file_name: str) -> Path:
    """Where a label map of ``annotations_<kind>`` belongs."""
    return target / f"annotations_{kind}" / SPLIT_FOLDERS[split] / file_name
