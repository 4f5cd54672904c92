"""From logits per name to logits per class: synonyms, ensemble with the generator, void.

All of it is computed in float32: the constants vanish in half precision.
"""

import torch
from torch import Tensor

EPSILON = 1e-8


def max_over_synonyms(name_logits: Tensor, class_of_synonym: Tensor, num_classes: int) -> Tensor:
    """Best name of every class: [N, Ka] -> [N, K]; a further column (void) is kept as it is.

    Args:
        name_logits: [N, Ka] or [N, Ka + 1].
        class_of_synonym: int64 [Ka], the class of every name.
        num_classes: K.
    """
    num_names = len(class_of_synonym)
    index = class_of_synonym.expand(len(name_logits), -1)
    class_logits = name_logits.new_full((len(name_logits), num_classes), float("-inf"))
    class_logits = class_logits.scatter_reduce(1, index, name_logits[:, :num_names], "amax")
    return torch.cat([class_logits, name_logits[:, num_names:]], dim=1)


def train_to_test_logits(train_logits: Tensor, test_class: Tensor, num_classes: int) -> Tensor:
    """A closed generator's logits in terms of the test classes, without void.

    Every test class takes the mean of the train logits that reach it; the others are 0.

    Args:
        train_logits: [Q, K_train + 1], void last.
        test_class: int64 [K_train + 1] as of ``Vocabulary.class_of_train_class``.
        num_classes: K, also the entry for "no test class".

    Returns:
        float32 [Q, K].
    """
    index = test_class.expand(len(train_logits), -1)
    logits = train_logits.new_zeros(len(train_logits), num_classes + 1, dtype=torch.float32)
    logits = logits.scatter_reduce(1, index, train_logits.float(), "mean", include_self=False)
    return logits[:, :num_classes]


def geometric_ensemble(
    logits: Tensor, generator_logits: Tensor, seen: Tensor, alpha: float, beta: float
) -> Tensor:
    """log(g^(1-a) p^a + 1e-8) per class: a = ``alpha`` for seen classes, ``beta`` for others.

    Args:
        logits: [Q, K] of the mask classifier; p is their softmax.
        generator_logits: [Q, K] of the generator without void; g is their softmax.
        seen: bool [K].
        alpha: weight of the mask classifier for seen classes.
        beta: the same for unseen classes.
    """
    weight = torch.where(seen, alpha, beta)
    ours = logits.float().log_softmax(dim=-1)
    theirs = generator_logits.float().log_softmax(dim=-1)
    # A weight of 0 must give the probability 1, also where the logarithm is -inf.
    ours = torch.where(weight > 0, weight * ours, 0.0)
    theirs = torch.where(weight < 1, (1 - weight) * theirs, 0.0)
    return ((ours + theirs).exp() + EPSILON).log()


def append_void(logits: Tensor, generator_logits: Tensor) -> Tensor:
    """log(cat(softmax(logits) (1 - v), v) + 1e-8) with the generator's void probability v.

    Args:
        logits: [Q, K].
        generator_logits: [Q, K' + 1] original logits of the generator, void last.

    Returns:
        float32 [Q, K + 1].
    """
    void = generator_logits.float().softmax(dim=-1)[:, -1:]
    probabilities = logits.float().softmax(dim=-1)
    return (torch.cat([probabilities * (1 - void), void], dim=-1) + EPSILON).log()
