"""The datasets that ship registered: where each lies, under its published name and layout.

What differs from the published registration, each time because the published one cannot work:

* COCO and ADE20K instance sets load: categories are matched by id, not by name.
* Mapillary categories have the official numbers 1..65; a JSON that counts from 0 is taken as well.
* Images and label maps are paired by name, never by their position among the files.
* Every image must exist before a run starts, not the first one alone.
* Things and stuff of Cityscapes are numbered like those of every other panoptic set.
"""

from pathlib import Path
from typing import Any

from maskclippp.data.coco_panoptic import SPLITS, coco_panoptic
from maskclippp.data.instances import InstanceDataset, register_instances
from maskclippp.data.layout import SPLIT_FOLDERS
from maskclippp.data.lazy_metadata import register_metadata
from maskclippp.data.panoptic import PanopticDataset, register_panoptic
from maskclippp.data.semantic import SemanticDataset, register_semantic
from maskclippp.errors import InputError
from maskclippp.words import load_class_list

_ADE20K = (
    "unpack ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu into the root, then "
    "run python datasets/"
)
_COCO_INSTANCES = (
    "unpack {split}2017.zip and annotations_trainval2017.zip from "
    "https://cocodataset.org/#download into coco"
)


def cityscapes_image(stem: str) -> str:
    """``<city>/<scene>_leftImg8bit.png`` of ``<scene>_gtFine_panoptic``."""
    return f"{_cityscapes_scene(stem)}_leftImg8bit.png"


def cityscapes_labels(stem: str) -> str:
    """``<city>/<scene>_gtFine_labelTrainIds.png`` of ``<scene>_gtFine_panoptic``."""
    return f"{_cityscapes_scene(stem)}_gtFine_labelTrainIds.png"


def _cityscapes_scene(stem: str) -> str:
    parts = stem.split("_")
    if len(parts) < 3:
        raise InputError(
            f"{stem} is no file of Cityscapes, which are named <city>_<sequence>_<frame>_..."
        )
    city, sequence, frame = parts[:3]
    return f"{city}/{city}_{sequence}_{frame}"


PANOPTIC_DATASETS = (
    *(coco_panoptic(split) for split in SPLITS),
    *(
        PanopticDataset(
            name=f"openvocab_ade20k_panoptic_{split}",
            images=f"ADEChallengeData2016/images/{folder}",
            panoptic_json=f"ADEChallengeData2016/ade20k_panoptic_{split}.json",
            panoptic_maps=f"ADEChallengeData2016/ade20k_panoptic_{split}",
            semantic_maps=f"ADEChallengeData2016/annotations_detectron2/{folder}",
            instances_json=f"ADEChallengeData2016/ade20k_instance_{split}.json",
            class_list="ade20k_150",
            evaluator_type="ade20k_panoptic_seg",
            preparation=(
                f"{_ADE20K}prepare_ade20k_sem_seg.py, and with the instance annotation as "
                "datasets/README.md says prepare_ade20k_ins_seg.py and prepare_ade20k_pan_seg.py"
            ),
        )
        for split, folder in SPLIT_FOLDERS.items()
    ),
    *(
        PanopticDataset(
            name=f"openvocab_cityscapes_fine_panoptic_{split}",
            images=f"cityscapes/leftImg8bit/{split}",
            panoptic_json=f"cityscapes/gtFine/cityscapes_panoptic_{split}.json",
            panoptic_maps=f"cityscapes/gtFine/cityscapes_panoptic_{split}",
            semantic_maps=f"cityscapes/gtFine/{split}",
            class_list="cityscapes_19",
            evaluator_type="cityscapes_panoptic_seg",
            image_of=cityscapes_image,
            semantic_of=cityscapes_labels,
            preparation=(
                "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from "
                "https://www.cityscapes-dataset.com into cityscapes, then run python "
                "datasets/prepare_cityscapes_panoptic.py"
            ),
        )
        for split in SPLITS
    ),
    PanopticDataset(
        name="openvocab_mapillary_vistas_panoptic_val",
        images="mapillary_vistas/validation/images",
        panoptic_json="mapillary_vistas/validation/panoptic_2018.json",
        panoptic_maps="mapillary_vistas/validation/panoptic",
        semantic_maps="mapillary_vistas/validation/labels",
        class_list="mapillary_65",
        evaluator_type="mapillary_vistas_panoptic_seg",
        ignore_label=65,
        preparation=(
            "download Mapillary Vistas 1.2 from https://www.mapillary.com/dataset/vistas and "
            "unpack it into mapillary_vistas, as datasets/README.md shows"
        ),
    ),
)


def _pascal(
    name: str,
    folder: str,
    maps: str,
    classes: str,
    script: str,
    *,
    deep: bool = False,
    first: int = 0,
) -> tuple[SemanticDataset, ...]:
    """Both splits of a PASCAL set; ``deep``: 16-bit TIFF label maps."""
    return tuple(
        SemanticDataset(
            name=f"openvocab_{name}_sem_seg_{split}",
            images=f"{folder}/images/{subfolder}",
            labels=f"{folder}/{maps}/{subfolder}",
            class_list=classes,
            label_suffix=".tif" if deep else ".png",
            ignore_label=65535 if deep else 255,
            first_id=first,
            preparation=(
                "get the originals as datasets/README.md says, then run python "
                f"datasets/{script}.py"
            ),
        )
        for split, subfolder in SPLIT_FOLDERS.items()
    )


SEMANTIC_DATASETS = (
    *(
        SemanticDataset(
            name=f"openvocab_coco_2017_{split}_stuff_sem_seg",
            images=f"coco/{split}2017",
            labels=f"coco/stuffthingmaps_detectron2/{split}2017",
            class_list="coco_stuff_171",
            preparation=(
                f"unpack {split}2017.zip (https://cocodataset.org/#download) into coco and "
                "stuffthingmaps_trainval2017.zip (https://github.com/nightrome/cocostuff#downloads)"
                " into coco/stuffthingmaps, then run python datasets/prepare_coco_stuff_sem_seg.py"
            ),
        )
        for split in SPLITS
    ),
    *(
        SemanticDataset(
            name=f"openvocab_ade20k_sem_seg_{split}",
            images=f"ADEChallengeData2016/images/{folder}",
            labels=f"ADEChallengeData2016/annotations_detectron2/{folder}",
            class_list="ade20k_150",
            preparation=f"{_ADE20K}prepare_ade20k_sem_seg.py",
        )
        for split, folder in SPLIT_FOLDERS.items()
    ),
    *(
        SemanticDataset(
            name=f"openvocab_ade20k_full_sem_seg_{split}",
            images=f"ADE20K_2021_17_01/images_detectron2/{folder}",
            labels=f"ADE20K_2021_17_01/annotations_detectron2/{folder}",
            class_list="ade20k_847",
            label_suffix=".tif",
            ignore_label=65535,
            preparation=(
                "register at https://groups.csail.mit.edu/vision/datasets/ADE20K, unpack "
                "ADE20K_2021_17_01.zip into the root, then run python "
                "datasets/prepare_ade20k_full_sem_seg.py"
            ),
        )
        for split, folder in SPLIT_FOLDERS.items()
    ),
    *_pascal(
        "pascal20",
        "pascal_voc_d2",
        "annotations_pascal20",
        "pascal_voc_20",
        "prepare_pascal_voc_sem_seg",
        first=1,
    ),
    *_pascal(
        "pascal21",
        "pascal_voc_d2",
        "annotations_pascal21",
        "pascal_voc_21",
        "prepare_pascal_voc_sem_seg",
    ),
    *_pascal(
        "pascal_ctx59",
        "pascal_ctx_d2",
        "annotations_ctx59",
        "pascal_context_59",
        "prepare_pascal_ctx_sem_seg",
    ),
    *_pascal(
        "pascal_ctx459",
        "pascal_ctx_d2",
        "annotations_ctx459",
        "pascal_context_459",
        "prepare_pascal_ctx_full_sem_seg",
        deep=True,
    ),
)

INSTANCE_DATASETS = (
    *(
        InstanceDataset(
            name=f"openvocab_coco_2017_{split}",
            images=f"coco/{split}2017",
            instances_json=f"coco/annotations/instances_{split}2017.json",
            class_list="coco_panoptic",
            preparation=_COCO_INSTANCES.format(split=split),
        )
        for split in SPLITS
    ),
    *(
        InstanceDataset(
            name=f"openvocab_ade20k_instance_{split}",
            images=f"ADEChallengeData2016/images/{folder}",
            instances_json=f"ADEChallengeData2016/ade20k_instance_{split}.json",
            class_list="ade20k_150",
            preparation=f"{_ADE20K}prepare_ade20k_ins_seg.py (datasets/README.md)",
        )
        for split, folder in SPLIT_FOLDERS.items()
    ),
    InstanceDataset(
        name="openvocab_lvis_1203_instance_val",
        images="coco",
        instances_json="lvis/lvis_v1_val.json",
        class_list="lvis_1203",
        evaluator_type="lvis",
        preparation=(
            "unpack lvis_v1_val.json.zip from https://www.lvisdataset.org/dataset into lvis, and "
            "train2017.zip and val2017.zip from https://cocodataset.org/#download into coco: LVIS "
            "has images of both"
        ),
    ),
)


def register_builtin(root: Path) -> None:
    """Register all of them below ``root``; no file is read."""
    for panoptic in PANOPTIC_DATASETS:
        register_panoptic(panoptic, root)
    for semantic in SEMANTIC_DATASETS:
        register_semantic(semantic, root)
    for instances in INSTANCE_DATASETS:
        register_instances(instances, root)
    for split in SPLITS:
        register_metadata(f"openvocab_coco_2017_{split}_panoptic", _names_of_coco_things)


def _names_of_coco_things() -> dict[str, Any]:
    """Published without a dataset, for programs that ask for names alone."""
    things = load_class_list("coco_panoptic").things()
    return {
        "thing_classes": list(things.names),
        "thing_colors": [list(color) for color in things.colors],
    }
