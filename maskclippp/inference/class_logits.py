"""From logits per name to logits per class: synonyms, ensemble with the generator, void class.

Everything is computed in float32, because the constants underflow in half precision.
"""

import torch
from torch import Tensor

from maskclippp.devices import copied_to
from maskclippp.errors import InputError
from maskclippp.inference.settings import InferenceSettings

EPSILON = 1e-8


def max_over_synonyms(name_logits: Tensor, class_of_synonym: Tensor, num_classes: int) -> Tensor:
    """The best name of every class: [N, Ka] -> [N, K]; an additional void column is kept.

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
    """Map the logits of a closed-vocabulary generator to the test classes, without void.

    A test class gets the mean logit of the training classes that map to it, or 0 if none does.

    Args:
        train_logits: [Q, K_train + 1], void last.
        test_class: int64 [K_train + 1], see ``Vocabulary.class_of_train_class``.
        num_classes: K; in ``test_class`` it stands for "no test class".

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
    """log(g^(1-a) p^a + 1e-8) per class, with a = ``alpha`` for seen classes, else ``beta``.

    Args:
        logits: [Q, K] of the mask classifier, with softmax p.
        generator_logits: [Q, K] of the generator without void, with softmax g.
        seen: bool [K].
        alpha: weight of the mask classifier for seen classes.
        beta: weight of the mask classifier for unseen classes.
    """
    weight = torch.where(seen, alpha, beta)
    ours = logits.float().log_softmax(dim=-1)
    theirs = generator_logits.float().log_softmax(dim=-1)
    # A weight of 0 must give the factor 1 even where the logarithm is -inf.
    ours = torch.where(weight > 0, weight * ours, 0.0)
    theirs = torch.where(weight < 1, (1 - weight) * theirs, 0.0)
    return ((ours + theirs).exp() + EPSILON).log()


def clip_trust(logits: Tensor, weight: float) -> Tensor:
    """float32 [Q, 1]: 1 - w max_k p(k), by which confident masks lower their void probability.

    The generator calls objects void that it was not trained on; CLIP knows some of them (OVRCOAT,
    arXiv 2603.21386).

    Args:
        logits: [Q, K] of the mask classifier, with softmax p.
        weight: w, from 0 to 1.
    """
    return 1 - weight * logits.float().softmax(dim=-1).amax(dim=-1, keepdim=True)


def append_void(
    logits: Tensor, generator_logits: Tensor, void_factor: Tensor | float = 1.0
) -> Tensor:
    """log(cat(softmax(logits) (1 - v), v) + 1e-8) with the generator's void probability v.

    Args:
        logits: [Q, K].
        generator_logits: [Q, K' + 1] original logits of the generator, void last.
        void_factor: [Q, 1], by which v is multiplied first.

    Returns:
        float32 [Q, K + 1].
    """
    void = generator_logits.float().softmax(dim=-1)[:, -1:] * void_factor
    probabilities = logits.float().softmax(dim=-1)
    return (torch.cat([probabilities * (1 - void), void], dim=-1) + EPSILON).log()


def combine_with_generator(
    logits: Tensor,
    generator_logits: Tensor,
    seen: Tensor,
    class_of_train_class: Tensor | None,
    settings: InferenceSettings,
) -> Tensor:
    """Combine the mask classifier with the generator's own classification and its void class.

    Args:
        logits: [Q, K] of the mask classifier.
        generator_logits: [Q, K' + 1], void last.
        seen: bool [K].
        class_of_train_class: for a closed-vocabulary generator, int64 [K_train + 1], see
            ``Vocabulary.class_of_train_class``; void alone: its classes have no names, and there is
            no ensemble; None: the generator classifies into the same K classes.
        settings: whether to form the ensemble, and its weights; the weight of ``clip_trust``.

    Returns:
        float32 [Q, K + 1].

    Raises:
        InputError: the generator has a different number of classes than the training set.
    """
    void_factor = clip_trust(logits, settings.clip_trust_weight)
    unnamed = class_of_train_class is not None and len(class_of_train_class) == 1
    if unnamed or not settings.ensemble_on:
        return append_void(logits, generator_logits, void_factor)
    theirs = generator_logits[:, :-1]
    if class_of_train_class is not None:
        if len(class_of_train_class) != generator_logits.shape[1]:
            raise InputError(
                f"the generator classifies into {theirs.shape[1]} classes, those that it was "
                f"trained on, but DATASETS.TRAIN has {len(class_of_train_class) - 1}; name the "
                "generator's training set there, or set TEST.ENSEMBLE_ON False"
            )
        table = copied_to(class_of_train_class, logits.device)
        theirs = train_to_test_logits(generator_logits, table, logits.shape[1])
    seen = copied_to(seen, logits.device)
    combined = geometric_ensemble(
        logits, theirs, seen, settings.ensemble_alpha, settings.ensemble_beta
    )
    return append_void(combined, generator_logits, void_factor)
