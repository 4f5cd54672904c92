"""The encoder sees every cell of every level where it is."""

import torch
from torch.testing import assert_close

from maskclippp.generators.mask2former.deformable_encoder import DeformableTransformer


def build(num_layers: int, num_levels: int = 2, dropout: float = 0.0) -> DeformableTransformer:
    torch.manual_seed(0)
    return DeformableTransformer(
        channels=8,
        num_levels=num_levels,
        num_layers=num_layers,
        num_heads=2,
        num_points=2,
        feedforward_dim=16,
        dropout=dropout,
    )


def test_no_layers_return_the_maps() -> None:
    maps = [torch.randn(2, 8, 2, 3), torch.randn(2, 8, 5, 1)]
    for found, expected in zip(build(num_layers=0)(maps), maps, strict=True):
        assert_close(found, expected)


def test_a_fresh_encoder_mirrors_what_is_mirrored() -> None:
    """Cells see the neighbors on their own left and right, not at a shifted place."""
    transformer = build(num_layers=1, num_levels=1).eval()
    image = torch.randn(1, 8, 1, 7)
    found = transformer([image])[0]
    with torch.no_grad():
        offsets = transformer.encoder.layers[0].self_attn.sampling_offsets.bias
        offsets.copy_(-offsets)
    assert_close(transformer([image.flip(-1)])[0].flip(-1), found)


def test_levels_are_told_apart() -> None:
    transformer = build(num_layers=1)
    with torch.no_grad():
        transformer.encoder.layers[0].self_attn.attention_weights.weight.normal_()
    same = torch.randn(1, 8, 3, 3)
    first, second = transformer([same, same])
    assert not torch.allclose(first, second)


def test_dropout_is_for_training_only() -> None:
    maps = [torch.randn(1, 8, 2, 3), torch.randn(1, 8, 4, 6)]
    transformer = build(num_layers=1, dropout=0.5)
    assert not torch.equal(transformer(maps)[0], transformer(maps)[0])
    transformer.eval()
    assert torch.equal(transformer(maps)[0], transformer(maps)[0])
