"""``benchmarks.run`` on the decoders of mask generators, on feature maps of any image size."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from benchmarks.workload import OURS, Bench, Row, make_vocabulary, times
from maskclippp.clip.visual_encoder import FeatureShape
from maskclippp.errors import InputError
from maskclippp.generators.base import build_generator
from maskclippp.generators.fcclip import FCCLIPSegmentor
from maskclippp.generators.mask2former.deformable_attention import MultiScaleDeformableAttention
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor

Shapes = Mapping[str, FeatureShape]


def build_decoders(cfg: CfgNode) -> tuple[MaskTransformerSegmentor, dict[str, FeatureShape]]:
    """The generator of a complete config, and the feature maps that its decoders read.

    Raises:
        InputError: a generator that decodes no feature maps.
    """
    node = cfg.MODEL.MASKCLIPPP
    generator = build_generator(cfg)
    if not isinstance(generator, MaskTransformerSegmentor):
        raise InputError(
            f"decoder, pixeldecoder: {node.SEGMENTOR.NAME} decodes no feature maps; take the "
            "--config-file of a trained generator (configs/**/fcclip-*, maft-*, m2f-*)"
        )
    shapes = generator.encoder.feature_shapes()
    return generator, {name: shapes[name] for name in node.SEGMENTOR.IN_FEATURES}


def pixel_decoder(
    bench: Bench, generator: MaskTransformerSegmentor, shapes: Shapes
) -> Iterator[Row]:
    """Feature maps -> mask features and maps for the transformer decoder."""
    module, features = generator.pixel_decoder, _random_features(bench, shapes)
    _spread_samples(module)
    plain: Any = _plain(bench, "benchmarks.plain.pixel_decoder")

    def ours() -> list[Tensor]:
        output = module(features)
        return [output.mask_features, *output.multi_scale_features]

    def plainly() -> list[Tensor]:
        mask_features, maps = plain.decode(module, features)
        return [mask_features, *maps]

    runs = bench.compare(_without_gradients(ours), _without_gradients(plainly), _maps_agree)
    layers = f"{len(module.transformer.encoder.layers)} layers"
    yield _row(bench, "pixeldecoder", layers, runs)


def decoder(bench: Bench, generator: MaskTransformerSegmentor, shapes: Shapes) -> Iterator[Row]:
    """Queries -> masks and class logits, from what the pixel decoder makes of random maps."""
    work, predictor = bench.work, generator.predictor
    vocabulary = make_vocabulary(work.classes)
    generator.set_vocabulary(vocabulary)
    decoded = _without_gradients(generator.pixel_decoder)(_random_features(bench, shapes))
    inputs = decoded.multi_scale_features, decoded.mask_features
    plain: Any = _plain(bench, "benchmarks.plain.decoder")

    def ours() -> tuple[Tensor, Tensor]:
        with bench.autocast():
            predictions = predictor(*inputs)
            logits = generator.class_logits(predictions.classes)
        assert logits is not None
        return predictions.masks, logits

    def plainly() -> tuple[Tensor, Tensor]:
        if isinstance(generator, FCCLIPSegmentor):
            text, void = generator._text, generator.void_embedding.weight
            classify = plain.open_logits(predictor, text, void, vocabulary.num_synonyms)
        else:
            classify = plain.closed_logits(predictor)
        with bench.autocast():
            last: tuple[Tensor, Tensor] = plain.decode(predictor, *inputs, classify)[-1]
        return last

    runs = bench.compare(_without_gradients(ours), _without_gradients(plainly), _decoders_agree)
    options = predictor.options
    classes = runs[OURS].result[1].shape[-1] - 1
    what = f"{options.num_layers} layers, {options.num_queries} queries, {classes} classes"
    yield _row(bench, "decoder", what, runs)


def _row(bench: Bench, part: str, what: str, runs: Any) -> Row:
    work = bench.work
    size = f"{work.batch_size} x {times(work.generator_size)}"
    return Row(part, f"{size}, {what}", work.batch_size, "images", runs)


def _plain(bench: Bench, module: str) -> Any:
    return importlib.import_module(module) if bench.plain is not None else None


def _without_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.no_grad()(function)


def _random_features(bench: Bench, shapes: Shapes) -> dict[str, Tensor]:
    """Maps of a batch of images by name."""
    height, width = bench.work.generator_size
    return {
        name: torch.randn(
            bench.work.batch_size,
            shape.channels,
            -(-height // shape.stride),
            -(-width // shape.stride),
            device=bench.device,
        )
        for name, shape in shapes.items()
    }


@torch.no_grad()
def _spread_samples(module: nn.Module) -> None:
    """Let every cell sample at places of its own, as in a trained model, by weights of its own."""
    for attention in module.modules():
        if isinstance(attention, MultiScaleDeformableAttention):
            nn.init.normal_(attention.sampling_offsets.weight, std=0.1)
            nn.init.normal_(attention.attention_weights.weight, std=0.1)


# --------------------------------------------------- when are two results equal


def _maps_agree(ours: list[Tensor], plain: list[Tensor]) -> None:
    for one, other in zip(ours, plain, strict=True):
        _check_difference(one, other, 1e-4)


def _decoders_agree(ours: tuple[Tensor, Tensor], plain: tuple[Tensor, Tensor]) -> None:
    """A cell whose mask logit is 0 up to rounding may be attended to in one of them only."""
    limit = 0.01 if plain[0].dtype == torch.float32 else 0.1
    for one, other in zip(ours, plain, strict=True):
        _check_difference(one, other, limit)


def _check_difference(ours: Tensor, other: Tensor, limit: float) -> None:
    """Compare the length of the difference with that of the other result."""
    difference = ((ours.float() - other.float()).norm() / other.float().norm()).item()
    if not difference <= limit:
        raise AssertionError(f"results differ by {difference:.2%}, at most {limit:.2%} expected")
