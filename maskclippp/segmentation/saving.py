"""Files of a result. The end of the name says what is written:

=====================  ==========================================================================
``.png``, ``.jpg``     the image with its segments in color and a legend
``.index.png``         the class of every pixel, 0..K-1 in the word's color, 255 for none; with more
                       than 255 classes 16 bits without colors, 65535 for none
``.panoptic.json``     COCO panoptic: the segments; the ids are in ``.panoptic.png`` beside it
``.json``              COCO results: one run-length code per segment
``.npz``               the arrays ``labels``, ``masks``, ``scores``, ``class_ids``, ``boxes`` and
                       ``names``, and ``embeddings`` if they are known
=====================  ==========================================================================
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskclippp.errors import InputError
from maskclippp.files.atomic import atomic_write, explaining, json_value
from maskclippp.segmentation.regions import VOID
from maskclippp.segmentation.result import Segmentation
from maskclippp.visualization import VOID_COLOR, word_colors

# What is written, by the end of the name. Of several ends, the longest is meant.
ENDINGS = {
    "overlay": ".png",
    "index": ".index.png",
    "panoptic": ".panoptic.json",
    "coco": ".json",
    "npz": ".npz",
}
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_MOST_COLORS = 255
_COMPRESSION = 3


def save(result: Segmentation, path: Path) -> Path:
    """Write the result to ``path``, atomically, and return the path.

    Raises:
        InputError: an unknown suffix.
        UnreadableFileError: the file cannot be written.
    """
    path = path.expanduser()
    name = path.name.lower()
    if name.endswith(ENDINGS["panoptic"]):
        ids = path.with_name(path.name[: -len(".json")] + ".png")
        _write(ids, _png(_panoptic_colors(result)))
        content = _panoptic_json(result, ids.name)
    elif name.endswith(ENDINGS["index"]):
        content = _png(_index_image(result))
    elif path.suffix.lower() == ".json":
        image_id = result.path.name if result.path else 0
        content = json.dumps(json_value(result.to_coco(image_id))).encode()
    elif path.suffix.lower() == ".npz":
        content = _arrays(result)
    elif path.suffix.lower() in _PICTURES:
        content = _encoded(result.plot(), path.suffix.lower())
    else:
        raise InputError(
            f"cannot save to {path}: expected a name that ends with one of "
            f"{[*_PICTURES, *list(ENDINGS.values())[1:]]}"
        )
    _write(path, content)
    return path


def _write(path: Path, content: bytes) -> None:
    with explaining(path, remedy="check the folder, its permissions and the free space"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, durable=False) as file:
            file.write(content)


def _encoded(picture: Image.Image, suffix: str) -> bytes:
    buffer = io.BytesIO()
    kind = {".png": "PNG", ".webp": "WEBP"}.get(suffix, "JPEG")
    # PNG: a third of the time of the default level, files 7 % larger.
    picture.save(buffer, format=kind, quality=92, compress_level=_COMPRESSION)
    return buffer.getvalue()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _index_image(result: Segmentation) -> Image.Image:
    labels, num_classes = result.labels, len(result.names)
    if num_classes > _MOST_COLORS:
        return Image.fromarray(np.where(labels == VOID, 65535, labels).astype(np.uint16))
    picture = Image.fromarray(np.where(labels == VOID, 255, labels).astype(np.uint8), mode="P")
    # A complete palette: Pillow would write the values with fewer bits than 255 needs.
    colors = [*word_colors(result.names), *[VOID_COLOR] * (256 - num_classes)]
    picture.putpalette([channel for color in colors for channel in color])
    return picture


def _panoptic_colors(result: Segmentation) -> Image.Image:
    """Segment id = R + 256 G + 65536 B."""
    ids = result.panoptic
    return Image.fromarray(
        np.stack([ids >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
    )


def _panoptic_json(result: Segmentation, file_name: str) -> bytes:
    panoptic = result if result.task == "panoptic" else result.with_task("panoptic")
    height, width = result.orig_shape
    image_id = result.path.stem if result.path else 0
    segments = []
    for segment in panoptic.segments:
        x1, y1, x2, y2 = segment.bbox_xyxy
        segments.append(
            {
                "id": segment.id,
                "category_id": segment.label_id,
                "area": segment.area,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": 0,
                "score": segment.score,
            }
        )
    colors = word_colors(result.names)
    content: dict[str, Any] = {
        "images": [
            {
                "id": image_id,
                "file_name": result.path.name if result.path else "",
                "height": height,
                "width": width,
            }
        ],
        "annotations": [{"image_id": image_id, "file_name": file_name, "segments_info": segments}],
        "categories": [
            {
                "id": index,
                "name": panoptic.label(index),
                "isthing": int(panoptic.is_thing(index)),
                "color": list(colors[index]),
            }
            for index in range(len(result.names))
        ],
    }
    return json.dumps(json_value(content)).encode()


def _arrays(result: Segmentation) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "labels": result.labels,
        "masks": result.masks,
        "scores": result.scores,
        "class_ids": result.class_ids,
        "boxes": result.boxes,
        "names": np.array(result.names),
    }
    if result.embeddings is not None:
        arrays["embeddings"] = result.embeddings
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
