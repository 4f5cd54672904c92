"""The straightforward formulation of what the package computes fast, to compare with.

Every function follows the formula in the paper literally: full-length sentences, Python loops over
classes, masks and images, score maps of every class at the output size. Nothing here is fast or
sparing of memory; that is its purpose.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskclippp.alignment import LinearPSM
from maskclippp.clip import TextTower
from maskclippp.clip.mask_tokens import MaskTokenEncoder
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.words.vocabulary import Vocabulary


def text_embeddings(
    tower: TextTower, templates: Sequence[str], names: Sequence[str], chunk_size: int = 512
) -> Tensor:
    """[Ka, T, D]: every sentence in its order, with all tokens of the context length."""
    sentences = [template.format(name) for name in names for template in templates]
    tokens = tower.tokenize(sentences)
    chunks = [
        tower.encode_tokens(tokens[start : start + chunk_size].to(tower.device))
        for start in range(0, len(tokens), chunk_size)
    ]
    embeddings = torch.cat(chunks)
    embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
    return embeddings.view(len(names), len(templates), -1)


def class_logits(name_logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """[N, Ka (+ 1)] -> [N, K (+ 1)]: maximum over the synonyms of one class after the other."""
    columns, start = [], 0
    for count in vocabulary.num_synonyms:
        columns.append(name_logits[:, start : start + count].max(dim=1).values)
        start += count
    return torch.cat([torch.stack(columns, dim=1), name_logits[:, start:]], dim=1)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, not corner-aligned: [N, h, w] -> float [N, H, W]."""
    resized = [
        F.interpolate(one[None, None].float(), size=size, mode="bilinear")[0, 0] for one in maps
    ]
    return torch.stack(resized) if resized else torch.zeros(0, *size, device=maps.device)


def probabilities(logits: Tensor, num_classes: int) -> Tensor:
    """[Q, K]: softmax over all columns, void included, which is then dropped."""
    return logits.softmax(dim=1)[:, :num_classes]


def semantic_scores(
    masks: Tensor, logits: Tensor, num_classes: int, size: tuple[int, int]
) -> Tensor:
    """[K, H, W]: one score map after the other, each resized to the output size."""
    chances, flat = probabilities(logits, num_classes), masks.float().flatten(1)
    maps = []
    for index in range(num_classes):
        score = (chances[:, index] @ flat).view(1, *masks.shape[-2:])
        maps.append(resize(score, size)[0])
    return torch.stack(maps)


def semantic_labels(
    masks: Tensor, logits: Tensor, num_classes: int, size: tuple[int, int]
) -> Tensor:
    """[H, W]: the best class of every pixel."""
    return semantic_scores(masks, logits, num_classes, size).argmax(dim=0)


def panoptic_segmentation(
    masks: Tensor,
    logits: Tensor,
    num_classes: int,
    size: tuple[int, int],
    object_mask_threshold: float,
    overlap_threshold: float,
    thing_classes: frozenset[int],
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Id map [H, W] and segments; the masks are judged one by one."""
    chances = logits.softmax(dim=1)
    competing = [
        index
        for index, row in enumerate(chances)
        if row.argmax().item() < num_classes and row.max().item() > object_mask_threshold
    ]
    ids = torch.zeros(size, dtype=torch.int32, device=masks.device)
    segments: list[dict[str, Any]] = []
    if not competing:
        return ids, segments
    resized = resize(masks[competing], size)
    scores = torch.stack(
        [chances[index].max() * mask for index, mask in zip(competing, resized, strict=True)]
    )
    winner = scores.argmax(dim=0)
    stuff: dict[int, int] = {}
    for position, index in enumerate(competing):
        won, solid = winner == position, resized[position] >= 0.5
        if not (won.any().item() and solid.any().item() and (won & solid).any().item()):
            continue
        if won.sum().item() / solid.sum().item() < overlap_threshold:
            continue
        label = int(chances[index].argmax().item())
        if label not in thing_classes and label in stuff:
            ids[won & solid] = stuff[label]
            continue
        number = len(segments) + 1
        ids[won & solid] = number
        segments.append({"id": number, "isthing": label in thing_classes, "category_id": label})
        if label not in thing_classes:
            stuff[label] = number
    return ids, segments


def instance_segmentation(
    masks: Tensor,
    logits: Tensor,
    num_classes: int,
    size: tuple[int, int],
    max_instances: int,
    classes: frozenset[int] | None = None,
) -> list[dict[str, Any]]:
    """The best pairs of mask and class: ``mask``, ``box``, ``class``, ``score`` of each."""
    chances = probabilities(logits, num_classes)
    pairs = [(q, c) for q in range(len(masks)) for c in range(num_classes)]
    pairs.sort(key=lambda pair: -chances[pair].item())
    resized = resize(masks, size)
    found = []
    for q, c in pairs[:max_instances]:
        if classes is not None and c not in classes:
            continue
        solid = resized[q] > 0.5
        quality = (resized[q] * solid).sum() / (solid.sum() + 1e-6)
        score = (chances[q, c] * quality).item()
        found.append({"mask": solid, "box": box(solid), "class": c, "score": score})
    return sorted(found, key=lambda instance: -instance["score"])


def box(mask: Tensor) -> list[int]:
    """x1, y1, x2, y2 of a bool [H, W] mask, the latter two exclusive; zeros when empty."""
    rows, columns = mask.nonzero(as_tuple=True)
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [
        int(columns.min()),
        int(rows.min()),
        int(columns.max()) + 1,
        int(rows.max()) + 1,
    ]


def mask_token_bias(masks: Tensor, log_scale: Tensor, threshold: float | None) -> Tensor:
    """Attention bias of the sequence [Q mask tokens, class token, patches] -> [heads, L, L].

    Args:
        masks: of one image, on the feature grid: [Q, h, w].
        log_scale: [heads].
        threshold: a cell is inside a mask above it; None: half of the mask's maximum.
    """
    count, values = len(masks), masks.flatten(1)
    length = count + 1 + values.shape[1]
    limit = values.amax(dim=1, keepdim=True) / 2 if threshold is None else threshold
    bias = torch.zeros(len(log_scale), length, length, device=masks.device)
    bias[:, :, :count] = -torch.inf  # nothing looks at a mask token,
    bias[:, :count, count] = -torch.inf  # which does not look at the class token
    bias[:, :count, count + 1 :] = torch.where(
        values > limit, values * log_scale.exp()[:, None, None], -100.0
    )
    return bias


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """[B, heads, L, d] with an additive bias [heads, L, L]; all weights are held at once."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + bias
    return logits.softmax(dim=-1) @ value


def fused_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """The same by PyTorch's kernel, which holds the bias but not the weights."""
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias.to(query.dtype).expand(len(query), -1, -1, -1)
    )


def dense_mask_token_blocks(
    encoder: MaskTokenEncoder,
    tokens: Tensor,
    masks: Sequence[Tensor],
    context: Any,
    attention: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = softmax_attention,
) -> tuple[Tensor, Tensor]:
    """All blocks with mask tokens, on one dense sequence per image.

    Args:
        encoder: its weights and settings.
        tokens: [B, 1 + h*w, C], class token first, as they enter block MASK_PRIOR_BEG.
        masks: per image [Q, h, w] on the feature grid; Q may be 0.
        context: what the tower's ``embed`` returned beside the tokens.
        attention: query, key, value, bias -> attended values.

    Returns:
        Mask tokens [N, C] and image tokens [B, 1 + h*w, C] after the last block.
    """
    blocks = list(encoder.blocks())[encoder.first_block - 1 :]
    finished = []
    for image, image_masks in zip(tokens, masks, strict=True):
        count = len(image_masks)
        states = torch.cat([image[:1].expand(count, -1), image])[None]
        for after, block in zip(reversed(range(len(blocks))), blocks, strict=True):
            scale = encoder.mask_logit_scale[after]
            bias = mask_token_bias(image_masks, scale, encoder.settings.threshold)
            # Only the image's tokens have a position.
            of_masks = encoder.tower.project(block, states[:, :count], "qkv", None)
            of_image = encoder.tower.project(block, states[:, count:], "qkv", context)
            pairs = zip(of_masks, of_image, strict=True)
            query, key, value = (torch.cat(pair, dim=2) for pair in pairs)
            states = encoder.tower.finish_block(block, states, attention(query, key, value, bias))
        finished.append(states[0].split([count, len(image)]))
    mask_tokens, image_tokens = zip(*finished, strict=True)
    return torch.cat(mask_tokens), torch.stack(image_tokens)


def linear_psm(correlation: Tensor, inner: nn.Module, outer: nn.Module) -> Tensor:
    """outer(inner(c)) with the N x Ka x width intermediate."""
    return outer(inner(correlation)).squeeze(-1)


def reweighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    image_of_mask: Tensor,
    num_images: int,
    *,
    temperature: float = 1.0,
    balance_cls: bool = False,
    ignore_index: int = -100,
    areas: Tensor | None = None,
) -> Tensor:
    """Image after image, label after label; ``areas``: leave out masks without any."""
    counted = [i for i in range(len(labels)) if areas is None or areas[i] > 0]
    images = [[i for i in counted if image_of_mask[i] == image] for image in range(num_images)]
    images = [members for members in images if members]
    loss = logits.sum() * 0
    for members in images:
        present = {labels[i].item() for i in members}
        for label in present:
            alike = [i for i in members if labels[i].item() == label]
            if label == ignore_index:
                continue
            weight = 1 / (len(present) * len(alike)) if balance_cls else 1 / len(members)
            for i in alike:
                chance = (logits[i] / temperature).softmax(dim=0)[labels[i]]
                loss = loss - weight / len(images) * chance.log()
    return loss


def training_loss(model: MaskCLIPpp, records: Sequence[dict[str, Any]], text: Tensor) -> Tensor:
    """The loss of a batch of annotated masks, from text embeddings [K, T, D]."""
    masks = [SoftMasks(record["instances"].gt_masks) for record in records]
    labels = torch.cat([record["instances"].gt_classes for record in records]).to(text.device)
    encoded = model.visual_encoder([record["image"] for record in records], masks)
    assert encoded.mask_embeddings is not None
    embeddings = encoded.mask_embeddings
    embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
    correlation = torch.einsum("nd,ktd->nkt", embeddings, text.to(embeddings.dtype))
    if model.logit_scale is not None:
        correlation = correlation * model.logit_scale.exp().clamp(max=100)
    if isinstance(model.psm, LinearPSM):
        logits = linear_psm(correlation, model.psm.corr_proj_in, model.psm.corr_proj_out)
    else:
        logits = model.psm(correlation, encoded, text)
    return reweighted_cross_entropy(
        logits,
        labels,
        encoded.batch.image_of_mask,
        len(records),
        temperature=model.criterion.temperature,
        balance_cls=model.criterion.balance_cls,
        ignore_index=model.criterion.ignore_index,
        areas=encoded.mask_areas if model.criterion.ignore_empty else None,
    )
