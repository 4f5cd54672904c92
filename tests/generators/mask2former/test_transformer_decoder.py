"""The mask decoder equals its straightforward formulation, and can be trained."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from benchmarks.plain import decoder as plain_decoder
from maskclippp.generators.mask2former.class_heads import (
    ClosedVocabularyDecoder,
    OpenVocabularyDecoder,
    pool_positive_cells,
)
from maskclippp.generators.mask2former.decoder_layers import attend
from maskclippp.generators.mask2former.transformer_decoder import (
    DecoderOptions,
    MaskedAttentionDecoder,
)

OPTIONS = DecoderOptions(
    input_dim=16,
    hidden_dim=16,
    mask_dim=16,
    num_queries=9,
    num_layers=4,
    num_heads=4,
    feedforward_dim=24,
)
VARIANTS = {
    "published": OPTIONS,
    "pre_norm": replace(OPTIONS, pre_norm=True),
    "projected": replace(OPTIONS, input_dim=12),
    "enforced_projection": replace(OPTIONS, enforce_input_projection=True),
    "one_level": replace(OPTIONS, num_levels=1),
    "no_layers": replace(OPTIONS, num_layers=0),
}
NUM_SYNONYMS = [1, 3, 2]
EMBEDDING_DIM = 10
# Odd sizes: a stride does not divide them.
SIZES = [(3, 4), (5, 7), (9, 13)]
MASK_SIZE = (17, 25)


def features(options: DecoderOptions, batch: int = 2) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(1)
    maps = [
        torch.randn(batch, options.input_dim, *size, dtype=torch.float64)
        for size in SIZES[: options.num_levels]
    ]
    return maps, torch.randn(batch, options.mask_dim, *MASK_SIZE, dtype=torch.float64)


def closed_decoder(options: DecoderOptions) -> ClosedVocabularyDecoder:
    torch.manual_seed(0)
    return ClosedVocabularyDecoder(options=options, num_classes=5).double()


def open_decoder(options: DecoderOptions) -> OpenVocabularyDecoder:
    torch.manual_seed(0)
    return OpenVocabularyDecoder(options=options, embedding_dim=EMBEDDING_DIM).double()


def plain_closed(
    decoder: ClosedVocabularyDecoder, maps: list[Tensor], mask_features: Tensor
) -> list[tuple[Tensor, Tensor]]:
    classify = plain_decoder.closed_logits(decoder)
    return plain_decoder.decode(decoder, maps, mask_features, classify)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_predictions_equal_the_straightforward_formulation(options: DecoderOptions) -> None:
    decoder, (maps, mask_features) = closed_decoder(options), features(options)
    masks, classes = plain_closed(decoder, maps, mask_features)[-1]
    predictions = decoder(maps, mask_features)
    assert_close(predictions.masks, masks)
    assert_close(predictions.classes, classes)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_intermediate_predictions_equal_the_straightforward_formulation(
    options: DecoderOptions,
) -> None:
    decoder, (maps, mask_features) = closed_decoder(options), features(options)
    expected = plain_closed(decoder, maps, mask_features)
    predictions = decoder(maps, mask_features, with_intermediate=True)
    assert len(predictions.intermediate) == options.num_layers
    for prediction, (masks, classes) in zip(
        [*predictions.intermediate, predictions], expected, strict=True
    ):
        assert_close(prediction.masks, masks)
        assert_close(prediction.classes, classes)


def test_open_class_logits_equal_the_straightforward_formulation() -> None:
    decoder, (maps, mask_features) = open_decoder(OPTIONS), features(OPTIONS)
    names = torch.randn(sum(NUM_SYNONYMS), EMBEDDING_DIM, dtype=torch.float64)
    names = names / names.norm(dim=-1, keepdim=True)
    void = torch.randn(1, EMBEDDING_DIM, dtype=torch.float64)
    classify = plain_decoder.open_logits(decoder, names, void, NUM_SYNONYMS)
    _, expected = plain_decoder.decode(decoder, maps, mask_features, classify)[-1]
    class_of_synonym = torch.arange(len(NUM_SYNONYMS)).repeat_interleave(torch.tensor(NUM_SYNONYMS))
    embeddings = decoder(maps, mask_features).classes
    logits = decoder.class_logits(embeddings, names, void, class_of_synonym, len(NUM_SYNONYMS))
    assert_close(logits, expected.float())


def test_a_query_without_any_cell_attends_everywhere() -> None:
    decoder, (maps, mask_features) = closed_decoder(OPTIONS), features(OPTIONS)
    last = decoder.mask_embed.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, -1.0)
    mask_features = mask_features.abs()
    masks, classes = plain_closed(decoder, maps, mask_features)[-1]
    assert (masks < 0).all()
    predictions = decoder(maps, mask_features)
    assert_close(predictions.classes, classes)


def test_images_do_not_depend_on_their_batch() -> None:
    decoder, (maps, mask_features) = closed_decoder(OPTIONS), features(OPTIONS)
    together = decoder(maps, mask_features)
    for index in range(len(mask_features)):
        image = slice(index, index + 1)
        alone = decoder([feature_map[image] for feature_map in maps], mask_features[image])
        assert_close(alone.masks, together.masks[image])
        assert_close(alone.classes, together.classes[image])


def test_inference_classifies_once() -> None:
    decoder, (maps, mask_features) = closed_decoder(OPTIONS), features(OPTIONS)
    calls = []
    decoder.class_embed.register_forward_hook(lambda *_: calls.append(1))
    assert decoder(maps, mask_features).intermediate == ()
    assert len(calls) == 1


@pytest.mark.parametrize("build", [closed_decoder, open_decoder])
def test_deep_supervision_reaches_every_parameter(build: type[MaskedAttentionDecoder]) -> None:
    decoder, (maps, mask_features) = build(OPTIONS), features(OPTIONS)
    mask_features.requires_grad_()
    predictions = decoder(maps, mask_features, with_intermediate=True)
    loss = sum(
        (prediction.masks**2).mean() + prediction.classes[..., 0].sum()
        for prediction in [predictions, *predictions.intermediate]
    )
    loss.backward()
    assert mask_features.grad.abs().sum() > 0
    # The scale of the similarities is used where words are known.
    without = {name for name, value in decoder.named_parameters() if value.grad is None}
    assert without <= {"logit_scale"}


def test_the_logit_scale_trains() -> None:
    decoder = open_decoder(OPTIONS)
    embeddings = torch.randn(1, 2, EMBEDDING_DIM)
    words, void = torch.randn(3, EMBEDDING_DIM), torch.randn(1, EMBEDDING_DIM, requires_grad=True)
    decoder.class_logits(embeddings, words, void, torch.arange(3), 3).sum().backward()
    assert decoder.logit_scale.grad.abs() > 0
    assert void.grad.abs().sum() > 0


def test_the_logit_scale_is_at_most_100() -> None:
    decoder = open_decoder(OPTIONS)
    nn.init.constant_(decoder.logit_scale, 10.0)
    word = torch.eye(1, EMBEDDING_DIM)
    logits = decoder.class_logits(word[None], word, word, torch.arange(1), 1)
    assert_close(logits, torch.full((1, 1, 2), 100.0))


def test_class_logits_keep_their_precision_within_autocast() -> None:
    decoder = open_decoder(OPTIONS)
    embeddings, words = torch.randn(1, 2, EMBEDDING_DIM), torch.randn(3, EMBEDDING_DIM)
    arguments = (embeddings, words, words[:1], torch.arange(3), 3)
    expected = decoder.class_logits(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decoder.class_logits(*arguments), expected)


@pytest.mark.parametrize("build", [closed_decoder, open_decoder])
def test_autocast_gives_nearly_the_same_masks(build: type[MaskedAttentionDecoder]) -> None:
    options = replace(OPTIONS, num_layers=0)
    decoder, (maps, mask_features) = build(options).float(), features(options)
    maps, mask_features = [one.float() for one in maps], mask_features.float()
    expected = decoder(maps, mask_features).masks
    with torch.autocast("cpu", dtype=torch.bfloat16):
        masks = decoder(maps, mask_features).masks
    assert_close(masks.float(), expected, rtol=0.05, atol=0.05)


def test_attention_equals_torchs() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    nn.init.normal_(attention.in_proj_bias)
    query, key, value = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    allowed = torch.rand(2, 3, 5) > 0.3
    allowed[:, :, 0] = True
    expected, _ = attention(query, key, value, attn_mask=~allowed.repeat_interleave(2, dim=0))
    assert_close(attend(attention, query, key, value, allowed), expected)


def test_pooling_takes_the_mean_of_positive_cells() -> None:
    cells = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    masks = torch.tensor([[[5.0, 0.0], [-1.0, 0.1]], [[0.0, 0.0], [-1.0, -1.0]]])[None]
    assert_close(pool_positive_cells(cells, masks), torch.tensor([[[2.5], [0.0]]]))


def test_pooling_of_large_masks_does_not_overflow_in_half_precision() -> None:
    cells = torch.full((1, 1, 300, 300), 2.0, dtype=torch.float16)
    assert pool_positive_cells(cells, torch.ones(1, 1, 300, 300)).item() == 2.0


def test_feature_maps_of_other_channels_are_an_error() -> None:
    maps, mask_features = features(OPTIONS)
    with pytest.raises(ValueError, match=r"expects feature maps of \[16, 16, 16\] channels"):
        closed_decoder(OPTIONS)(maps[:2], mask_features)


def test_mask_features_of_other_channels_are_an_error() -> None:
    maps, mask_features = features(OPTIONS)
    with pytest.raises(ValueError, match=r"mask features of 16 channels, found .* and 8"):
        closed_decoder(OPTIONS)(maps, mask_features[:, :8])


def test_an_open_decoder_needs_mask_features_of_its_own_width() -> None:
    with pytest.raises(ValueError, match=r"MASK_DIM \(8\) and .*HIDDEN_DIM \(16\) must be equal"):
        open_decoder(replace(OPTIONS, mask_dim=8))
