"""Every registered part works in a tiny model: a part is tested by being registered.

A new part needs one entry in the tables below. Mask generators are walked by
``tests/generators/test_shapes_configs.py``, with the configs of the shapes world.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils.registry import Registry
from PIL import Image

import tests.tiny_eva  # noqa: F401  (registers models)
from maskclippp.clip import build_text_tower, build_visual_encoder
from maskclippp.config.keys import get_cfg
from maskclippp.data.mappers import TRAIN_MAPPER_REGISTRY, build_train_mapper
from maskclippp.data.mappers.evaluation import EvaluationMapper
from maskclippp.evaluation import build_evaluator
from maskclippp.masks.run_length import encode_mask
from maskclippp.registry import (
    CRITERION_REGISTRY,
    PSM_REGISTRY,
    TEXT_ENCODER_REGISTRY,
    VISUAL_ENCODER_REGISTRY,
)
from tests.tiny_hub import add_hub_model
from tests.tiny_models import (
    MODEL_NAME,
    random_image,
    soft,
    striped_record,
    tiny_config,
    tiny_model,
)

# Options of VISUAL_ENCODER (MASK_PRIOR_BEG, OUT_FEATURES) and the tiny model.
ENCODERS: dict[str, tuple[str, int, list[str]]] = {
    "AttentionPoolEncoder": ("Pool-tiny", 0, ["m_embs", "p_embs"]),
    "AverageEncoder": (MODEL_NAME, 0, ["m_embs", "p_embs"]),
    "MaskTokenEncoder": ("ViT-tiny", 0, ["m_embs", "p_embs"]),
    "CLIPConvNeXt": (MODEL_NAME, 5, ["m_embs", "p_embs"]),
    "EVACLIPViT": ("EVA02-tiny", 2, ["m_embs", "p_embs"]),
    "CLIPViT": ("ViT-tiny", 2, ["m_embs"]),
    "CLIPResNet": ("RN-tiny", 1, ["m_embs", "p_embs"]),
    "D2SwinTransformer": ("", 1, ["res5"]),
}
TEXT_TOWERS = {
    "CLIPTextEncoder": MODEL_NAME,
    "EVACLIPTextEncoder": "EVA02-tiny",
    "HFTextEncoder": "Hub-tiny",
}
# Names that configs may give although there is nothing to run.
PLACEHOLDERS = {"DummyVisualEncoder"}


def names(registry: Registry) -> list[str]:
    """The parts of the package; other tests may have registered their own."""
    return [name for name, part in registry if part.__module__.startswith("maskclippp.")]


@pytest.mark.parametrize("name", sorted(set(names(VISUAL_ENCODER_REGISTRY)) - PLACEHOLDERS))
def test_visual_encoder(name: str) -> None:
    model, first_block, outputs = ENCODERS[name]
    options: list[Any] = ["MODEL.SWIN.EMBED_DIM", 8, "MODEL.SWIN.DEPTHS", [1, 1, 1, 1]]
    options += ["MODEL.SWIN.NUM_HEADS", [1, 1, 2, 2], "MODEL.SWIN.WINDOW_SIZE", 4]
    cfg = tiny_config(
        *options,
        *(".VISUAL_ENCODER.NAME", name, ".VISUAL_ENCODER.MODEL_NAME", model),
        *(".VISUAL_ENCODER.MASK_PRIOR_BEG", first_block, ".VISUAL_ENCODER.OUT_FEATURES", outputs),
        *(".VISUAL_ENCODER.SIZE_DIVISIBILITY", 32, ".VISUAL_ENCODER.FINETUNE_TYPE", "none"),
    )
    encoder = build_visual_encoder(cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER, model=cfg.MODEL).eval()
    images = [random_image(40, 70), random_image(64, 33)]
    masks = soft([torch.ones(2, *images[0].shape[1:]), torch.ones(0, *images[1].shape[1:])])
    with torch.no_grad():
        encoded = encoder(images, masks if "m_embs" in outputs else None)
    assert set(encoded.maps) == set(outputs) - {"m_embs"}
    assert all(len(value) == len(images) for value in encoded.maps.values())
    if "m_embs" in outputs:
        assert encoded.mask_embeddings is not None
        assert len(encoded.mask_embeddings) == 2
        assert encoded.mask_embeddings.isfinite().all()


@pytest.mark.parametrize("name", names(TEXT_ENCODER_REGISTRY))
def test_text_tower(name: str, tmp_path: Path) -> None:
    if name == "HFTextEncoder":
        add_hub_model(tmp_path)
    options = (".TEXT_ENCODER.NAME", name, ".TEXT_ENCODER.MODEL_NAME", TEXT_TOWERS[name])
    tower = build_text_tower(tiny_config(*options).MODEL.MASKCLIPPP.TEXT_ENCODER).eval()
    with torch.no_grad():
        embeddings = tower(["a photo of a cat.", "a dog"])
    assert len(embeddings) == 2
    assert embeddings.isfinite().all()


@pytest.mark.parametrize("name", names(PSM_REGISTRY))
def test_alignment_module_in_a_training_step(name: str) -> None:
    check_training_step(
        *(".PSM.NAME", name, ".PSM.IN_FEATURES", ["p_embs"], ".PSM.NUM_HEADS", 4),
        *(".USE_LOGIT_SCALE", True),
    )


@pytest.mark.parametrize("name", names(CRITERION_REGISTRY))
def test_criterion_in_a_training_step(name: str) -> None:
    check_training_step(".CRITERION.NAME", name)


def check_training_step(*options: Any) -> None:
    """The loss is finite, and what is trained outside the encoder gets a gradient."""
    model = tiny_model(*options).train()
    (loss,) = model([striped_record((64, 96), [0, 2, 1])]).values()
    assert loss.isfinite()
    loss.backward()
    for name, parameter in model.psm.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    trained = [p for p in model.visual_encoder.parameters() if p.requires_grad]
    assert any(p.grad is not None and p.grad.any() for p in trained)


class TinyDataset(NamedTuple):
    """A registered dataset of one image, and its input record."""

    name: str
    record: dict[str, Any]


@pytest.fixture
def tiny_dataset(tmp_path: Path) -> Iterator[TinyDataset]:
    """A dog (a thing) on grass, annotated for every evaluator."""
    ids = np.full((20, 30), 1, np.uint8)
    ids[5:15, 10:20] = 2
    colors = np.stack([ids, np.zeros_like(ids), np.zeros_like(ids)], axis=-1)
    Image.fromarray(colors).save(tmp_path / "a.jpg")
    Image.fromarray(colors).save(tmp_path / "panoptic.png")
    Image.fromarray(ids - 1).save(tmp_path / "semantic.png")
    image = {"id": 1, "height": 20, "width": 30}
    image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    dog = {"id": 1, "image_id": 1, "category_id": 2, "iscrowd": 0, "area": 100}
    dog |= {"bbox": [10, 5, 10, 10], "segmentation": encode_mask(ids == 2)}
    category = {"id": 2, "name": "dog", "isthing": 1, "frequency": "f"}
    instances = {"images": [image], "annotations": [dog], "categories": [category]}
    segments = [{"id": 1, "category_id": 1, "area": 500}, {"id": 2, "category_id": 2, "area": 100}]
    annotation = {"image_id": 1, "file_name": "panoptic.png", "segments_info": segments}
    categories = [{"id": 1, "name": "grass", "isthing": 0}, category]
    panoptic = {"images": [image], "annotations": [annotation], "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    (tmp_path / "panoptic.json").write_text(json.dumps(panoptic))
    name = "tiny_evaluation"
    record = {
        "file_name": str(tmp_path / "a.jpg"),
        "image_id": 1,
        "height": 20,
        "width": 30,
        "sem_seg_file_name": str(tmp_path / "semantic.png"),
        "pan_seg_file_name": str(tmp_path / "panoptic.png"),
        "segments_info": [
            {"id": 1, "category_id": 0, "isthing": False, "iscrowd": 0},
            {"id": 2, "category_id": 1, "isthing": True, "iscrowd": 0},
        ],
    }
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(
        stuff_classes=["grass", "dog"],
        thing_classes=["dog"],
        stuff_dataset_id_to_contiguous_id={1: 0, 2: 1},
        thing_dataset_id_to_contiguous_id={2: 1},
        ignore_label=255,
        json_file=str(tmp_path / "instances.json"),
        panoptic_json=str(tmp_path / "panoptic.json"),
        panoptic_root=str(tmp_path),
    )
    yield TinyDataset(name, record)
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


# The train mappers, each with the class and area of every mask it makes of the tiny dataset.
TRAIN_MAPPERS = {
    "coco_panoptic_lsj": [(0, 500), (1, 100)],
    "coco_instance_lsj": [(1, 100)],
    "mask_former_semantic": [(0, 500), (1, 100)],
    "mask_former_panoptic": [(0, 500), (1, 100)],
    "mask_former_instance": [(1, 100)],
}


@pytest.mark.parametrize("name", names(TRAIN_MAPPER_REGISTRY))
def test_train_mapper(name: str, tiny_dataset: TinyDataset) -> None:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (tiny_dataset.name,)
    cfg.INPUT.DATASET_MAPPER_NAME, cfg.INPUT.FORMAT = name, "RGB"
    cfg.INPUT.IMAGE_SIZE, cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE = 30, 1.0, 1.0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP.ENABLED = (20,), False
    record = dict(tiny_dataset.record)
    if "instance" in name:
        dog = np.zeros((20, 30), np.uint8)
        dog[5:15, 10:20] = 1
        record["annotations"] = [{"category_id": 1, "segmentation": encode_mask(dog)}]
    mapped = build_train_mapper(cfg)(record)
    masks = mapped["instances"].gt_masks
    assert mapped["image"].shape[1:] == masks.shape[1:]
    areas = masks.sum((1, 2)).tolist()
    assert (
        list(zip(mapped["instances"].gt_classes.tolist(), areas, strict=True))
        == (TRAIN_MAPPERS[name])
    )


# The evaluations, each with its evaluator_type, options of MODEL, and metrics.
EVALUATIONS: dict[str, tuple[str, list[Any], dict[str, str]]] = {
    "semantic": ("sem_seg", [], {"sem_seg": "mIoU"}),
    "instance": ("coco", [], {"segm": "AP"}),
    "lvis": ("lvis", [], {"segm": "APf"}),
    "panoptic": (
        "coco_panoptic_seg",
        [".MASK_FORMER.TEST.PANOPTIC_ON", True],
        {"panoptic_seg": "PQ"},
    ),
    "mask accuracy": ("sem_seg", [".MASKCLIPPP.TEST.MASK_ACC", True], {"mask_acc": "mMaskAcc"}),
    "assigned masks": (
        "coco_panoptic_seg",
        [
            *(".MASKCLIPPP.TEST.SEGMENTOR_ONLY", True, ".MASK_FORMER.TEST.SEMANTIC_ON", True),
            *(".MASK_FORMER.TEST.PANOPTIC_ON", True, ".MASK_FORMER.TEST.INSTANCE_ON", True),
        ],
        {"sem_seg": "mIoU", "panoptic_seg": "PQ", "segm": "AP", "bbox": "AP"},
    ),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluator_gives_full_marks_to_the_ground_truth(
    name: str, tiny_dataset: TinyDataset, tmp_path: Path
) -> None:
    kind, options, expected = EVALUATIONS[name]
    MetadataCatalog.get(tiny_dataset.name).evaluator_type = kind
    cfg = get_cfg()
    cfg.merge_from_list([f"MODEL{o}" if str(o).startswith(".") else o for o in options])
    cfg.INPUT.MIN_SIZE_TEST, cfg.DATASETS.TRAIN = 0, ()
    record = EvaluationMapper(cfg, tiny_dataset.name, with_ground_truth=True)(tiny_dataset.record)
    ids = record["pan_seg"].int()
    masks = torch.stack([ids == 1, ids == 2])
    instances = Instances((20, 30), pred_masks=masks[1:], pred_classes=torch.tensor([1]))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 5.0, 20.0, 15.0]]))
    instances.scores = torch.ones(1)
    output = {
        "sem_seg_labels": record["sem_seg"],
        "panoptic_seg": (ids, record["segments_info"]),
        "instances": instances,
        "mask_cls": torch.tensor([0, 1]),
        "pred_masks": masks,
    }
    evaluator = build_evaluator(cfg, tiny_dataset.name, tmp_path)
    evaluator.reset()
    evaluator.process([record], [output])
    results = evaluator.evaluate()
    for task, metric in expected.items():
        assert results[task][metric] == pytest.approx(100)
