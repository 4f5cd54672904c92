"""A mask generator together with its own encoder: images in, masks out."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from maskclippp.clip.convnext import DummyVisualEncoder
from maskclippp.clip.visual_encoder import VisualEncoder, build_visual_encoder
from maskclippp.generators.base import (
    GeneratedMasks,
    MaskGenerator,
    build_generator,
    check_generator,
    find_generator,
)
from maskclippp.words.vocabulary import Vocabulary


class MaskSource(nn.Module):
    """Where the masks of evaluation come from; never trained, always in evaluation mode.

    Args:
        generator: finds the masks.
        encoder: of VISUAL_ENCODER_F; None when there is none.
    """

    def __init__(self, generator: MaskGenerator, encoder: VisualEncoder | None = None) -> None:
        super().__init__()
        self.generator = generator
        self.encoder = encoder
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "MaskSource":
        """See ``nn.Module``; stays in evaluation mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> GeneratedMasks:
        """Masks of a batch, as :class:`MaskGenerator`."""
        encoded = None
        if self.encoder is not None:
            encoded = self.encoder([record["image"] for record in batched_inputs])
        generated: GeneratedMasks = self.generator(batched_inputs, encoded)
        return generated

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Say which words a generator that classifies is asked for."""
        self.generator.set_vocabulary(vocabulary)


def build_mask_source(cfg: CfgNode) -> MaskSource:
    """The generator that SEGMENTOR names with the encoder that VISUAL_ENCODER_F names.

    For a generator that reads no feature maps only the input processing of the encoder is built:
    it needs neither weights nor time.

    Raises:
        ValueError, FileNotFoundError: see :func:`check_generator`; before any weights are read.
    """
    check_generator(cfg)
    node = cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER_F
    encoder: VisualEncoder | None = None
    if node.NAME != "none" and find_generator(cfg).reads_features:
        encoder = build_visual_encoder(node, "VISUAL_ENCODER_F", cfg.MODEL)
    elif node.NAME != "none":
        encoder = DummyVisualEncoder(node)
    return MaskSource(build_generator(cfg, encoder), encoder).to(cfg.MODEL.DEVICE)
