"""Encoders of newer CLIPs: choice by the model, trained parts, batches, memory for speed."""

from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import tests.tiny_eva  # noqa: F401  (registers models)
from maskclippp.clip import VisualEncoder
from maskclippp.clip.families import encoder_name, encoder_of_tower
from maskclippp.clip.mask_attention import MaskAttentionSettings
from maskclippp.errors import InputError
from maskclippp.masks.batching import InputFormat, PaddedBatch, Resize
from maskclippp.registry import VISUAL_ENCODER_REGISTRY
from tests.clip.small_towers import small_tower
from tests.tiny_models import soft, tiny_visual_encoder

FAMILIES = {
    "MobileCLIP-B": "MaskTokenEncoder",
    "ViT-B-16-SigLIP2": "AttentionPoolEncoder",
    "PE-Core-S-16-384": "AttentionPoolEncoder",
    "ViTamin-S": "AverageEncoder",
    "MobileCLIP2-S0": "AverageEncoder",
    "swin_base_patch4_window7_224": "AverageEncoder",
}


def make(name: str, **options: Any) -> VisualEncoder:
    tower = small_tower(name)
    kind = encoder_of_tower(tower)
    if kind != "AverageEncoder":
        options["mask_attention"] = MaskAttentionSettings()
    if kind == "MaskTokenEncoder":
        options["first_block"] = None
    options = {"out_features": ("m_embs",), "finetune_type": "all", **options}
    fmt = InputFormat([120.0] * 3, [70.0] * 3, 32, test_resize=Resize())
    made: VisualEncoder = VISUAL_ENCODER_REGISTRY.get(kind)(
        proxy=tower, input_format=fmt, **options
    )
    return made.double().eval()


def embed(encoder: VisualEncoder, *counts: int) -> Tensor:
    """Embeddings of so many masks of each image, in float64."""
    torch.manual_seed(1)
    pairs = [(torch.randn(3, 64, 96), (torch.rand(n, 64, 96) > 0.4).float()) for n in counts]
    images = torch.stack([image for image, _ in pairs]).double()
    batch = PaddedBatch(images, [(64, 96)] * len(counts), soft([masks for _, masks in pairs]))
    encoded = encoder.encode(batch, with_masks=True)
    assert encoded.mask_embeddings is not None
    return encoded.mask_embeddings


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("ViT-tiny", "MaskTokenEncoder"),
        ("EVA02-tiny", "EVACLIPViT"),
        ("Pool-tiny", "AttentionPoolEncoder"),
        ("shapes_convnext", "AverageEncoder"),
        ("RN-tiny", "CLIPResNet"),
    ],
)
def test_auto_chooses_the_encoder(model: str, kind: str) -> None:
    made = tiny_visual_encoder(
        *(".VISUAL_ENCODER.NAME", "auto", ".VISUAL_ENCODER.MODEL_NAME", model),
        *(".VISUAL_ENCODER.MASK_PRIOR_BEG", 0, ".VISUAL_ENCODER.OUT_FEATURES", ["m_embs"]),
    )
    assert type(made).__name__ == kind == encoder_name(model)


@pytest.mark.parametrize("kind", ["MaskTokenEncoder", "AttentionPoolEncoder", "AverageEncoder"])
def test_a_model_of_another_family_is_refused(kind: str) -> None:
    model = "shapes_convnext" if kind != "AverageEncoder" else "Pool-tiny"
    with pytest.raises(InputError, match=f"{kind} needs .* set VISUAL_ENCODER.NAME to auto"):
        tiny_visual_encoder(
            *(".VISUAL_ENCODER.NAME", kind, ".VISUAL_ENCODER.MODEL_NAME", model),
            *(".VISUAL_ENCODER.MASK_PRIOR_BEG", 0),
        )


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_masks_of_a_ragged_batch_are_embedded_as_alone(name: str) -> None:
    encoder = make(name)
    together = embed(encoder, 3, 0, 2)
    assert len(together) == 5
    assert_close(together[:3], embed(encoder, 3))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_without_masks_still_has_a_graph(name: str) -> None:
    encoder = make(name).train()
    embed(encoder, 0, 0).sum().backward()
    # DistributedDataParallel waits for all gradients of every step.
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients_and_statistics(name: str) -> None:
    plain, saving = make(name), make(name, gradient_checkpointing=True)
    for encoder in (plain, saving):
        embed(encoder.train(), 2, 1).square().sum().backward()
    for ours, expected in zip(saving.parameters(), plain.parameters(), strict=True):
        assert_close(ours.grad, expected.grad)
    for ours, expected in zip(saving.buffers(), plain.buffers(), strict=True):
        assert_close(ours, expected)


TRAINED = {
    ("ViT-B-16-SigLIP2", "attention"): ["*pos_embed", "*.qkv.weight", "*_pool.q.weight", "*.kv.*t"],
    ("ViT-B-16-SigLIP2", "before_proj"): [
        *("*.blocks.*", "*embed*", "*.norm.*", "*.latent", "*.q.*", "*.kv.*"),
    ],
    ("PE-Core-S-16-384", "attention"): ["*pos_embed", "*.qkv.weight", "*_pool.q.weight", "*.kv.*t"],
    ("MobileCLIP-B", "before_proj"): ["*.blocks.*", "*embed*", "*.cls_token"],
    ("ViTamin-S", "attention"): ["*pos_embed", "*.attn.qkv.weight"],
    ("MobileCLIP2-S0", "before_proj"): ["*.stem.*", "*.stages.*", "*.final_conv.*"],
    ("MobileCLIP2-S0", "after_s4"): ["*.stages.3.*", "*.final_conv.*", "*.head.*"],
    ("swin_base_patch4_window7_224", "before_s4"): ["*.patch_embed.*", "*.layers.[012].*"],
    ("swin_base_patch4_window7_224", "none"): [],
}


@pytest.mark.parametrize(("name", "finetune_type"), TRAINED)
def test_finetune_types_train_exactly_what_they_say(name: str, finetune_type: str) -> None:
    encoder = make(name, finetune_type=finetune_type).train()
    for key, parameter in encoder.proxy.named_parameters():
        expected = any(fnmatch(key, pattern) for pattern in TRAINED[name, finetune_type])
        if finetune_type == "before_proj" and "attn_pool.norm" in key:
            expected = False
        assert parameter.requires_grad == expected, key


def test_untrained_batch_norms_keep_their_statistics() -> None:
    encoder = make("MobileCLIP2-S0", finetune_type="before_s4").train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    embed(encoder, 1)
    changed = {n for n, buffer in encoder.named_buffers() if not torch.equal(buffer, before[n])}
    assert changed
    assert all(".stem." in name or ".stages." in name for name in changed)
    assert not any(".stages.3." in name for name in changed)


@torch.no_grad()
def test_a_hundred_masks_cost_less_than_a_tenth_of_the_image() -> None:
    """Counted in floating-point operations at real size."""
    encoder = tiny_visual_encoder(
        *(".VISUAL_ENCODER.NAME", "AttentionPoolEncoder", ".VISUAL_ENCODER.OUT_FEATURES", []),
        *(".VISUAL_ENCODER.MODEL_NAME", "PE-Core-T-16-384"),
    ).eval()

    def flops(count: int) -> int:
        with FlopCounterMode(display=False) as counter:
            encoder([torch.zeros(3, 384, 576)], soft([torch.ones(count, 96, 144)]))
        return int(counter.get_total_flops())

    assert flops(100) - flops(0) < 0.1 * flops(0)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_every_cell_of_the_grid_has_an_embedding(name: str) -> None:
    """Class tokens and registers are no cells."""
    encoder = make(name, out_features=("m_embs", "p_embs"))
    image = torch.randn(1, 3, 64, 96).double()
    masks = soft([torch.ones(1, 64, 96)])
    encoded = encoder.encode(PaddedBatch(image, [(64, 96)], masks), with_masks=True)
    maps, embeddings = encoded.maps["p_embs"], encoded.mask_embeddings
    assert embeddings is not None
    stride = 64 // maps.shape[2]
    assert maps.shape == (1, embeddings.shape[1], 64 // stride, 96 // stride)
    assert maps.isfinite().all()
