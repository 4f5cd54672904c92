"""Image towers, as ``benchmarks.run`` measures them: whole, and their blocks with mask tokens."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Measurement
from benchmarks.workload import (
    OURS,
    Bench,
    Row,
    autocast,
    blobs,
    embeddings_agree,
    random_image,
    times,
)
from maskclippp.clip import EncodedImages, VisualEncoder
from maskclippp.clip.mask_attention import attend_to_masks, mask_attention_bias
from maskclippp.clip.mask_tokens import MaskTokenEncoder
from maskclippp.errors import InputError
from maskclippp.masks.soft_masks import SoftMasks

# Ways to run an encoder; all but the first two are backends of torch.compile.
VARIANTS = ("bfloat16", "channels_last", *torch.compiler.list_backends(exclude_tags=()))


def encoder(
    bench: Bench, tower: VisualEncoder, parameters: dict[str, float], variants: Sequence[str] = ()
) -> Iterator[Row]:
    """Mask embeddings of a batch.

    Args:
        tower: the encoder.
        parameters: what the model consists of, for the report.
        variants: other ways to run the same encoder, from ``VARIANTS``.
    """
    work = bench.work
    tower.eval()
    images = [random_image(work.image_size) for _ in range(work.batch_size)]
    masks = [SoftMasks(bench.generated_masks()) for _ in images]
    masks[0].values[0] = 1  # its area is the number of cells

    @torch.no_grad()
    def encode(module: VisualEncoder, dtype: torch.dtype) -> EncodedImages:
        with autocast(bench.device, dtype):
            encoded: EncodedImages = module(images, masks)
        return encoded

    others: dict[str, Callable[[], Any]] = {}
    for variant in variants:
        module, dtype = _vary(tower, variant, work.dtype)
        others[variant] = partial(encode, module, dtype)
        others[variant]()  # what compilation takes is not measured
    runs = bench.compare(lambda: encode(tower, work.dtype), agree=_mask_embeddings_agree, **others)
    size, grid = _input_size(runs[OURS].result)
    yield Row(
        "encoder",
        f"{len(images)} x {times(size)}, {times(grid)} cells, {work.masks} masks",
        len(images),
        "images",
        runs,
        {"parameters_millions": parameters, "input_size": size, "grid": grid},
    )


def _vary(
    tower: VisualEncoder, variant: str, dtype: torch.dtype
) -> tuple[VisualEncoder, torch.dtype]:
    """The encoder and the dtype of a variant."""
    if variant == "bfloat16":
        return tower, torch.bfloat16
    changed = copy.deepcopy(tower)
    if variant == "channels_last":
        return changed.to(memory_format=torch.channels_last), dtype
    for block in changed.blocks():
        block.compile(backend=variant)
    return changed, dtype


def _input_size(encoded: EncodedImages) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels and cells of the padded batch, whose first mask covers the first image."""
    assert encoded.mask_areas is not None
    height, width = encoded.batch.image_sizes[0]
    stride = round((height * width / encoded.mask_areas[0].item()) ** 0.5)
    rows, columns = encoded.batch.images.shape[-2:]
    return (rows, columns), (rows // stride, columns // stride)


def _mask_embeddings_agree(ours: EncodedImages, other: EncodedImages) -> None:
    assert ours.mask_embeddings is not None
    assert other.mask_embeddings is not None
    _rows_agree(ours.mask_embeddings, other.mask_embeddings)


def mask_tokens(bench: Bench, tower: VisualEncoder) -> Iterator[Row]:
    """The blocks with mask tokens, and the attention of one, against one dense sequence.

    The first measures what a model gains, the last block's omission of the image's tokens
    included; the second the attention alone, from its projected queries, keys and values, with the
    bias that it needs.

    Raises:
        ValueError: an encoder without mask tokens.
    """
    if not isinstance(tower, MaskTokenEncoder):
        raise InputError(
            f"masktokens: {type(tower).__name__} has no mask tokens; take the --config-file of an "
            "EVACLIPViT or a CLIPViT"
        )
    tower.eval()
    grid = bench.work.grid
    pixels = grid[0] * tower.tower.stride, grid[1] * tower.tower.stride
    masks = blobs(bench.work.masks, grid).to(bench.device)
    with torch.no_grad(), bench.autocast():
        tokens, context = tower.tower.embed(torch.randn(1, 3, *pixels, device=bench.device))
    inputs = (bench, tower, tokens, masks, context)
    measured = {
        f"blocks {tower.first_block} to {tower.depth}": _blocks(*inputs),
        "attention and bias of one block": _attention(*inputs),
    }
    for what, runs in measured.items():
        size = f"{times(grid)} cells, {len(masks)} masks"
        yield Row("masktokens", f"{what}, {size}", 1, "images", runs)


def _blocks(
    bench: Bench, tower: MaskTokenEncoder, tokens: Tensor, masks: Tensor, context: Any
) -> dict[str, Measurement]:
    plain: Any = bench.plain

    def ours() -> Tensor:
        image, on_masks = tokens, tokens[:, :1].expand(-1, len(masks), -1)
        for number, block in enumerate(tower.blocks(), start=1):
            after = tower.depth - number
            if number >= tower.first_block:
                image, on_masks = tower._run_block_with_masks(
                    *(block, image, on_masks, context),
                    masks=masks,
                    masks_per_image=[len(masks)],
                    log_scale=tower.mask_logit_scale[after],
                    update_image=after > 0,
                )
        return tower._embed(on_masks[0])

    def dense(attention: Any) -> Tensor:
        on_masks, _ = plain.dense_mask_token_blocks(tower, tokens, [masks], context, attention)
        return tower._embed(on_masks)

    return _against_dense(bench, ours, dense)


def _attention(
    bench: Bench, tower: MaskTokenEncoder, tokens: Tensor, masks: Tensor, context: Any
) -> dict[str, Measurement]:
    plain: Any = bench.plain
    block = list(tower.blocks())[tower.first_block - 1]
    scale, threshold = tower.mask_logit_scale[-1], tower.settings.threshold
    with torch.no_grad(), bench.autocast():
        start = tokens[:, :1].expand(-1, len(masks), -1)
        of_masks = tower.tower.project(block, start, "qkv", None)
        of_image = tower.tower.project(block, tokens, "qkv", context)
        sequence = [torch.cat(pair, dim=2) for pair in zip(of_masks, of_image, strict=True)]
    query, key, value = of_image

    def ours() -> Tensor:
        bias = mask_attention_bias(masks, scale, threshold)
        cells = key[:, :, 1:], value[:, :, 1:]
        attended = attend_to_masks(of_masks[0], *cells, bias, [len(masks)])
        return torch.cat([attended, F.scaled_dot_product_attention(query, key, value)], dim=2)

    def dense(attention: Any) -> Tensor:
        attended: Tensor = attention(*sequence, plain.mask_token_bias(masks, scale, threshold))
        return attended

    return _against_dense(bench, ours, dense)


def _against_dense(
    bench: Bench, ours: Callable[[], Tensor], dense: Callable[[Any], Tensor]
) -> dict[str, Measurement]:
    """Measure ours and, if comparison is asked for, dense attention, plain and by a kernel."""

    @torch.no_grad()
    def run(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        with bench.autocast():
            return function(*arguments).float()

    if bench.plain is None:
        return bench.compare(lambda: run(ours))
    plain: Any = bench.plain
    return bench.compare(
        lambda: run(ours),
        lambda: run(dense, plain.softmax_attention),
        embeddings_agree if bench.work.dtype == torch.float32 else _rows_agree,
        dense_fused=lambda: run(dense, plain.fused_attention),
    )


def _rows_agree(ours: Tensor, other: Tensor) -> None:
    """Reduced precision may turn an embedding by 8 degrees."""
    cosine = F.cosine_similarity(ours.float(), other.float(), dim=-1)
    if not cosine.min() > 0.99:
        raise AssertionError(f"embeddings differ: least cosine {cosine.min().item():.3f}")
