"""Annotation in COCO's panoptic format."""

from collections.abc import Sequence
from typing import Any


def panoptic_entry(
    image_id: str,
    size: Sequence[int],
    segments: list[dict[str, Any]],
    *,
    image_file: str,
    map_file: str,
) -> dict[str, Any]:
    """The JSON's entries of one image of ``size`` (height, width)."""
    height, width = size
    return {
        "image": {"id": image_id, "file_name": image_file, "height": height, "width": width},
        "annotation": {"image_id": image_id, "file_name": map_file, "segments_info": segments},
    }


def panoptic_content(
    entries: Sequence[dict[str, Any]], categories: list[dict[str, Any]]
) -> dict[str, Any]:
    """The JSON's content, from the entries of all images."""
    return {
        "images": [entry["image"] for entry in entries],
        "annotations": [entry["annotation"] for entry in entries],
        "categories": categories,
    }
