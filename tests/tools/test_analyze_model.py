"""What is counted is what a model has and does."""

import pytest
import torch
from torch import nn

from benchmarks.workload import Workload
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.engine import Trainer
from maskclippp.generators import build_generator
from tests.golden_cases import REPOSITORY
from tools import analyze_model
from tools.analyze_model import Counter, analyze, table

MODULES = {
    "convolution": (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 12), 2 * 8 * 3 * 9 * 120),
    "linear": (nn.Linear(16, 32, bias=False), (5, 16), 2 * 5 * 16 * 32),
}


@pytest.mark.parametrize("kind", MODULES)
def test_flops_are_two_per_multiply_add(kind: str) -> None:
    module, shape, expected = MODULES[kind]
    counter = analyze_model._count(lambda: module(torch.ones(shape)))
    assert counter.flops == expected


def test_memory_is_that_of_the_tensors_that_live_together() -> None:
    with Counter() as counter:
        first = torch.ones(1000)
        second = first + 1
        del first
        third = (second + 1).view(10, 100)
        del second
        third + 1
    assert counter.peak == 2 * 4000


def test_the_parts_of_a_model_have_all_of_its_parameters() -> None:
    cfg = get_cfg()
    merge_config_file(cfg, REPOSITORY / "configs/shapes/linear_psm_fcclip.yaml")
    cfg.MODEL.DEVICE, cfg.DATASETS.TEST = "cpu", ()
    cfg.INPUT.MIN_SIZE_TEST = cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER.TEST_IMAGE_SIZE = 64
    parts = {part.name: part for part in analyze(cfg, Workload(classes=5, image_size=(64, 96)))}
    model, generator = Trainer.build_model(cfg), build_generator(cfg)
    all_parameters = {*model.parameters(), *generator.parameters()}
    all_parameters |= {*generator.text_classifier.tower.parameters()}  # type: ignore[attr-defined]
    assert sum(p.parameters for p in parts.values()) == sum(p.numel() for p in all_parameters)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(part.trained for part in parts.values()) == trained
    assert all(parts[name].flops > 0 for name in ("text tower", "CLIP", "pixel decoder"))
    assert "all, one image" in table([*parts.values()])
