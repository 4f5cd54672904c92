"""A small dataset in the layout of COCO panoptic, drawn here so that no file must be shipped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskclippp.words import load_class_list

SIZES = {7: (61, 90), 12: (80, 52)}  # image id -> height, width
_VOID_ROWS = 5


def make_coco_panoptic(root: Path, split: str = "val") -> Path:
    """Write images, PNGs and the panoptic JSON below ``root``/coco; returns ``root``.

    Every image has void rows at the top, two things, two stuff regions and a crowd segment.
    """
    generator = np.random.default_rng(0)
    classes = load_class_list("coco_panoptic")
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": category, "name": synonyms[0], "isthing": int(is_thing)}
            for category, synonyms, is_thing in zip(
                classes.ids, classes.classes, classes.is_thing, strict=True
            )
        ],
    }
    coco = root / "coco"
    for folder in ("annotations", f"{split}2017", f"panoptic_{split}2017"):
        (coco / folder).mkdir(parents=True, exist_ok=True)
    for image_id, (height, width) in SIZES.items():
        ids = np.zeros((height, width), dtype=np.int64)
        ids[_VOID_ROWS:] = 9_437_188  # grass
        ids[height // 2 :, width // 3 :] = 70_001  # sand
        ids[10:30, 5:22] = 258  # person
        ids[25:50, 30:45] = 16_777_000  # dog
        ids[_VOID_ROWS : _VOID_ROWS + 8, width - 15 :] = 44  # a crowd of persons
        categories = {9_437_188: 193, 70_001: 154, 258: 1, 16_777_000: 18, 44: 1}
        stem = f"{image_id:012d}"
        noise = generator.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(coco / f"{split}2017" / f"{stem}.jpg", quality=95)
        channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
        Image.fromarray(channels.astype(np.uint8)).save(
            coco / f"panoptic_{split}2017" / f"{stem}.png"
        )
        content["images"].append(
            {"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width}
        )
        content["annotations"].append(
            {
                "image_id": image_id,
                "file_name": f"{stem}.png",
                "segments_info": [
                    {
                        "id": identity,
                        "category_id": category,
                        "iscrowd": int(identity == 44),
                        "area": int((ids == identity).sum()),
                    }
                    for identity, category in categories.items()
                ],
            }
        )
    json_file = coco / "annotations" / f"panoptic_{split}2017.json"
    json_file.write_text(json.dumps(content))
    return root
