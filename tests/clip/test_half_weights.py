"""Weights held in half precision give what autocast gives, and leave no trace."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from maskclippp.clip.half_weights import converted_weights
from maskclippp.clip.visual_encoder import VisualEncoder
from maskclippp.meta_arch import MaskCLIPpp
from tests.generators.tiny_generators import fcclip_config, mask2former_config
from tests.tiny_eva import options_of
from tests.tiny_models import labeled_record, tiny_config


@pytest.mark.parametrize(
    "make",
    [fcclip_config, mask2former_config, partial(tiny_config, *options_of("EVA02"))],
)
def test_results_are_those_of_autocast_to_the_bit(make: Callable[..., CfgNode]) -> None:
    torch.manual_seed(0)
    model = MaskCLIPpp(make(".TEXT_CACHE", False, ".TEST.DTYPE", "bfloat16")).eval()
    records: list[Any] = [labeled_record((64, 96), 0, 1, 3)]
    (expected,) = model.classify_masks(records)
    generator = model.mask_generator
    with converted_weights([model, generator], torch.bfloat16):
        towers = [m for m in (*model.modules(), *generator.modules()) if is_tower(m)]
        weights = [p for tower in towers for p in tower.parameters() if p.ndim > 1]
        half = sum(p.numel() for p in weights if p.dtype == torch.bfloat16)
        assert half > 0.5 * sum(p.numel() for p in weights)
        (found,) = model.classify_masks(records)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.masks.values, expected.masks.values)


def is_tower(module: torch.nn.Module) -> bool:
    return isinstance(module, VisualEncoder)


def test_parameters_are_put_back_also_after_an_error() -> None:
    model = MaskCLIPpp(tiny_config(".TEXT_CACHE", False))
    before = dict(model.named_parameters())
    values = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), converted_weights([model], torch.bfloat16):
        raise KeyboardInterrupt
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is parameter for name, parameter in before.items())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in values.items())
