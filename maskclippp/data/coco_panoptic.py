"""COCO 2017 panoptic (133 classes), in the published layout and under the published names."""

from maskclippp.data.panoptic import PanopticDataset

SPLITS = ("train", "val")


def coco_panoptic(split: str) -> PanopticDataset:
    """The COCO panoptic dataset of one split, ``train`` or ``val``."""
    return PanopticDataset(
        name=f"openvocab_coco_2017_{split}_panoptic_with_sem_seg",
        images=f"coco/{split}2017",
        panoptic_json=f"coco/annotations/panoptic_{split}2017.json",
        panoptic_maps=f"coco/panoptic_{split}2017",
        semantic_maps=f"coco/panoptic_semseg_{split}2017",
        instances_json=f"coco/annotations/instances_{split}2017.json",
        class_list="coco_panoptic",
        preparation=(
            f"download {split}2017.zip and panoptic_annotations_trainval2017.zip from "
            "https://cocodataset.org/#download, unpack them as datasets/README.md shows, then run "
            "python datasets/prepare_coco_semantic_annos_from_panoptic_annos.py"
        ),
    )
