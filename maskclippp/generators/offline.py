"""Masks that another program has saved, in one file per image or in one file for all."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor

from maskclippp.errors import InputError, MissingFileError
from maskclippp.generators.base import ImageMasks, MaskGenerator
from maskclippp.masks.mask_collections import MaskCollection
from maskclippp.masks.mask_files import check_format, read_masks
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.records import Record, output_size
from maskclippp.registry import SEGMENTOR_REGISTRY


@SEGMENTOR_REGISTRY.register()
class OfflineSegmentor(MaskGenerator):
    """Reads masks from a folder, or from one file for all images.

    See :mod:`maskclippp.masks.mask_files` and :mod:`maskclippp.masks.mask_collections` for their
    formats. In a folder, the file of the image ``.../val/town/a.jpg`` is ``a`` + suffix, in the
    folder itself or in subfolders named like those of the image (``town/a`` + suffix,
    ``val/town/a`` + suffix, ...), which distinguish images of the same name. The longest existing
    path is used.

    Args:
        folder: contains the files; or the file for all images.
        suffix: replaces the extension of the image, such as ``.npz`` or ``_masks.png``; not used
            with one file for all images.

    Raises:
        MissingFileError: the folder does not exist.
        InputError: no suffix, or one without a known format; or see :class:`MaskCollection`.
    """

    reads_mask_files = True

    @configurable
    def __init__(self, *, folder: str | Path, suffix: str) -> None:
        super().__init__()
        self.folder = Path(folder).expanduser()
        if Path(suffix).name != suffix:
            raise InputError(
                "SEGMENTOR.OFFLINE_ANN_SUFFIX: expected the end of a file's name, found the path "
                f"{suffix!r}; OFFLINE_ANN_DIR names the folder"
            )
        self.suffix = suffix
        self.collection = MaskCollection(self.folder) if self.folder.is_file() else None
        if self.collection is not None:
            return
        check_format("image" + suffix, "SEGMENTOR.OFFLINE_ANN_SUFFIX, after the image's name")
        if not str(folder) or not self.folder.is_dir():
            raise MissingFileError(
                f"SEGMENTOR.OFFLINE_ANN_DIR: {str(folder)!r} is not a folder; set it to the folder "
                "with the masks of the test images (tools/save_masks.py can make one), or to one "
                "file with all of them"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config."""
        node = cfg.MODEL.MASKCLIPPP.SEGMENTOR
        return {"folder": node.OFFLINE_ANN_DIR, "suffix": node.OFFLINE_ANN_SUFFIX}

    def forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """See :class:`MaskGenerator`; reads ``file_name``, ``image_id``, ``height``, ``width``."""
        return [ImageMasks(SoftMasks(self._masks(record))) for record in records]

    def files_of(self, record: Record) -> list[Path]:
        """See :class:`MaskGenerator`."""
        if self.collection is not None:
            return [self.collection.path]
        if "file_name" not in record:
            raise InputError(
                "OfflineSegmentor finds masks by the name of the image file, but the record has "
                f"only {sorted(record)}; give 'file_name' or choose another SEGMENTOR.NAME"
            )
        return [self._find(record["file_name"])]

    def _masks(self, record: Record) -> Tensor:
        if self.collection is not None:
            return self.collection.masks_of(record)
        (file,) = self.files_of(record)
        return read_masks(file, output_size(record))

    def _find(self, image: str) -> Path:
        for path in self._places(image):
            if path.is_file():
                return path
        shortest = path
        count = sum(1 for _ in self.folder.rglob("*" + self.suffix))
        raise MissingFileError(
            f"no masks of image {image}: {shortest} does not exist, nor a file of that name in "
            f"folders there named as the image's own; {self.folder} has {count} files that end "
            f"with {self.suffix!r}. Check SEGMENTOR.OFFLINE_ANN_DIR and OFFLINE_ANN_SUFFIX"
        )

    def _places(self, image: str) -> Iterator[Path]:
        """Where the masks of an image may be, the longest path first."""
        path = Path(os.path.abspath(image))  # noqa: PTH100  links are kept: they name the image
        folders = path.parent.relative_to(path.anchor).parts
        for start in range(len(folders) + 1):
            yield self.folder.joinpath(*folders[start:], path.stem + self.suffix)
