"""The interface of text towers, and those of OpenCLIP and EVA-CLIP."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from maskclippp.clip.finetuning import set_trainable
from maskclippp.clip.open_clip_models import load_text_tower, load_tokenizer
from maskclippp.errors import InputError
from maskclippp.registry import TEXT_ENCODER_REGISTRY, get_part


class TextTower(nn.Module, ABC):
    """Sentences in, one embedding each out.

    Attributes:
        logit_scale: the pretrained log of the similarity scale.
        events: counts when weights were loaded, or a tower that is trained entered training mode.
    """

    logit_scale: nn.Parameter
    events: int = 0

    @property
    def revision(self) -> tuple[int, ...]:
        """Differs once embeddings are outdated, also by changes of the weights in place."""
        places = (value for p in self.parameters() for value in (p.data_ptr(), p._version))
        return self.events, *places

    @property
    @abstractmethod
    def architecture(self) -> str:
        """Everything but the weights that determines the embeddings; part of the cache key."""

    @abstractmethod
    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """Token ids int64 [S, L] on the CPU, zero-padded to the context length."""

    @abstractmethod
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Embed token ids [S, L] (L up to the context length) -> [S, D], not normalized."""

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """Embed sentences -> [S, D], not normalized.

        The tower is causal, so tokens after the end-of-text token have no effect: sentences are cut
        to the length of the longest one.
        """
        tokens = self.tokenize(sentences)
        return self.encode_tokens(tokens[:, : int(text_lengths(tokens).max())].to(self.device))

    @property
    def frozen(self) -> bool:
        """No parameter is trained."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.logit_scale.device

    def train(self, mode: bool = True) -> "TextTower":
        """See ``nn.Module``."""
        if mode and not self.frozen:
            self.events += 1
        return super().train(mode)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self.events += 1


def text_lengths(tokens: Tensor) -> Tensor:
    """int64 [S]: number of tokens up to end-of-text (inclusive), which has the largest id."""
    return tokens.argmax(dim=-1) + 1


class CausalTextTower(TextTower):
    """Base of open_clip's text towers; subclasses decide the names of the submodules.

    Args:
        tower: an open_clip ``TextTransformer``: causal, pooling at the end-of-text token.
        logit_scale: the pretrained log of the similarity scale.
        tokenizer: sentences -> token ids [S, context length].
        finetune_type: none | all | attention | proj (final norm, projection, logit scale).
        skip_ln_final: leave out the final LayerNorm.
        gradient_checkpointing: recompute the activations of blocks in the backward pass instead
            of storing them.
    """

    # Which parameters each FINETUNE_TYPE trains, as shell patterns.
    finetuned_patterns: ClassVar[Mapping[str, tuple[str, ...]]]

    @configurable
    def __init__(
        self,
        *,
        tower: TextTransformer,
        logit_scale: Tensor,
        tokenizer: Callable[[list[str]], Tensor],
        finetune_type: str = "none",
        skip_ln_final: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if tower.attn_mask is None or tower.pool_type != "argmax" or tower.cls_emb is not None:
            raise InputError(
                f"{type(self).__name__} needs a causal text tower that pools at the end-of-text "
                "token; this open_clip model has another one. Check TEXT_ENCODER.MODEL_NAME"
            )
        if skip_ln_final:
            tower.ln_final = nn.Identity()
        tower.set_grad_checkpointing(gradient_checkpointing)
        self._keep(tower)
        self.logit_scale = nn.Parameter(logit_scale.detach().clone())
        self._tokenizer = tokenizer
        set_trainable(self, finetune_type, self.finetuned_patterns, type(self).__name__)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from a TEXT_ENCODER config node; loads the pretrained weights."""
        tower, logit_scale = load_text_tower(cfg)
        return {
            "tower": tower,
            "logit_scale": logit_scale,
            "tokenizer": load_tokenizer(cfg.MODEL_NAME),
            "finetune_type": cfg.FINETUNE_TYPE,
            "skip_ln_final": cfg.SKIP_LN_FINAL,
            "gradient_checkpointing": cfg.GRADIENT_CHECKPOINTING,
        }

    @abstractmethod
    def _keep(self, tower: TextTransformer) -> None:
        """Register the parts of the tower under the names of published checkpoints."""

    @property
    @abstractmethod
    def _parts(self) -> Any:
        """The module whose attributes are named as in a ``TextTransformer``."""

    @property
    def architecture(self) -> str:
        """See :class:`TextTower`; the repr of a module lacks the number of heads."""
        heads = [block.attn.num_heads for block in self._parts.transformer.resblocks]
        return f"{self!r} heads {heads}"

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """See :class:`TextTower`."""
        return self._tokenizer(list(sentences))

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """See :class:`TextTower`."""
        parts, length = self._parts, tokens.shape[1]
        mask = parts.attn_mask[:length, :length]
        states = parts.token_embedding(tokens) + parts.positional_embedding[:length]
        states = parts.ln_final(parts.transformer(states, attn_mask=mask))
        pooled = states[torch.arange(len(states), device=states.device), tokens.argmax(dim=-1)]
        projection = parts.text_projection
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection


@TEXT_ENCODER_REGISTRY.register()
class CLIPTextEncoder(CausalTextTower):
    """The text tower of OpenCLIP models.

    Its state dict has the key names of the CLIP model itself (``transformer.*``,
    ``token_embedding.weight``, ``logit_scale``, ...), as in published checkpoints.
    """

    finetuned_patterns: ClassVar = {
        "none": (),
        "all": ("*",),
        "attention": ("positional_embedding", "transformer.resblocks.*.attn.in_proj_*"),
        "proj": ("ln_final.*", "text_projection*", "logit_scale"),
    }

    def _keep(self, tower: TextTransformer) -> None:
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.text_projection = tower.text_projection
        self.register_buffer("attn_mask", tower.attn_mask, persistent=False)

    @property
    def _parts(self) -> Any:
        return self


@TEXT_ENCODER_REGISTRY.register()
class EVACLIPTextEncoder(CausalTextTower):
    """The text tower of EVA-CLIP models.

    Its state dict has the keys ``proxy.*`` and ``logit_scale``, as in published checkpoints.
    Unlike in :class:`CLIPTextEncoder`, FINETUNE_TYPE ``attention`` also trains the LayerNorms and
    MLPs of the blocks, but not the biases of query, key and value.
    """

    finetuned_patterns: ClassVar = {
        "none": (),
        "all": ("*",),
        "attention": (
            "proxy.positional_embedding",
            "proxy.transformer.resblocks.*.attn.in_proj_weight",
            "proxy.transformer.resblocks.*.ln_?.*",
            "proxy.transformer.resblocks.*.mlp.*",
        ),
        "proj": ("proxy.ln_final.*", "proxy.text_projection*", "logit_scale"),
    }

    def _keep(self, tower: TextTransformer) -> None:
        self.proxy = tower

    @property
    def _parts(self) -> Any:
        return self.proxy


def build_text_tower(node: CfgNode, key: str = "TEXT_ENCODER") -> TextTower:
    """Build the tower that a TEXT_ENCODER (or TEXT_ENCODER_F) config node describes."""
    name_key = f"MODEL.MASKCLIPPP.{key}.NAME"
    return get_part(TEXT_ENCODER_REGISTRY, node.NAME, name_key)(node)
