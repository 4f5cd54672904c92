"""Images to results the published way: the straightforward formulation of a whole model.

Networks and weights are those of a model of the package; what is left out of the published way are
loops over classes and masks, which take no time beside the networks.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.plain import decoder, model, pixel_decoder
from benchmarks.plain.resize_once import ResizedOnce
from maskclippp.alignment import LinearPSM
from maskclippp.clip import EncodedImages
from maskclippp.clip.mask_tokens import MaskTokenEncoder
from maskclippp.generators.fcclip import FCCLIPSegmentor
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from maskclippp.inference.class_logits import combine_with_generator
from maskclippp.masks.batching import PaddedBatch, pad_batch
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.records import Record, output_size

Replace = Callable[[Any, Tensor], Tensor]


@torch.no_grad()
def results(network: MaskCLIPpp, records: Sequence[Record], replace: Replace) -> list[Any]:
    """Per image semantic labels [H, W] and, if the model is asked for them, the other results.

    Args:
        network: a model with a generator that decodes feature maps.
        records: see :meth:`MaskCLIPpp.forward`.
        replace: (name, what was computed) -> what takes its place; the names are ``("masks", 0)``,
            ``("logits", 0)`` and ``("similarities",)``.
    """
    return [_result(network, record, replace) for record in records]


def _result(network: MaskCLIPpp, record: Record, replace: Replace) -> tuple[Any, ...]:
    generator, words = network.mask_generator, network.requested_words
    assert isinstance(generator, MaskTransformerSegmentor)
    generator.set_vocabulary(words.vocabulary)
    encoded = generator.encoder([record["image"]])
    mask_features, maps = pixel_decoder.decode(generator.pixel_decoder, encoded.maps)
    classify = _classify(generator, words.vocabulary.num_synonyms)
    mask_logits, logits = decoder.decode(generator.predictor, maps, mask_features, classify)[-1]
    masks = replace(("masks", 0), mask_logits[0].sigmoid())
    logits = replace(("logits", 0), logits[0])
    padded = _interpolate(masks, encoded.batch.images.shape[-2:])
    height, width = encoded.batch.image_sizes[0]
    masks = padded[:, :height, :width]
    encoded = _encode(network, record["image"], masks)
    assert encoded.mask_embeddings is not None
    text = network.text_classifier.embed_frozen(words.vocabulary.synonyms)
    embeddings = F.normalize(encoded.mask_embeddings, dim=-1)
    similarities = torch.einsum("nd,ktd->nkt", embeddings, text)
    if network.logit_scale is not None:
        similarities = similarities * network.logit_scale.exp().clamp(max=100)
    psm = network.psm
    if isinstance(psm, LinearPSM):
        names = model.linear_psm(similarities, psm.corr_proj_in, psm.corr_proj_out)
    else:
        names = psm(similarities, encoded, text)
    classes = model.class_logits(replace(("similarities",), names), words.vocabulary)
    own = generator.own_classes
    table = None if own is None else words.class_of_own_class(own)
    combined = combine_with_generator(classes, logits, words.seen, table, network.inference)
    return _outputs(network, masks, combined, output_size(record))


def _classify(generator: MaskTransformerSegmentor, num_synonyms: Sequence[int]) -> Any:
    """How every layer of the decoder classifies its masks."""
    if isinstance(generator, FCCLIPSegmentor):
        text, void = generator.text, generator.void_embedding.weight
        assert text is not None
        return decoder.open_logits(generator.predictor, text, void, num_synonyms)  # type: ignore[arg-type]
    return decoder.closed_logits(generator.predictor)  # type: ignore[arg-type]


def _encode(network: MaskCLIPpp, image: Tensor, masks: Tensor) -> EncodedImages:
    """An image and its masks, which are first brought to the size of the encoder's input."""
    encoder = network.visual_encoder
    fmt = encoder.input_format
    batch = pad_batch([image], None, fmt, fmt.test_resize, encoder.device)
    padded_size = batch.images.shape[-2], batch.images.shape[-1]
    size = batch.image_sizes[0]
    resized = _interpolate(masks, size)
    full = F.pad(resized, (0, padded_size[1] - size[1], 0, padded_size[0] - size[0]))
    batch = dataclasses.replace(batch, masks=[SoftMasks(full, Frame(padded_size, size))])
    if isinstance(encoder, MaskTokenEncoder):
        return EncodedImages(batch, _dense_mask_tokens(encoder, batch))
    return encoder.encode(batch, with_masks=True)


def _dense_mask_tokens(encoder: MaskTokenEncoder, batch: PaddedBatch) -> Tensor:
    stride = encoder.tower.stride
    grid = batch.images.shape[-2] // stride, batch.images.shape[-1] // stride
    masks = batch.downsampled_masks(grid, encoder.settings.downsample_method)
    tokens, context = encoder.tower.embed(batch.images)
    for block in list(encoder.blocks())[: encoder.first_block - 1]:
        tokens = encoder.tower.run_block(block, tokens, context)
    mask_tokens, _ = model.dense_mask_token_blocks(encoder, tokens, [masks], context)
    return encoder._embed(mask_tokens)


def _outputs(
    network: MaskCLIPpp, masks: Tensor, logits: Tensor, size: tuple[int, int]
) -> tuple[Any, ...]:
    """Semantic scores alone are summed at the size of the masks, and then resized."""
    settings, things = network.inference, network.requested_words.thing_classes
    if not (settings.panoptic_on or settings.instance_on):
        chances = logits.softmax(dim=1)[:, : len(network.requested_words)]
        scores = torch.einsum("qk,qhw->khw", chances, masks)
        return (_interpolate(scores, size).argmax(dim=0),)
    once = ResizedOnce(masks, logits, size, settings)
    found: list[Any] = [once.semantic_labels()]
    if settings.panoptic_on:
        found.append(once.panoptic_segmentation(things))
    if settings.instance_on:
        found.append(once.instance_segmentation(things if settings.panoptic_on else None))
    return tuple(found)


def _interpolate(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps[None], size=tuple(size), mode="bilinear")[0]
