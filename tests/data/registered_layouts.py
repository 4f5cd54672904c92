"""Tiny datasets in the published layouts: the paths are written out here, not asked of the code."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT, WIDTH = 24, 36
ADE, PASCAL_VOC, CONTEXT = "ADEChallengeData2016", "pascal_voc_d2", "pascal_ctx_d2"
ADE_FULL = "ADE20K_2021_17_01"
FOLDERS = {"train": "training", "val": "validation"}


class Semantic(NamedTuple):
    """One image and its label map below the root; K classes; the label that is ignored."""

    image: str
    labels: str
    num_classes: int
    ignore_label: int = 255


class Panoptic(NamedTuple):
    """One image, JSON, panoptic PNG and semantic PNG below the root; K classes; its evaluators."""

    image: str
    json: str
    panoptic: str
    semantic: str
    num_classes: int
    num_things: int
    evaluator_type: str
    image_id: int | str
    ignore_label: int = 255


class Instances(NamedTuple):
    """One image and the JSON below the root; K classes; its evaluators."""

    image: str
    json: str
    num_classes: int
    evaluator_type: str = "coco"


SEMANTIC: dict[str, Semantic] = {}
PANOPTIC: dict[str, Panoptic] = {}
INSTANCES: dict[str, Instances] = {
    "openvocab_lvis_1203_instance_val": Instances(
        "coco/train2017/000000000012.jpg", "lvis/lvis_v1_val.json", 1203, "lvis"
    )
}
for split, folder in FOLDERS.items():
    coco = f"coco/{split}2017/000000000012.jpg"
    ade = f"{ADE}/images/{folder}/ADE_{split}_00000001.jpg"
    ade_labels = f"{ADE}/annotations_detectron2/{folder}/ADE_{split}_00000001.png"
    SEMANTIC |= {
        f"openvocab_coco_2017_{split}_stuff_sem_seg": Semantic(
            coco, f"coco/stuffthingmaps_detectron2/{split}2017/000000000012.png", 171
        ),
        f"openvocab_ade20k_sem_seg_{split}": Semantic(ade, ade_labels, 150),
        f"openvocab_ade20k_full_sem_seg_{split}": Semantic(
            f"{ADE_FULL}/images_detectron2/{folder}/ADE_{split}_00000001.jpg",
            f"{ADE_FULL}/annotations_detectron2/{folder}/ADE_{split}_00000001.tif",
            847,
            65535,
        ),
        f"openvocab_pascal20_sem_seg_{split}": Semantic(
            f"{PASCAL_VOC}/images/{folder}/2007_000033.jpg",
            f"{PASCAL_VOC}/annotations_pascal20/{folder}/2007_000033.png",
            20,
        ),
        f"openvocab_pascal21_sem_seg_{split}": Semantic(
            f"{PASCAL_VOC}/images/{folder}/2007_000033.jpg",
            f"{PASCAL_VOC}/annotations_pascal21/{folder}/2007_000033.png",
            21,
        ),
        f"openvocab_pascal_ctx59_sem_seg_{split}": Semantic(
            f"{CONTEXT}/images/{folder}/2008_000002.jpg",
            f"{CONTEXT}/annotations_ctx59/{folder}/2008_000002.png",
            59,
        ),
        f"openvocab_pascal_ctx459_sem_seg_{split}": Semantic(
            f"{CONTEXT}/images/{folder}/2008_000002.jpg",
            f"{CONTEXT}/annotations_ctx459/{folder}/2008_000002.tif",
            459,
            65535,
        ),
    }
    PANOPTIC |= {
        f"openvocab_coco_2017_{split}_panoptic_with_sem_seg": Panoptic(
            coco,
            f"coco/annotations/panoptic_{split}2017.json",
            f"coco/panoptic_{split}2017/000000000012.png",
            f"coco/panoptic_semseg_{split}2017/000000000012.png",
            133,
            80,
            "coco_panoptic_seg",
            12,
        ),
        f"openvocab_ade20k_panoptic_{split}": Panoptic(
            ade,
            f"{ADE}/ade20k_panoptic_{split}.json",
            f"{ADE}/ade20k_panoptic_{split}/ADE_{split}_00000001.png",
            ade_labels,
            150,
            100,
            "ade20k_panoptic_seg",
            f"ADE_{split}_00000001",
        ),
        f"openvocab_cityscapes_fine_panoptic_{split}": Panoptic(
            f"cityscapes/leftImg8bit/{split}/ulm/ulm_000001_000019_leftImg8bit.png",
            f"cityscapes/gtFine/cityscapes_panoptic_{split}.json",
            f"cityscapes/gtFine/cityscapes_panoptic_{split}/ulm_000001_000019_gtFine_panoptic.png",
            f"cityscapes/gtFine/{split}/ulm/ulm_000001_000019_gtFine_labelTrainIds.png",
            19,
            8,
            "cityscapes_panoptic_seg",
            "ulm_000001_000019",
        ),
    }
    INSTANCES |= {
        f"openvocab_coco_2017_{split}": Instances(
            coco, f"coco/annotations/instances_{split}2017.json", 80
        ),
        f"openvocab_ade20k_instance_{split}": Instances(
            ade, f"{ADE}/ade20k_instance_{split}.json", 100
        ),
    }
PANOPTIC["openvocab_mapillary_vistas_panoptic_val"] = Panoptic(
    "mapillary_vistas/validation/images/a-B_1.jpg",
    "mapillary_vistas/validation/panoptic_2018.json",
    "mapillary_vistas/validation/panoptic/a-B_1.png",
    "mapillary_vistas/validation/labels/a-B_1.png",
    65,
    37,
    "mapillary_vistas_panoptic_seg",
    "a-B_1",
    65,
)


def write_image(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    _save(path, pixels)


def write_labels(path: Path, num_classes: int, ignore_label: int) -> npt.NDArray[Any]:
    """A label map with the first and the last class and the ignore label; returns it."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint16 if path.suffix == ".tif" else np.uint8)
    labels[:, WIDTH // 3 :] = num_classes - 1
    labels[: HEIGHT // 4] = ignore_label
    _save(path, labels)
    return labels


def make_semantic(root: Path, layout: Semantic) -> npt.NDArray[Any]:
    """Write image and label map; returns the labels."""
    write_image(root / layout.image)
    return write_labels(root / layout.labels, layout.num_classes, layout.ignore_label)


def make_panoptic(root: Path, layout: Panoptic, categories: Sequence[dict[str, Any]]) -> None:
    """Write all files; the image shows a segment of the first and one of the last category."""
    write_image(root / layout.image)
    write_labels(root / layout.semantic, layout.num_classes, layout.ignore_label)
    ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ids[HEIGHT // 2 :] = (7, 1, 0)
    ids[:8, :8] = (9, 0, 2)
    _save(root / layout.panoptic, ids)
    segments = [
        {"id": 263, "category_id": categories[0]["id"], "area": 432, "iscrowd": 0},
        {"id": 131_081, "category_id": categories[-1]["id"], "area": 64, "iscrowd": 0},
    ]
    name = Path(layout.panoptic).name
    write_json(
        root / layout.json,
        images=[{"id": layout.image_id, "height": HEIGHT, "width": WIDTH}],
        annotations=[{"image_id": layout.image_id, "file_name": name, "segments_info": segments}],
        categories=list(categories),
    )


def make_instances(root: Path, layout: Instances, category_ids: Sequence[int]) -> None:
    """Write image and JSON: an object of the first category and a crowd of the last one."""
    write_image(root / layout.image)
    image = Path(layout.image)
    counts = [HEIGHT * 10, HEIGHT * 5, HEIGHT * (WIDTH - 15)]
    write_json(
        root / layout.json,
        images=[
            {
                "id": 12,
                "file_name": image.name,
                "coco_url": f"http://images.cocodataset.org/{image.parent.name}/{image.name}",
                "height": HEIGHT,
                "width": WIDTH,
                "neg_category_ids": [3],
                "not_exhaustive_category_ids": [],
            }
        ],
        annotations=[
            {
                "id": 1,
                "image_id": 12,
                "category_id": category_ids[0],
                "bbox": [4, 5, 10, 8],
                "segmentation": [[4, 5, 14, 5, 14, 13, 4, 13]],
                "area": 80,
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 12,
                "category_id": category_ids[-1],
                "bbox": [10, 0, 5, HEIGHT],
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
                "area": 120,
                "iscrowd": 1,
            },
        ],
        # The names are not ours: categories are matched by id.
        categories=[{"id": identity, "name": f"name {identity}"} for identity in category_ids],
    )


def write_json(path: Path, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _save(path: Path, pixels: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
