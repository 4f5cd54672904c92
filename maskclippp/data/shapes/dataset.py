"""The datasets of the built-in world: drawn once, in COCO's panoptic layout.

All hold scenes of all classes. What a training set does not annotate is void, as a training set has
no labels for what it does not know.

| dataset | scenes | annotated | for |
|---|---|---|---|
| `shapes_train` | 1200 | seen classes | training |
| `shapes_few_train` | the same | the 14 seen classes of `FEW_COLORS` | training on a biased set |
| `shapes_val` | 130 others | everything | what is reported |
| `shapes_tune` | 130 others | everything | choosing settings |
"""

import colorsys
import json
import logging
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from iopath.common.file_io import file_lock
from numpy.typing import NDArray
from tqdm import tqdm

from maskclippp.data.panoptic import PanopticDataset
from maskclippp.data.shapes.scenes import Scene, draw_scene
from maskclippp.data.shapes.vocabulary import CLASSES, COLORS, FEW_COLORS, TINTS, ShapesClass
from maskclippp.errors import UnreadableFileError
from maskclippp.files.cache import cache_folder
from maskclippp.masks.run_length import encode_mask
from maskclippp.words import Vocabulary

logger = logging.getLogger(__name__)

WORLD_VERSION = 1  # raise it whenever the same (split, index) would be drawn differently
SPLIT_SIZES = {"train": 1200, "few_train": 1200, "val": 130, "tune": 130}
VOID = 255
_CHECKSUMS = "checksums.json"
_SPLIT_SEEDS = {"train": 1, "few_train": 1, "val": 2, "tune": 3}


@dataclass(frozen=True, kw_only=True)
class ShapesDataset(PanopticDataset):
    """A split that is drawn when its records are first loaded."""

    split: str

    def load(self, root: Path, *, check_files: bool = True) -> list[dict[str, Any]]:
        """See :class:`PanopticDataset`."""
        make_split(self.split, root)
        return super().load(root, check_files=check_files)


def scene_of(split: str, index: int) -> Scene:
    """The scene number `index` of a split; a pure function of its arguments."""
    return draw_scene(np.random.default_rng([WORLD_VERSION, _SPLIT_SEEDS[split], index]))


def classes_of(split: str) -> tuple[ShapesClass, ...]:
    """The annotated classes of a split, things first; their order gives the contiguous ids."""
    if split in ("val", "tune"):
        return CLASSES
    few = split == "few_train"
    return tuple(c for c in CLASSES if c.is_seen and (not few or c.color in FEW_COLORS))


def vocabulary_of(split: str) -> Vocabulary:
    """The classes of :func:`classes_of` as datasets are registered with."""
    classes = classes_of(split)
    return Vocabulary(
        tuple(c.names for c in classes),
        f"shapes_{split}",
        ids=tuple(c.id for c in classes),
        is_thing=tuple(c.is_thing for c in classes),
        colors=tuple(_color(c) for c in classes),
    )


def shapes_folder() -> Path:
    """Where the drawn files are kept in the user's cache."""
    return cache_folder() / f"shapes_v{WORLD_VERSION}"


def register_shapes() -> None:
    """Register all splits; nothing is drawn before their records are asked for."""
    root = shapes_folder()
    for split in SPLIT_SIZES:
        dataset = ShapesDataset(
            split=split,
            name=f"shapes_{split}",
            images=f"{split}/images",
            annotations=f"{split}/panoptic.json",
            panoptic_maps=f"{split}/panoptic",
            semantic_maps=f"{split}/semantic",
            instances=f"{split}/instances.json",
            words=vocabulary_of(split),
            preparation=f"it draws itself; remove {root / split} to have it drawn again",
        )
        dataset.register(root)


def make_split(split: str, root: Path) -> Path:
    """Draw a split into `root / split` unless it is there, and return that folder.

    The folder appears whole or not at all, and only one of several processes draws it.
    """
    folder = root / split
    if _is_whole(folder):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with file_lock(str(folder)):
        if _is_whole(folder):
            return folder
        for leftover in root.glob(f"{split}.partial.*"):  # of a killed process
            shutil.rmtree(leftover, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{split}.partial.", dir=root))
        try:
            write_split(split, SPLIT_SIZES[split], partial)
            _write_json(partial / _CHECKSUMS, _checksums(partial))
            partial.chmod(0o755)  # mkdtemp's folder is private, a cache may be shared
            if folder.is_dir():
                logger.warning("%s is damaged: drawn again", folder)
                folder.rename(Path(tempfile.mkdtemp(prefix=f"{split}.partial.", dir=root)) / split)
            partial.rename(folder)
        finally:
            for leftover in root.glob(f"{split}.partial.*"):
                shutil.rmtree(leftover, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether a split is drawn, and every file is as it was written."""
    if not folder.is_dir():
        return False
    listed = folder / _CHECKSUMS
    if not listed.is_file():  # drawn by an earlier version
        return True
    try:
        return bool(json.loads(listed.read_bytes()) == _checksums(folder))
    except (OSError, ValueError, RecursionError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    """The CRC-32 of every file of a split; of PNGs, which have checksums, only the size."""
    return {
        str(file.relative_to(folder)): (
            file.stat().st_size if file.suffix == ".png" else zlib.crc32(file.read_bytes())
        )
        for file in sorted(folder.rglob("*.*"))
        if file.name != _CHECKSUMS
    }


def write_split(split: str, scenes: int, folder: Path) -> None:
    """Write images, panoptic and semantic PNGs, panoptic.json and instances.json of a split."""
    for name in ("images", "panoptic", "semantic"):
        (folder / name).mkdir(parents=True)
    classes = classes_of(split)
    images: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    # Nothing is shown where no terminal can redraw a line.
    for index in tqdm(range(scenes), desc=f"drawing shapes_{split}", unit="scene", disable=None):
        scene = scene_of(split, index)
        stem = f"{index:06d}"
        segments = _annotate(scene, index, classes)
        height, width = scene.segment_ids.shape
        image = {"id": index, "file_name": f"{stem}.jpg", "height": height, "width": width}
        images.append(image)
        panoptic.append({"image_id": index, "file_name": f"{stem}.png", "segments_info": segments})
        instances += _instances(scene, index, segments, first_id=len(instances) + 1)
        _write_image(folder / "images" / f"{stem}.jpg", scene.image[..., ::-1])
        _write_image(folder / "panoptic" / f"{stem}.png", _panoptic_map(scene, segments))
        _write_image(folder / "semantic" / f"{stem}.png", _semantic_map(scene, classes))
    categories = [
        {"id": c.id, "name": c.names[0], "isthing": int(c.is_thing), "color": list(_color(c))}
        for c in classes
    ]
    _write_json(
        folder / "panoptic.json",
        {"images": images, "annotations": panoptic, "categories": categories},
    )
    things = [category for category in categories if category["isthing"]]
    _write_json(
        folder / "instances.json",
        {"images": images, "annotations": instances, "categories": things},
    )


def _annotate(scene: Scene, index: int, classes: tuple[ShapesClass, ...]) -> list[dict[str, Any]]:
    """COCO's `segments_info` of the segments whose class is annotated."""
    annotated = []
    for segment in scene.segments:
        if segment.category in classes:
            x, y, width, height = cv2.boundingRect(
                (scene.segment_ids == segment.id).astype(np.uint8)
            )
            annotated.append(
                {
                    "id": segment.id,
                    "category_id": segment.category.id,
                    "area": segment.area,
                    "bbox": [x, y, width, height],
                    "iscrowd": 0,
                }
            )
    return annotated


def _instances(
    scene: Scene, index: int, segments: list[dict[str, Any]], first_id: int
) -> list[dict[str, Any]]:
    """COCO instance annotations of the things among `segments`."""
    thing_ids = {c.id for c in CLASSES if c.is_thing}
    annotations: list[dict[str, Any]] = []
    for segment in segments:
        if segment["category_id"] in thing_ids:
            annotations.append(
                {
                    **segment,
                    "id": first_id + len(annotations),
                    "image_id": index,
                    "segmentation": encode_mask(scene.segment_ids == segment["id"]),
                }
            )
    return annotations


def _panoptic_map(scene: Scene, segments: list[dict[str, Any]]) -> NDArray[np.uint8]:
    """BGR image of segment ids (id = R + 256 G + 65536 B); 0 is void. Ids stay below 256."""
    listed = np.zeros(len(scene.segments) + 1, dtype=np.uint8)
    for segment in segments:
        listed[segment["id"]] = segment["id"]
    red = listed[scene.segment_ids]
    return np.stack((np.zeros_like(red), np.zeros_like(red), red), axis=2)


def _semantic_map(scene: Scene, classes: tuple[ShapesClass, ...]) -> NDArray[np.uint8]:
    """Contiguous class ids; VOID where the class is not annotated."""
    position = {c: i for i, c in enumerate(classes)}
    labels = [VOID, *(position.get(segment.category, VOID) for segment in scene.segments)]
    return np.array(labels, dtype=np.uint8)[scene.segment_ids]


def _color(category: ShapesClass) -> tuple[int, int, int]:
    """A display color: the middle of what the color word means, varied a little by the form."""
    definition = {**COLORS, **TINTS}[category.color]
    hue, saturation, value = (
        (low + high) / 2 for low, high in (definition.hue, definition.saturation, definition.value)
    )
    value *= 0.7 + 0.3 * (category.id % 6) / 5
    red, green, blue = colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a JPEG (quality 95) or PNG; a disk that is full or read-only is an OSError."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    encoded_well, encoded = cv2.imencode(path.suffix, image, parameters)
    if not encoded_well:
        raise UnreadableFileError(f"OpenCV cannot encode {path}")
    path.write_bytes(encoded.tobytes())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
