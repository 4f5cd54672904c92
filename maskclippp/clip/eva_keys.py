"""Parameter names of the same network in EVA-CLIP (files, checkpoints) and in timm's ``Eva``.

Models use timm's names internally. State dicts are saved and loaded with EVA-CLIP's names, as in
published checkpoints.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

_Value = TypeVar("_Value")

# (EVA-CLIP, timm): parts of names that differ.
_NORMS = (("attn.inner_attn_ln.", "attn.norm."), ("mlp.ffn_ln.", "mlp.norm."))
# The gated MLP; both call the layers of the plain one (EVA-01) fc1 and fc2.
_GATED_MLP = (("mlp.w1.", "mlp.fc1_g."), ("mlp.w2.", "mlp.fc1_x."), ("mlp.w3.", "mlp.fc2."))
# Biases of separate projections; both call those of a fused one q_bias and v_bias.
_SPLIT_BIASES = (("attn.q_bias", "attn.q_proj.bias"), ("attn.v_bias", "attn.v_proj.bias"))


@dataclass(frozen=True)
class EvaKeys:
    """Translates names for one kind of model.

    Attributes:
        split: query, key and value have separate projections (EVA-02), not a fused one.
        gated: the MLP is gated (EVA-02).
    """

    split: bool
    gated: bool

    @classmethod
    def of_names(cls, names: Collection[str]) -> "EvaKeys":
        """For the model with these parameter names, in either convention."""
        return cls(
            split=any(".attn.q_proj.weight" in name for name in names),
            gated=any(".mlp.w1." in name or ".mlp.fc1_g." in name for name in names),
        )

    @property
    def _pairs(self) -> tuple[tuple[str, str], ...]:
        return _NORMS + self.gated * _GATED_MLP + self.split * _SPLIT_BIASES

    def to_timm(self, name: str) -> str:
        """The name in EVA-CLIP -> timm's."""
        for published, timm in self._pairs:
            name = name.replace(published, timm)
        return name

    def to_published(self, name: str) -> str:
        """The name in timm -> EVA-CLIP's."""
        for published, timm in self._pairs:
            name = name.replace(timm, published)
        return name


def to_timm_keys(state: dict[str, _Value]) -> dict[str, _Value]:
    """State dict of an EVA-CLIP image tower -> the same with timm's names."""
    keys = EvaKeys.of_names(state)
    return {keys.to_timm(name): value for name, value in state.items()}


def to_published_keys(state: dict[str, _Value]) -> dict[str, _Value]:
    """State dict of timm's ``Eva`` -> the same with EVA-CLIP's names."""
    keys = EvaKeys.of_names(state)
    return {keys.to_published(name): value for name, value in state.items()}


def store_by_published_keys(trunk: nn.Module) -> None:
    """Use EVA-CLIP's names in the state dict of a timm ``Eva``, for saving and loading."""
    keys = EvaKeys.of_names([name for name, _ in trunk.named_parameters()])
    place = ""  # prefix of the module in the model that was loaded last

    def rename_saved(
        _module: nn.Module, state: dict[str, _Value], prefix: str, _metadata: object
    ) -> None:
        for name in [name for name in state if name.startswith(prefix)]:
            # Removed and inserted one by one, which keeps their order.
            state[prefix + keys.to_published(name.removeprefix(prefix))] = state.pop(name)

    def rename_loaded(
        _module: nn.Module, state: dict[str, _Value], prefix: str, *_reports: object
    ) -> None:
        nonlocal place
        place = prefix
        for name in [name for name in state if name.startswith(prefix)]:
            state[prefix + keys.to_timm(name.removeprefix(prefix))] = state.pop(name)

    def rename_reported(_module: nn.Module, incompatible: tuple[list[str], list[str]]) -> None:
        for names in incompatible:
            names[:] = [
                keys.to_published(name) if name.startswith(place) else name for name in names
            ]

    trunk.register_state_dict_post_hook(rename_saved)
    trunk.register_load_state_dict_pre_hook(rename_loaded)
    trunk.register_load_state_dict_post_hook(rename_reported)
