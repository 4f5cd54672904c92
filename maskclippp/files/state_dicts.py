"""How a state dict from a file fits a module: one comparison, then an error or a warning."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from maskclippp.errors import InputError

_SHOWN_PROBLEMS = 10
_SHOWN_KEYS_PER_GROUP = 5
_LEAST_KNOWN = 0.1  # below this share of known keys, problems are not listed one by one


@dataclass(frozen=True)
class Comparison:
    """A state dict compared with the module that it is meant for.

    Attributes:
        fitting: the tensors that fit by key, shape and kind of number.
        missing: keys of the module that the state dict lacks.
        unexpected: keys that the module does not have.
        misshapen: one message per key whose shapes differ, or whose numbers are of another kind:
            integers (quantized weights, without their scale) or complex ones.
    """

    fitting: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]


def compare(state: Mapping[str, Tensor], module: nn.Module) -> Comparison:
    """Compare a state dict with a module by keys, shapes and kinds of numbers."""
    own = module.state_dict()
    problems = {key: _problem(own[key], value) for key, value in state.items() if key in own}
    return Comparison(
        fitting={key: state[key] for key, problem in problems.items() if not problem},
        missing=[key for key in own if key not in state],
        unexpected=[key for key in state if key not in own],
        misshapen=[f"{key}: {problem}" for key, problem in problems.items() if problem],
    )


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """The keys of tensors that contain NaN or infinite numbers."""
    return [key for key, value in state.items() if not _is_finite(value)]


def load_exactly(
    module: nn.Module, state: Mapping[str, Tensor], *, source: str, model_name: str
) -> None:
    """Load a state dict whose keys and shapes must be exactly those of the module.

    Args:
        module: what to load.
        state: its tensors.
        source: where the tensors come from, for messages.
        model_name: what the module belongs to, for messages.

    Raises:
        InputError: keys or shapes disagree; lists them.
    """
    found = compare(state, module)
    problems = [
        *(f"missing {key}" for key in found.missing),
        *(f"unexpected {key}" for key in found.unexpected),
        *found.misshapen,
        *(f"NaN or infinite numbers in {key}" for key in not_finite(found.fitting)),
    ]
    if problems:
        raise InputError(
            f"the weights {source!r} do not fit {model_name!r} "
            f"({len(problems)} disagreements){_describe(problems, module.state_dict(), state)}"
        )
    module.load_state_dict(state)


def describe_shapes(problems: Sequence[str]) -> str:
    """The first of the messages in ``Comparison.misshapen``, and the number of the others."""
    hidden = len(problems) - _SHOWN_KEYS_PER_GROUP
    shown = "; ".join(problems[:_SHOWN_KEYS_PER_GROUP]) or "no keys"
    return shown + (f" and {hidden} more" if hidden > 0 else "")


def describe_keys(keys: Iterable[str]) -> str:
    """State-dict keys grouped by first component: how many, and the first few in full."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        component, _, rest = key.partition(".")
        groups.setdefault(component, []).append(rest or key)
    return "; ".join(_describe_group(*group) for group in groups.items()) or "no keys"


def _problem(own: Tensor, found: Tensor) -> str:
    if own.shape != found.shape:
        return f"expected shape {list(own.shape)}, found {list(found.shape)}"
    if own.is_floating_point() and not found.is_floating_point():
        return f"expected real numbers ({own.dtype}), found {found.dtype}"
    return ""


def _is_finite(value: Tensor) -> bool:
    """The sum, which takes no memory, is enough for nearly all tensors."""
    if value.is_meta or not (value.is_floating_point() or value.is_complex()):
        return True
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def _describe_group(component: str, rests: list[str]) -> str:
    shown = ", ".join(rests[:_SHOWN_KEYS_PER_GROUP])
    hidden = len(rests) - _SHOWN_KEYS_PER_GROUP
    return f"{len(rests)} in {component}: {shown}" + (f" and {hidden} more" if hidden > 0 else "")


def _describe(problems: list[str], own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The first problems; or one line if the file is of another kind of model."""
    known = sum(key in own for key in state)
    if known < _LEAST_KNOWN * len(own):
        return (
            f": only {known} of the model's {len(own)} tensors are in the file, which seems to be "
            f"of another model. It has {_examples(state)}; the model has {_examples(own)}"
        )
    hidden = len(problems) - _SHOWN_PROBLEMS
    shown = [*problems[:_SHOWN_PROBLEMS], *([f"and {hidden} more"] if hidden > 0 else [])]
    return ":\n  " + "\n  ".join(shown)


def _examples(state: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(state)[:3]) + ", ..." if state else "nothing for it"
