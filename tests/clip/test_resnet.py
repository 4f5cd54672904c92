"""The ResNet mask classifier: trained parts, ragged batches, empty masks, running statistics."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskclippp.clip import CLIPResNet, build_visual_encoder
from tests.golden_models import register_open_clip
from tests.tiny_models import random_image, soft, tiny_config

MODEL_NAME = "tiny_resnet"
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 4, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
HEADS = 4


@pytest.fixture(scope="module", autouse=True)
def _tiny_resnet(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_open_clip(MODEL_NAME, MODEL, Path(tmp_path_factory.mktemp("models")))


def encoder(*options: object) -> CLIPResNet:
    """An encoder made by config, with residual branches that do something."""
    values = {
        "NAME": "CLIPResNet",
        "MODEL_NAME": MODEL_NAME,
        "OUT_FEATURES": ["m_embs"],
        "DOWN_MASK_THRESH": None,
        "MASK_LOGIT_SCALE": -1.0,
        "LEARNABLE_MASK_LOGIT_SCALE": True,
        **dict(zip(options[::2], options[1::2], strict=True)),
    }
    node = tiny_config().MODEL.MASKCLIPPP.VISUAL_ENCODER
    node.merge_from_list([item for pair in values.items() for item in pair])
    made = build_visual_encoder(node)
    assert isinstance(made, CLIPResNet)
    for name, parameter in made.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.ones_(parameter)
    return made.eval()


def embed(made: CLIPResNet, images: list[Tensor], masks: list[Tensor]) -> Tensor:
    embeddings = made(images, soft(masks)).mask_embeddings
    assert embeddings is not None
    return embeddings


def random_masks(count: int, height: int = 64, width: int = 96) -> Tensor:
    """Soft masks that are smooth enough to cover whole cells."""
    coarse = torch.rand(1, max(count, 1), 3, 4)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return fine[0, :count]


def statistics(made: CLIPResNet) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in made.named_buffers()}


def part_of(name: str) -> str:
    """What a parameter belongs to, in the words of the FINETUNE_TYPEs."""
    if name == "mask_logit_scale":
        return "scale"
    if "attnpool" not in name:
        return "trunk"
    if "c_proj" in name:
        return "projection"
    if "positional_embedding" in name or name.endswith(("q_proj.weight", "v_proj.weight")):
        return "attention"
    return "rest of the pool"


@pytest.mark.parametrize(
    ("finetune_type", "trained_parts"),
    [
        ("none", set()),
        ("all", {"scale", "trunk", "attention", "rest of the pool", "projection"}),
        ("before_proj", {"scale", "trunk", "attention", "rest of the pool"}),
        ("attention", {"scale", "attention"}),
    ],
)
def test_finetune_types_train_exactly_what_they_say(
    finetune_type: str, trained_parts: set[str]
) -> None:
    made = encoder("FINETUNE_TYPE", finetune_type).train()
    images = [random_image(64, 96) for _ in range(2)]
    embeddings = embed(made, images, [random_masks(2), random_masks(1)])
    if trained_parts:
        embeddings.sum().backward()
    for name, parameter in made.named_parameters():
        assert (parameter.grad is not None) == (part_of(name) in trained_parts), name


def test_a_fixed_mask_logit_scale_is_stored_but_not_trained() -> None:
    made = encoder("FINETUNE_TYPE", "all", "LEARNABLE_MASK_LOGIT_SCALE", False)
    assert not made.mask_logit_scale.requires_grad
    assert made.state_dict()["mask_logit_scale"].tolist() == [-1.0] * HEADS


def test_unknown_finetune_type_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"CLIPResNet: FINETUNE_TYPE 'proj' is not one of"):
        encoder("FINETUNE_TYPE", "proj")


def test_unknown_out_feature_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"OUT_FEATURES has \['stage1'\]; valid names are"):
        encoder("OUT_FEATURES", ["stage1"])


def test_a_model_with_another_image_tower_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CLIP's own ResNet .* check VISUAL_ENCODER.MODEL_NAME"):
        encoder("MODEL_NAME", "ViT-S-32")


@pytest.mark.parametrize("name", ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"])
def test_every_resnet_of_clip_can_be_built(name: str) -> None:
    with torch.device("meta"):
        made = encoder("MODEL_NAME", name)
    assert made.mask_logit_scale.shape == (made.proxy.attnpool.c_proj.in_features // 64,)


def test_images_smaller_than_a_cell_are_refused() -> None:
    with pytest.raises(ValueError, match=r"20 x 40 .* stride of 32; set .*SIZE_DIVISIBILITY to 32"):
        encoder()([random_image(20, 40)])
    padded = encoder("SIZE_DIVISIBILITY", 32)
    assert embed(padded, [random_image(20, 40)], [torch.ones(1, 20, 40)]).isfinite().all()


def test_out_features_have_the_suffix_of_the_config() -> None:
    names = ["layer1_f", "layer2_f", "layer3_f", "layer4_f", "p_embs_f", "i_embs_f"]
    made = encoder("OUT_FEATURES", names, "FEATURE_SUFFIX", "_f")
    maps = made([random_image(64, 96)]).maps
    assert {name: tuple(feature_map.shape) for name, feature_map in maps.items()} == {
        "layer1_f": (1, 16, 16, 24),
        "layer2_f": (1, 32, 8, 12),
        "layer3_f": (1, 64, 4, 6),
        "layer4_f": (1, 128, 2, 3),
        "p_embs_f": (1, 16, 2, 3),
        "i_embs_f": (1, 16, 1, 1),
    }


def test_the_pool_does_not_run_for_layers_alone() -> None:
    made, calls = encoder("OUT_FEATURES", ["layer4"]), []
    made.proxy.attnpool.v_proj.register_forward_hook(lambda *_: calls.append("values"))
    encoded = made([random_image(64, 64)])
    assert encoded.mask_embeddings is None
    assert set(encoded.maps) == {"layer4"}
    assert calls == []


def test_blocks_are_the_four_layers() -> None:
    made = encoder()
    layers = [getattr(made.proxy, f"layer{number}") for number in (1, 2, 3, 4)]
    assert list(made.blocks()) == layers


@torch.no_grad()
def test_a_ragged_batch_equals_its_images_one_by_one() -> None:
    made, images = encoder(), [random_image(64, 96) for _ in range(4)]
    masks = [random_masks(count) for count in (2, 0, 1, 5)]
    alone = [embed(made, [image], [own]) for image, own in zip(images, masks, strict=True)]
    together = embed(made, images, masks)
    assert_close(together, torch.cat(alone))
    assert together.unique(dim=0).shape == together.shape, "masks make no difference"


def test_a_batch_without_any_mask_touches_every_trained_parameter() -> None:
    made = encoder("FINETUNE_TYPE", "all").train()
    images = [random_image(64, 96) for _ in range(2)]
    embeddings = embed(made, images, [torch.ones(0, 64, 96)] * 2)
    assert embeddings.shape == (0, 16)
    embeddings.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in made.parameters())


def test_a_mask_that_is_empty_on_the_grid_looks_at_every_cell_alike() -> None:
    made = encoder("FINETUNE_TYPE", "all")
    masks = torch.zeros(2, 64, 96)
    masks[0, 0, 0] = 1  # bilinear shrinking does not see this pixel
    encoded = made([random_image(64, 96)], soft([torch.cat([masks, torch.ones(1, 64, 96)])]))
    assert encoded.mask_areas is not None
    assert encoded.mask_areas.tolist() == [0, 0, 6]
    assert encoded.mask_embeddings is not None
    everywhere = encoded.mask_embeddings[2:]
    assert_close(encoded.mask_embeddings[:2], everywhere.expand(2, -1))
    encoded.mask_embeddings.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


@torch.no_grad()
def test_patch_embeddings_are_exact_where_logits_differ_by_hundreds() -> None:
    """A cell may find another so much more alike that the bias against it does not suffice."""
    made = encoder("OUT_FEATURES", ["p_embs", "layer4"])
    pool = made.proxy.attnpool
    pool.q_proj.weight *= 1e5
    maps = made([random_image(64, 64)]).maps
    made.double()
    cells = maps["layer4"].double()[0].flatten(1).T + pool.positional_embedding[1:]
    query, key, value = (
        projection(cells).unflatten(-1, (HEADS, -1)).transpose(0, 1)
        for projection in (pool.q_proj, pool.k_proj, pool.v_proj)
    )
    logits = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    weights = (logits - 100 * (1 - torch.eye(len(cells)))).softmax(dim=-1)
    assert (weights.diagonal(dim1=1, dim2=2) < 0.5).any()
    expected = pool.c_proj((weights @ value).transpose(0, 1).flatten(1))
    assert_close(maps["p_embs"][0].flatten(1).T, expected.float(), rtol=1e-4, atol=1e-4)


def training_step(made: CLIPResNet) -> None:
    torch.manual_seed(1)
    images = [random_image(64, 96) for _ in range(3)]
    embed(
        made, images, [random_masks(2), random_masks(0), random_masks(1)]
    ).square().sum().backward()


def test_gradient_checkpointing_changes_neither_gradients_nor_statistics() -> None:
    plain = encoder("FINETUNE_TYPE", "all").train()
    frugal = encoder("FINETUNE_TYPE", "all", "GRADIENT_CHECKPOINTING", True).train()
    frugal.load_state_dict(plain.state_dict())
    before = statistics(plain)
    training_step(plain)
    training_step(frugal)
    for (name, one), other in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        assert_close(one.grad, other.grad, msg=name)
    for name, one in statistics(plain).items():
        assert_close(one, statistics(frugal)[name], rtol=0, atol=0, msg=name)
        assert not torch.equal(one, before[name]), name


@pytest.mark.parametrize("finetune_type", ["none", "attention"])
def test_batch_norms_that_are_not_trained_keep_their_statistics(finetune_type: str) -> None:
    made = encoder("FINETUNE_TYPE", finetune_type).train()
    before = statistics(made)
    embed(made, [random_image(64, 96)], [random_masks(2)])
    assert_close(statistics(made), before, rtol=0, atol=0)


@pytest.mark.processes
def test_compiled_layers_can_be_checkpointed() -> None:
    plain = encoder("FINETUNE_TYPE", "all").train()
    both = encoder("FINETUNE_TYPE", "all", "GRADIENT_CHECKPOINTING", True, "COMPILE", "eager")
    both.train().load_state_dict(plain.state_dict())
    training_step(plain)
    training_step(both)
    for (name, one), other in zip(plain.named_parameters(), both.parameters(), strict=True):
        assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4, msg=name)
    assert_close(statistics(both), statistics(plain))


@torch.no_grad()
def test_channels_last_gives_the_same_numbers() -> None:
    made, image, masks = encoder(), random_image(96, 96), random_masks(3, 96, 96)
    exact = embed(made, [image], [masks])
    made.to(memory_format=torch.channels_last)
    assert_close(embed(made, [image], [masks]), exact)


def autocast_embeddings() -> Iterator[Tensor]:
    made = encoder("FINETUNE_TYPE", "all", "OUT_FEATURES", ["m_embs", "p_embs", "i_embs"])
    image, masks = random_image(96, 96), random_masks(3, 96, 96)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            encoded = made([image], soft([masks])).float()
        assert encoded.mask_embeddings is not None
        rows = [feature_map.flatten(2)[0].T for feature_map in encoded.maps.values()]
        yield torch.cat([encoded.mask_embeddings, *rows])


def test_bfloat16_autocast_stays_close() -> None:
    exact, rough = autocast_embeddings()
    assert (torch.cosine_similarity(rough, exact, dim=-1) > 0.99).all()
    rough.sum().backward()
