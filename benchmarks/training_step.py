"""A training step with annotated masks, as ``benchmarks.run`` measures it."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import Tensor
from torch.testing import assert_close

from benchmarks.model_stages import without_text_towers
from benchmarks.workload import Bench, Row, Workload, autocast, random_image, times
from maskclippp.clip import VisualEncoder, build_visual_encoder, depthwise
from maskclippp.engine.optimizer import build_optimizer
from maskclippp.meta_arch import MaskCLIPpp


def build(cfg: CfgNode) -> MaskCLIPpp:
    """The model of a config; a frozen text tower takes no part in a step, and is replaced."""
    tuned = cfg.MODEL.MASKCLIPPP.TEXT_ENCODER.FINETUNE_TYPE != "none"
    return MaskCLIPpp(cfg if tuned else without_text_towers(cfg)).to(cfg.MODEL.DEVICE)


def train(
    bench: Bench, cfg: CfgNode, model: MaskCLIPpp, variants: Sequence[str] = ()
) -> Iterator[Row]:
    """Forward and backward pass, and the optimizer's step; of the text alone, if it is tuned.

    The published way computes in float32 (here in the workload's dtype), runs the encoder of the
    config's mask generator on every image, and takes PyTorch's own gradients and optimizer.

    Args:
        bench: also compares with the published way.
        cfg: the config of the model.
        model: from :func:`build`.
        variants: bfloat16 also measures a step in this type.
    """
    model, work, plain = model.train(), bench.work, _Plain(bench, cfg, model)
    records = [_train_record(work) for _ in range(work.batch_size)]
    optimizer = _optimizer(cfg, model)

    def step(loss: Callable[[], Tensor], dtype: torch.dtype, *, fused: bool | None) -> Tensor:
        for group in optimizer.param_groups:
            group["fused"] = fused
        found = _backward(bench, loss, dtype)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return found

    def ours(dtype: torch.dtype) -> Tensor:
        return step(lambda: model(records)["loss_ce"], dtype, fused=fused)

    def agree(one: Tensor, other: Tensor) -> None:
        tolerance = 1e-3 if work.dtype == torch.float32 and not others else 5e-2
        assert_close(one.float(), other.float(), rtol=tolerance, atol=tolerance)

    fused = optimizer.param_groups[0]["fused"]
    others = {"bfloat16": lambda: ours(torch.bfloat16)} if "bfloat16" in variants else {}
    runs = bench.compare(
        lambda: ours(work.dtype),
        lambda: step(lambda: plain.loss(records), work.dtype, fused=None),
        agree,
        **others,
    )
    what = f"{work.batch_size} x {times(work.image_size)}, {work.train_masks} masks, AdamW"
    yield Row("train", what, work.batch_size, "images", runs)
    if not model.text_encoder.frozen:
        vocabulary, classifier = plain.vocabulary, model.text_classifier
        runs = bench.compare(
            lambda: _backward(bench, lambda: classifier.sample(vocabulary), work.dtype),
            lambda: _backward(bench, plain.text, work.dtype),
            agree,
        )
        sentences = len(vocabulary) * len(classifier.templates)
        yield Row("train", "text tower alone", sentences, "sentences", runs)


class _Plain:
    """The published way of a step."""

    def __init__(self, bench: Bench, cfg: CfgNode, model: MaskCLIPpp) -> None:
        assert model.train_vocabulary is not None
        self.model, self.vocabulary = model, model.train_vocabulary
        self._plain: Any = bench.plain
        self._generator_encoder: VisualEncoder | None = None
        node = cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER_F
        if bench.plain is not None and node.NAME != "none":
            encoder = build_visual_encoder(node, "VISUAL_ENCODER_F", cfg.MODEL)
            self._generator_encoder = encoder.to(bench.device).eval()
        if model.text_encoder.frozen:
            model.text_classifier.cache = False
            model.text_classifier.sample(self.vocabulary)  # once for the whole training: not timed

    def loss(self, records: Sequence[dict[str, Any]]) -> Tensor:
        """Of a batch, with what the published code computes and throws away."""
        if self._generator_encoder is not None:
            with torch.no_grad():
                self._generator_encoder([record["image"] for record in records])
        # The choice of the backward pass is made in the forward pass.
        with mock.patch.object(depthwise, "FASTER_HERE", False):
            loss: Tensor = self._plain.training_loss(self.model, records, self.text())
        return loss

    def text(self) -> Tensor:
        """[K, T, D] of one random synonym per class."""
        model, vocabulary = self.model, self.vocabulary
        if model.text_encoder.frozen:
            return model.text_classifier.sample(vocabulary)
        names = [vocabulary.synonyms[index] for index in vocabulary.sample_synonyms()]
        templates = model.text_classifier.templates
        found: Tensor = self._plain.text_embeddings(model.text_encoder, templates, names)
        return found


def _backward(bench: Bench, loss: Callable[[], Tensor], dtype: torch.dtype) -> Tensor:
    random.seed(0)  # the same synonyms in every step
    with autocast(bench.device, dtype):
        found = loss()
    found.sum().backward()
    return found.detach()


def _optimizer(cfg: CfgNode, model: MaskCLIPpp) -> torch.optim.Optimizer:
    """With its moments, as after the first step; it leaves the weights as they are."""
    cfg = cfg.clone()
    cfg.SOLVER.BASE_LR = 0.0
    optimizer = build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer


def _train_record(work: Workload) -> dict[str, Any]:
    size, count = work.image_size, work.train_masks
    instances = Instances(size)
    instances.gt_classes = torch.arange(count) % work.classes
    stripe = torch.arange(size[1]) * count // size[1]
    instances.gt_masks = (stripe == torch.arange(count)[:, None, None]).expand(-1, *size)
    return {"image": random_image(size), "instances": instances}
