"""How CLIP compares masks with text: cosine similarity, multiplied by the logit scale."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_LOGIT_SCALE = 100.0


def clamped_scale(logit_scale: Tensor, limit: float = MAX_LOGIT_SCALE) -> Tensor:
    """min(exp(logit_scale), limit); the default limit is that with which CLIP was trained."""
    return logit_scale.exp().clamp(max=limit)


def choose_logit_scale(tower_scale: nn.Parameter, *, used: bool) -> nn.Parameter | None:
    """The trained parameter that scales the similarities; None if they are not scaled.

    It is the text tower's own if the tower trains it, else a copy that is trained by itself.
    Unused, the tower's own is frozen, because it would get no gradient.
    """
    if not used:
        tower_scale.requires_grad_(False)
        return None
    return tower_scale if tower_scale.requires_grad else nn.Parameter(tower_scale.detach().clone())


def similarity(
    mask_embeddings: Tensor,
    text: Tensor,
    logit_scale: Tensor | None = None,
    limit: float = MAX_LOGIT_SCALE,
) -> Tensor:
    """Cosine similarity of N masks with Ka synonyms in T templates.

    The bias that SigLIP adds to its logits is left out: it is the same for all classes, and the
    softmax over classes, which follows, does not change with it.

    Args:
        mask_embeddings: [N, D], of any length.
        text: [Ka, T, D] of length 1.
        logit_scale: logarithm of a factor, clamped as by :func:`clamped_scale`; None for 1.
        limit: of that factor.

    Returns:
        [N, Ka, T], in the precision of ``mask_embeddings``.
    """
    masks = F.normalize(mask_embeddings, dim=-1)
    similarities = torch.einsum("nd,ktd->nkt", masks, text.to(masks.dtype))
    return similarities if logit_scale is None else similarities * clamped_scale(logit_scale, limit)
