"""Vision transformers with mask tokens: what users and training rely on."""

from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from open_clip.transformer import VisionTransformer
from timm.models.eva import Eva
from torch import Tensor
from torch.testing import assert_close

from maskclippp.clip import CLIPViT, EVACLIPViT
from maskclippp.clip.mask_attention import MaskAttentionSettings
from maskclippp.clip.mask_tokens import MaskTokenEncoder
from maskclippp.clip.open_clip_models import load_visual_tower
from maskclippp.masks.batching import InputFormat
from tests.clip.weight_files import node
from tests.tiny_models import random_image, soft

KINDS = ["eva02", "eva01", "vit"]
DEPTH, WIDTH, HEADS, PATCH, EMBEDDING = 4, 24, 3, 8, 10
SIZES = [(37, 50), (48, 20), (30, 30)]


def make(
    kind: str,
    out_features: Sequence[str] = ("m_embs",),
    first_block: int | None = 3,
    **options: Any,
) -> MaskTokenEncoder:
    torch.manual_seed(0)
    settings = MaskAttentionSettings(log_scale=0.5, learnable=options.pop("learnable", True))
    options = {"first_block": first_block, "finetune_type": "all", **options}
    fmt = InputFormat([120.0] * 3, [70.0] * 3, size_divisibility=options.pop("divisibility", PATCH))
    arguments = {"mask_attention": settings, "input_format": fmt, "out_features": out_features}
    encoder: MaskTokenEncoder
    if kind == "vit":
        tower = VisionTransformer(32, PATCH, WIDTH, DEPTH, HEADS, 2.0, output_dim=EMBEDDING)
        encoder = CLIPViT(proxy=tower, **arguments, **options)
    else:
        second = kind == "eva02"
        trunk = Eva(
            img_size=32,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            mlp_ratio=2.0,
            num_classes=EMBEDDING,
            global_pool="token",
            qkv_fused=not second,
            swiglu_mlp=second,
            scale_mlp=second,
            scale_attn_inner=second,
            use_rot_pos_emb=second,
            ref_feat_shape=(16, 16) if second else None,
        )
        encoder = EVACLIPViT(proxy=trunk, **arguments, **options)
    for parameter in encoder.proxy.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


def inputs(*counts: int) -> tuple[list[Tensor], list[Tensor]]:
    """Images of different sizes with so many masks."""
    torch.manual_seed(1)
    images = [random_image(*size) for size in SIZES[: len(counts)]]
    masks = [
        (torch.rand(count, *size) > 0.4).float() for count, size in zip(counts, SIZES, strict=False)
    ]
    return images, masks


def embed(encoder: MaskTokenEncoder, *counts: int) -> Tensor:
    images, masks = inputs(*counts)
    embeddings = encoder(images, soft(masks)).mask_embeddings
    assert embeddings is not None
    return embeddings


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_a_ragged_batch_are_embedded_as_alone(kind: str) -> None:
    encoder = make(kind)
    images, masks = inputs(3, 0, 5)
    # The same padded size alone: padding is part of the feature grid.
    canvas = [torch.zeros(3, 48, 56) for _ in images]
    sizes = [image.shape[-2:] for image in images]
    padded_masks = [torch.zeros(len(m), 48, 56) for m in masks]
    for image, mask, big, big_mask, (height, width) in zip(
        images, masks, canvas, padded_masks, sizes, strict=True
    ):
        big[:, :height, :width], big_mask[:, :height, :width] = image, mask
    together = encoder(canvas, soft(padded_masks)).mask_embeddings
    alone = [
        encoder([image], soft([mask])).mask_embeddings
        for image, mask in zip(canvas, padded_masks, strict=True)
    ]
    assert_close(together, torch.cat(alone))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_looks_at_mask_tokens(kind: str) -> None:
    numbered = (f"{kind}{number}" for kind in ("block", "i_embs") for number in range(1, DEPTH + 1))
    names = ("p_embs", "i_embs", *numbered)
    images, masks = inputs(3, 2)
    without = make(kind, names)(images).maps
    # Each alone, too: the last block leaves out what no output needs.
    for wanted in (names, *((name,) for name in names)):
        with_masks = make(kind, wanted)(images, soft(masks)).maps
        assert set(with_masks) == set(wanted)
        for name in wanted:
            assert_close(with_masks[name], without[name])


@pytest.mark.parametrize("kind", KINDS)
def test_by_default_the_last_three_blocks_have_mask_tokens(kind: str) -> None:
    """As in the published models."""
    assert make(kind, first_block=None).first_block == DEPTH - 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_masks_still_has_a_graph(kind: str) -> None:
    encoder = make(kind).train()
    embeddings = embed(encoder, 0, 0)
    assert embeddings.shape == (0, EMBEDDING)
    embeddings.sum().backward()
    # DistributedDataParallel waits for all gradients of every step.
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_that_is_empty_on_the_grid_is_embedded_as_the_whole_image(kind: str) -> None:
    encoder = make(kind)
    encoder.mask_logit_scale.fill_(-torch.inf)  # inside a mask: bias 0
    images, _ = inputs(1)
    height, width = images[0].shape[-2:]
    whole = torch.zeros(2, 40, 56)
    whole[1] = 1
    canvas = torch.zeros(3, 40, 56)
    canvas[:, :height, :width] = images[0]
    encoded = encoder([canvas], soft([whole]))
    assert encoded.mask_areas.tolist() == [0, 35]
    assert_close(encoded.mask_embeddings[0], encoded.mask_embeddings[1])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_mask_tokens_before_the_end(kind: str) -> None:
    """m_embs-k are raw tokens, one row per mask; after the last block they are m_embs."""
    encoder = make(kind, ("m_embs-1",))
    images, masks = inputs(3, 2)
    encoded = encoder(images, soft(masks))
    assert encoded.maps["m_embs-1"].shape == (5, WIDTH)
    assert not torch.equal(encoder._embed(encoded.maps["m_embs-1"]), encoded.mask_embeddings)


def gradients(encoder: MaskTokenEncoder) -> dict[str, Tensor]:
    embed(encoder, 3, 2).square().sum().backward()
    return {
        name: parameter.grad
        for name, parameter in encoder.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_gives_the_same_gradients(kind: str) -> None:
    expected = gradients(make(kind).train())
    found = gradients(make(kind, gradient_checkpointing=True).train())
    assert set(found) == {name for name, _ in make(kind).named_parameters()}
    for name, gradient in expected.items():
        assert_close(found[name], gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_keeps_fewer_activations(kind: str) -> None:
    def saved_bytes(encoder: MaskTokenEncoder) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            embed(encoder.train(), 3, 2)
        return sum(sizes.values())

    assert saved_bytes(make(kind, gradient_checkpointing=True)) < saved_bytes(make(kind)) / 2


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_channels_last_gives_the_same_numbers(kind: str) -> None:
    expected = embed(make(kind), 3, 2)
    assert_close(embed(make(kind).to(memory_format=torch.channels_last), 3, 2), expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_is_close(kind: str) -> None:
    encoder = make(kind)
    expected = embed(encoder, 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = embed(encoder, 3, 2)
    similarity = torch.cosine_similarity(found.float(), expected, dim=-1)
    assert (similarity > 0.999).all()


@pytest.mark.parametrize("first_block", [0, DEPTH + 1, -1])
def test_mask_prior_beg_out_of_range(first_block: int) -> None:
    with pytest.raises(ValueError, match=rf"MASK_PRIOR_BEG .* 1\.\.{DEPTH} .* found {first_block}"):
        make("eva02", first_block=first_block)


def test_unknown_features_list_those_of_the_model() -> None:
    with pytest.raises(ValueError, match=r"has \['m_embs-2'\]; valid names are .*'m_embs-1'.*k4'"):
        make("vit", ("m_embs-2",))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_smaller_than_a_patch(kind: str) -> None:
    """With padding it is one patch; without, the error says how to pad."""
    small = [random_image(5, 3)]
    assert make(kind, ("block1",))(small).maps["block1"].shape == (1, WIDTH, 1, 1)
    with pytest.raises(ValueError, match=r"5 x 3 pixels .* patches of 8 x 8; .*_DIVISIBILITY to 8"):
        make(kind, divisibility=0)(small)


TRAINED = {
    ("eva02", "all"): ["*"],
    ("eva02", "before_proj"): ["mask_logit_scale", "proxy.[!nh]*"],
    ("eva02", "attention"): [
        "mask_logit_scale",
        "proxy.pos_embed",
        "*.attn.[qv]_proj.weight",
    ],
    ("eva01", "attention"): ["mask_logit_scale", "proxy.pos_embed", "*.attn.qkv.weight"],
    ("vit", "all"): ["*"],
    ("vit", "before_proj"): ["mask_logit_scale", "proxy.[!lp]*", "*.ln_pre.*", "proxy.pos*"],
    ("vit", "attention"): [
        "mask_logit_scale",
        "proxy.positional_embedding",
        "*.in_proj_weight",
    ],
}


@pytest.mark.parametrize(("kind", "finetune_type"), TRAINED)
def test_finetune_types_train_exactly_what_they_say(kind: str, finetune_type: str) -> None:
    encoder = make(kind, finetune_type=finetune_type)
    for name, parameter in encoder.named_parameters():
        expected = any(fnmatch(name, pattern) for pattern in TRAINED[kind, finetune_type])
        assert parameter.requires_grad == expected, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_encoder_trains_nothing_and_stays_in_evaluation_mode(kind: str) -> None:
    encoder = make(kind, finetune_type="none").train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.training


def test_a_fixed_mask_logit_scale_is_not_trained_but_saved() -> None:
    encoder = make("eva02", learnable=False)
    assert not encoder.mask_logit_scale.requires_grad
    assert encoder.state_dict()["mask_logit_scale"].shape == (2, HEADS)


@pytest.mark.parametrize("kind", ["eva02", "eva01"])
def test_disagreements_are_reported_by_published_names(kind: str) -> None:
    """Among models that are not EVA, too: their names stay what they are."""
    model = torch.nn.ModuleDict({"other": torch.nn.Module(), "encoder": make(kind)})
    model["other"].mlp = torch.nn.ModuleDict({"fc2": torch.nn.Linear(1, 1)})
    state = model.state_dict()
    bias = "encoder.proxy.blocks.1.attn.q_bias"
    assert bias in state
    lacking = {k: v for k, v in state.items() if k not in (bias, "other.mlp.fc2.bias")}
    report = model.load_state_dict({**lacking, "encoder.proxy.new": state[bias]}, strict=False)
    assert set(report.missing_keys) == {bias, "other.mlp.fc2.bias"}
    assert report.unexpected_keys == ["encoder.proxy.new"]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_grids_may_change_from_batch_to_batch(kind: str) -> None:
    encoder = make(kind)
    first = embed(encoder, 3, 2)
    encoder([random_image(64, 16)], soft([torch.ones(1, 64, 16)]))
    assert_close(embed(encoder, 3, 2), first)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_trained_after_an_evaluation_in_inference_mode(kind: str) -> None:
    """Tables that a tower keeps of its last grid must be fit for both."""
    encoder = make(kind)
    with torch.inference_mode():
        embed(encoder, 3, 2)
    assert gradients(encoder.train())


def test_an_eva_network_with_other_parts_is_refused() -> None:
    """PE-Core pools by attention and normalizes before its blocks."""
    with torch.device("meta"):
        tower = load_visual_tower(node("random", "PE-Core-T-16-384"))
    with pytest.raises(ValueError, match=r"EVACLIPViT needs an EVA-CLIP model .*MODEL_NAME"):
        EVACLIPViT(
            proxy=tower.trunk,
            first_block=1,
            mask_attention=MaskAttentionSettings(),
            input_format=InputFormat([0.0] * 3, [1.0] * 3),
            out_features=(),
        )


def test_a_tower_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"EVACLIPViT needs an EVA-CLIP model .* found a Linear"):
        EVACLIPViT(
            proxy=torch.nn.Linear(1, 1),
            first_block=1,
            mask_attention=MaskAttentionSettings(),
            input_format=InputFormat([0.0] * 3, [1.0] * 3),
            out_features=(),
        )
    pooled = VisionTransformer(32, 8, 24, 1, 3, 2.0, attentional_pool=True, output_dim=8)
    with pytest.raises(ValueError, match="CLIPViT needs an open_clip model with CLIP's own"):
        CLIPViT(
            proxy=pooled,
            first_block=1,
            mask_attention=MaskAttentionSettings(),
            input_format=InputFormat([0.0] * 3, [1.0] * 3),
            out_features=(),
        )
