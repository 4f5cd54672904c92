"""Heads of Mask2Former and FC-CLIP compute what the published ones compute, under their names."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from maskclippp.generators.checkpoints import load_head
from maskclippp.generators.mask2former.class_heads import (
    ClosedVocabularyDecoder,
    OpenVocabularyDecoder,
)
from maskclippp.generators.mask2former.pixel_decoder import MSDeformAttnPixelDecoder
from maskclippp.generators.mask2former.transformer_decoder import (
    DecoderOptions,
    MaskedAttentionDecoder,
    MaskPredictions,
)
from tests.golden_cases import COMPACT_COPY, GoldenCase, cases, golden_root

HEADS = cases("mask2former_head", "fcclip_head")
PREDICTOR_PREFIX = "sem_seg_head.predictor."
VOID = "void_embedding.weight"


def inventories() -> list[Path]:
    """Key lists of the published mask generators."""
    pattern = "checkpoint_keys/maskgenerator__*.json.gz"
    return sorted(golden_root().glob(pattern)) or sorted(COMPACT_COPY.glob(pattern))


def build_pixel_decoder(case: GoldenCase, features: dict[str, Tensor]) -> MSDeformAttnPixelDecoder:
    config = case.info["config"]
    finest_first = sorted(features, key=lambda name: -features[name].shape[-1])
    return MSDeformAttnPixelDecoder(
        channels={name: feature.shape[1] for name, feature in features.items()},
        strides={name: 4 * 2**index for index, name in enumerate(finest_first)},
        transformer_in_features=config["encoder_levels"],
        conv_dim=config["conv_dim"],
        mask_dim=config["mask_dim"],
        norm=config["norm"],
        num_layers=config["enc_layers"],
        num_heads=config["heads"],
        feedforward_dim=config["enc_ffn"],
    )


def build_decoder(case: GoldenCase) -> MaskedAttentionDecoder:
    config = case.info["config"]
    options = DecoderOptions(
        input_dim=config["conv_dim"],
        hidden_dim=config["hidden"],
        mask_dim=config["mask_dim"],
        num_queries=config["queries"],
        num_layers=config["dec_layers"] - 1,
        num_heads=config["heads"],
        feedforward_dim=config["ffn"],
        pre_norm=config["pre_norm"],
        enforce_input_projection=config["enforce"],
        num_levels=len(config["encoder_levels"]),
    )
    if VOID in case.tensors("weights"):
        return OpenVocabularyDecoder(options=options, embedding_dim=config["D"])
    return ClosedVocabularyDecoder(options=options, num_classes=config["num_classes"])


def class_logits(
    decoder: MaskedAttentionDecoder, predictions: MaskPredictions, case: GoldenCase
) -> Tensor:
    """Logits over the case's classes and void, whatever the vocabulary."""
    if not isinstance(decoder, OpenVocabularyDecoder):
        return predictions.classes
    inputs = case.tensors("inputs")
    num_synonyms = inputs["num_synonyms"]
    classes = torch.arange(len(num_synonyms)).repeat_interleave(num_synonyms)
    return decoder.class_logits(
        predictions.classes,
        inputs["test_t_embs_f"],
        case.tensors("weights")[VOID],
        classes,
        len(num_synonyms),
    )


def load_weights(parts: dict[str, nn.Module], case: GoldenCase, folder: Path) -> None:
    """Load the case's weights as a generator's are, so that its old key names are known too."""
    weights, file = case.tensors("weights"), folder / "weights.safetensors"
    save_file(weights, file)
    if VOID in weights:
        parts = {**parts, "void_embedding": nn.Embedding(*weights[VOID].shape)}
    load_head(parts, CfgNode({"PRETRAINED": str(file), "NAME": str(case)}))


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_head(case: GoldenCase, tmp_path: Path) -> None:
    check = case.tolerance
    features = {
        name.removeprefix("feature/"): value
        for name, value in case.tensors("inputs").items()
        if name.startswith("feature/")
    }
    decoder = build_decoder(case)
    pixel_decoder = build_pixel_decoder(case, features).eval()
    load_weights({"pixel_decoder": pixel_decoder, "predictor": decoder.eval()}, case, tmp_path)

    inside: list[Tensor] = []
    for layer in decoder.transformer_cross_attention_layers:
        layer.register_forward_pre_hook(lambda _, arguments: inside.append(arguments[-1]))
    with torch.no_grad():
        pixels = pixel_decoder(features)
        predictions = decoder(
            pixels.multi_scale_features, pixels.mask_features, with_intermediate=True
        )
        logits = class_logits(decoder, predictions, case)

    found = {"pred_masks": predictions.masks.sigmoid(), "pred_logits": logits}
    for index, prediction in enumerate([*predictions.intermediate, predictions]):
        found[f"layer{index}/mask_logits"] = prediction.masks
    for index, cells in enumerate(inside):
        found[f"layer{index}/blocked"] = ~cells
    expected = case.tensors("outputs")
    assert {"pred_masks", "pred_logits"} <= set(expected) <= set(found)
    for name, value in expected.items():
        assert_close(found[name], value, **check, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("path", inventories(), ids=lambda path: path.name.split(".")[0])
def test_decoder_has_the_parameters_of_the_published_file(path: Path) -> None:
    keys = json.loads(gzip.decompress(path.read_bytes()))["consumed_by_segmentor"]
    published = {
        key.removeprefix(PREDICTOR_PREFIX): shape
        for key, shape in keys.items()
        if key.startswith(PREDICTOR_PREFIX)
    }
    if "static_query.weight" in published:  # as load_head reads them
        published["query_feat.weight"] = published.pop("static_query.weight")
    num_queries, hidden_dim = published["query_feat.weight"]
    layers = {key.split(".")[1] for key in published if key.startswith("transformer_ffn_layers.")}
    options = DecoderOptions(
        input_dim=published.get("input_proj.0.weight", [0, hidden_dim])[1],
        hidden_dim=hidden_dim,
        mask_dim=published["mask_embed.layers.2.weight"][0],
        num_queries=num_queries,
        num_layers=len(layers),
        num_heads=8,
        feedforward_dim=published["transformer_ffn_layers.0.linear1.weight"][0],
        num_levels=published["level_embed.weight"][0],
    )
    decoder: MaskedAttentionDecoder
    with torch.device("meta"):
        if VOID in keys:
            decoder = OpenVocabularyDecoder(options=options, embedding_dim=keys[VOID][1])
        else:
            num_classes = published["class_embed.bias"][0] - 1
            decoder = ClosedVocabularyDecoder(options=options, num_classes=num_classes)
        weights = {key: torch.empty(shape) for key, shape in published.items()}
    decoder.load_state_dict(weights)
