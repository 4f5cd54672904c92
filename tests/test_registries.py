"""Every registered part works in a tiny model: a part is tested by being registered.

A new part needs one entry in the tables below. Mask generators are walked by
``tests/generators/test_shapes_configs.py``, with the configs of the shapes world.
"""

from typing import Any

import pytest
import torch
from detectron2.utils.registry import Registry

import tests.tiny_eva  # noqa: F401  (registers models)
from maskclippp.clip import build_text_tower, build_visual_encoder
from maskclippp.registry import (
    CRITERION_REGISTRY,
    PSM_REGISTRY,
    TEXT_ENCODER_REGISTRY,
    VISUAL_ENCODER_REGISTRY,
)
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
    "CLIPConvNeXt": (MODEL_NAME, 5, ["m_embs", "p_embs"]),
    "EVACLIPViT": ("EVA02-tiny", 2, ["m_embs", "p_embs"]),
    "CLIPViT": ("ViT-tiny", 2, ["m_embs"]),
    "CLIPResNet": ("RN-tiny", 1, ["m_embs", "p_embs"]),
    "D2SwinTransformer": ("", 1, ["res5"]),
}
TEXT_TOWERS = {"CLIPTextEncoder": MODEL_NAME, "EVACLIPTextEncoder": "EVA02-tiny"}
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
    masks = [torch.ones(2, *images[0].shape[1:]), torch.ones(0, *images[1].shape[1:])]
    with torch.no_grad():
        encoded = encoder(images, soft(masks) if "m_embs" in outputs else None)
    assert set(encoded.maps) == set(outputs) - {"m_embs"}
    assert all(len(value) == len(images) for value in encoded.maps.values())
    if "m_embs" in outputs:
        assert encoded.mask_embeddings is not None
        assert len(encoded.mask_embeddings) == 2
        assert encoded.mask_embeddings.isfinite().all()


@pytest.mark.parametrize("name", names(TEXT_ENCODER_REGISTRY))
def test_text_tower(name: str) -> None:
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
