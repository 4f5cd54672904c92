"""The training loss of mask generators: queries are matched to segments, then supervised.

Set prediction of DETR (arXiv 2005.12872) with masks in place of boxes, as in MaskFormer
(arXiv 2107.06278) and with the weights of Mask2Former (arXiv 2112.01527, section 4.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """What is annotated in one image, on the grid of the predicted masks.

    Attributes:
        masks: float [N, h, w], which share of a cell is the segment's.
        labels: int64 [N], classes.
    """

    masks: Tensor
    labels: Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts; ``no_object`` of the queries that are to say void."""

    classification: float = 2.0
    cross_entropy: float = 5.0
    dice: float = 5.0
    no_object: float = 0.1


def set_loss(
    class_logits: Tensor, mask_logits: Tensor, targets: Sequence[Segments], weights: LossWeights
) -> Tensor:
    """The loss of Q predictions per image, whatever their order.

    Args:
        class_logits: [B, Q, K + 1], void last.
        mask_logits: [B, Q, h, w].
        targets: per image, at most Q segments.
        weights: of the parts, in the matching too.

    Returns:
        A scalar: classification is a weighted mean over queries, masks a mean over segments.
    """
    void = class_logits.shape[-1] - 1
    classes = torch.full(class_logits.shape[:2], void, device=class_logits.device)
    predicted, targeted = [], []
    for image, target in enumerate(targets):
        masks, target_masks = mask_logits[image].flatten(1), target.masks.flatten(1)
        queries, segments = _match(class_logits[image], masks, target_masks, target.labels, weights)
        classes[image, queries] = target.labels[segments]
        predicted.append(masks[queries])
        targeted.append(target_masks[segments])
    masks, target_masks = torch.cat(predicted), torch.cat(targeted)
    of_masks = weights.cross_entropy * F.binary_cross_entropy_with_logits(
        masks, target_masks, reduction="none"
    ).mean(dim=1) + weights.dice * dice_loss(masks, target_masks)
    of_classes = _classification_loss(class_logits, classes, weights.no_object)
    return weights.classification * of_classes + of_masks.sum() / max(len(masks), 1)


def dice_loss(masks: Tensor, target_masks: Tensor) -> Tensor:
    """1 - 2 |p t| / (|p| + |t|) of probabilities p, smoothed by 1 (V-Net, arXiv 1606.04797).

    Args:
        masks: logits [N, P].
        target_masks: [N, P] in [0, 1].

    Returns:
        [N].
    """
    p = masks.sigmoid()
    return 1 - (2 * (p * target_masks).sum(1) + 1) / (p.sum(1) + target_masks.sum(1) + 1)


@torch.no_grad()
def matching_costs(
    class_logits: Tensor,
    masks: Tensor,
    target_masks: Tensor,
    labels: Tensor,
    weights: LossWeights,
) -> Tensor:
    """What it would cost to give segment n to query q: [Q, N].

    The parts are those of the loss, but the class counts by its probability. Args: logits
    [Q, K + 1] and [Q, P], shares [N, P], labels [N].
    """
    p = masks.sigmoid()
    # -t log(s) - (1 - t) log(1 - s) = softplus(x) - t x for s = sigmoid(x)
    cross_entropy = F.softplus(masks).mean(1)[:, None] - masks @ target_masks.T / masks.shape[1]
    dice = 1 - (2 * p @ target_masks.T + 1) / (p.sum(1)[:, None] + target_masks.sum(1) + 1)
    probability = class_logits.softmax(-1)[:, labels]
    return (
        weights.cross_entropy * cross_entropy
        + weights.dice * dice
        - weights.classification * probability
    )


def _match(
    class_logits: Tensor, masks: Tensor, target_masks: Tensor, labels: Tensor, weights: LossWeights
) -> tuple[Tensor, Tensor]:
    """One query for each segment so that the costs are least: indices [N] of both."""
    costs = matching_costs(class_logits, masks, target_masks, labels, weights)
    queries, segments = linear_sum_assignment(costs.cpu().numpy())
    return torch.from_numpy(queries), torch.from_numpy(segments)


def _classification_loss(logits: Tensor, classes: Tensor, no_object: float) -> Tensor:
    """Cross entropy over queries; those for void weigh less."""
    weights = logits.new_ones(logits.shape[-1])
    weights[-1] = no_object
    return F.cross_entropy(logits.flatten(0, 1), classes.flatten(), weights)
