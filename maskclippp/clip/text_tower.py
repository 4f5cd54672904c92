"""The interface of text towers, and those of OpenCLIP, EVA-CLIP and Hugging Face."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from open_clip.hf_model import HFTextEncoder as HubTower
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from maskclippp.clip.finetuning import set_trainable
from maskclippp.clip.model_names import model_config, open_clip_name
from maskclippp.clip.open_clip_models import load_text_tower, load_tokenizer, max_logit_scale
from maskclippp.clip.similarity import MAX_LOGIT_SCALE
from maskclippp.errors import InputError
from maskclippp.registry import TEXT_ENCODER_REGISTRY, get_part


class TextTower(nn.Module, ABC):
    """Sentences in, one embedding each out.

    Attributes:
        logit_scale: the pretrained log of the similarity scale.
        max_scale: the limit of that scale while it is trained.
        pad_id: the token that fills sentences up.
        events: counts when weights were loaded, or a tower that is trained entered training mode.
    """

    logit_scale: nn.Parameter
    max_scale: float = MAX_LOGIT_SCALE
    pad_id: int = 0
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
        """Token ids int64 [S, L] on the CPU, padded to the context length."""

    @abstractmethod
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Embed token ids [S, L] (L up to the context length) -> [S, D], not normalized."""

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """Embed sentences -> [S, D], not normalized; tokens without an effect are left out."""
        tokens = self.tokenize(sentences)
        return self.encode_tokens(tokens[:, : int(self.lengths(tokens).max())].to(self.device))

    def lengths(self, tokens: Tensor) -> Tensor:
        """int64 [S]: the tokens, from the first, on which each embedding depends; default: all."""
        return torch.full((len(tokens),), tokens.shape[1])

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


class OpenClipTextTower(TextTower):
    """Base of open_clip's text towers; subclasses decide the names of the submodules.

    The first towers of CLIP are causal and pool at the end of the text, so that what follows has no
    effect. Others attend to the padding, too (SigLIP, MobileCLIP-S, CLIPA), and some pool at the
    last position: they run their whole context.

    Args:
        tower: an open_clip ``TextTransformer``.
        logit_scale: the pretrained log of the similarity scale.
        tokenizer: sentences -> token ids [S, context length].
        max_scale: see :class:`TextTower`.
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
        tower: Any,
        logit_scale: Tensor,
        tokenizer: Callable[[list[str]], Tensor],
        max_scale: float = MAX_LOGIT_SCALE,
        finetune_type: str = "none",
        skip_ln_final: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self._check(tower)
        if skip_ln_final:
            tower.ln_final = nn.Identity()
        if gradient_checkpointing:
            tower.set_grad_checkpointing(True)
        self._keep(tower)
        self.logit_scale = nn.Parameter(logit_scale.detach().clone())
        self.max_scale = max_scale
        self._tokenizer = tokenizer
        of_hub = getattr(tokenizer, "tokenizer", None)
        self.pad_id = getattr(of_hub, "pad_token_id", None) or 0
        set_trainable(self, finetune_type, self.finetuned_patterns, type(self).__name__)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from a TEXT_ENCODER config node; loads the pretrained weights."""
        tower, logit_scale = load_text_tower(cfg)
        return {
            "tower": tower,
            "logit_scale": logit_scale,
            "tokenizer": load_tokenizer(cfg.MODEL_NAME),
            "max_scale": max_logit_scale(cfg.MODEL_NAME),
            "finetune_type": cfg.FINETUNE_TYPE,
            "skip_ln_final": cfg.SKIP_LN_FINAL,
            "gradient_checkpointing": cfg.GRADIENT_CHECKPOINTING,
        }

    def _check(self, tower: Any) -> None:
        """Raise an InputError for a tower that this class cannot run."""
        own = isinstance(tower, TextTransformer)
        if not own or tower.cls_emb is not None or tower.use_pad_mask:
            raise InputError(
                f"{type(self).__name__} needs one of open_clip's own text towers that pools a text "
                "token, not one of CoCa or of the Hugging Face Hub; this open_clip model has "
                "another one. Set TEXT_ENCODER.NAME to auto, or check TEXT_ENCODER.MODEL_NAME"
            )

    @abstractmethod
    def _keep(self, tower: Any) -> None:
        """Register the parts of the tower under the names of published checkpoints."""

    @property
    @abstractmethod
    def _parts(self) -> Any:
        """The module whose attributes are named as in a ``TextTransformer``."""

    @property
    def architecture(self) -> str:
        """See :class:`TextTower`; the repr of a module lacks heads, mask and pooling."""
        parts = self._parts
        heads = [block.attn.num_heads for block in parts.transformer.resblocks]
        causal = parts.attn_mask is not None
        return f"{self!r} heads {heads} causal {causal} pool {parts.pool_type} {parts.eos_id}"

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """See :class:`TextTower`."""
        return self._tokenizer(list(sentences))

    def lengths(self, tokens: Tensor) -> Tensor:
        """See :class:`TextTower`: up to the token that a causal tower pools."""
        parts = self._parts
        if parts.attn_mask is None or parts.pool_type not in ("argmax", "eos"):
            return super().lengths(tokens)
        ends = tokens if parts.pool_type == "argmax" else (tokens == parts.eos_id).int()
        return ends.argmax(dim=-1) + 1

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """See :class:`TextTower`."""
        parts, length = self._parts, tokens.shape[1]
        mask = None if parts.attn_mask is None else parts.attn_mask[:length, :length]
        states = parts.token_embedding(tokens) + parts.positional_embedding[:length]
        states = parts.ln_final(parts.transformer(states, attn_mask=mask))
        pooled = text_global_pool(states, tokens, parts.pool_type, eos_token_id=parts.eos_id)
        projection = parts.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection


@TEXT_ENCODER_REGISTRY.register()
class CLIPTextEncoder(OpenClipTextTower):
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

    def _keep(self, tower: Any) -> None:
        self.pool_type, self.eos_id = tower.pool_type, tower.eos_id
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
class EVACLIPTextEncoder(OpenClipTextTower):
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

    def _keep(self, tower: Any) -> None:
        self.proxy = tower

    @property
    def _parts(self) -> Any:
        return self.proxy


@TEXT_ENCODER_REGISTRY.register()
class HFTextEncoder(OpenClipTextTower):
    """A text tower of the Hugging Face Hub in open_clip (XLM-RoBERTa, mT5, NLLB).

    Its state dict has the keys ``proxy.*`` and ``logit_scale``. It runs its whole context.
    """

    finetuned_patterns: ClassVar = {
        "none": (),
        "all": ("*",),
        "attention": ("proxy.transformer.*[aA]ttention.*", "proxy.transformer.*self_attn.*"),
        "proj": ("proxy.proj.*", "logit_scale"),
    }

    def _check(self, tower: Any) -> None:
        if not isinstance(tower, HubTower):
            raise InputError(
                "HFTextEncoder needs a model whose text tower is one of the Hugging Face Hub "
                "(xlm-roberta-*, mt5-*, nllb-*), found open_clip's own; set TEXT_ENCODER.NAME to "
                "auto"
            )

    def _keep(self, tower: Any) -> None:
        self.proxy = tower

    @property
    def _parts(self) -> Any:
        return self.proxy

    @property
    def architecture(self) -> str:
        """See :class:`TextTower`."""
        return f"{self!r} {self.proxy.config.to_json_string()}"

    def lengths(self, tokens: Tensor) -> Tensor:
        """See :class:`TextTower`."""
        return TextTower.lengths(self, tokens)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """See :class:`TextTower`; CoCa's towers also give their tokens."""
        result = self.proxy(tokens)
        embeddings: Tensor = result[0] if isinstance(result, tuple) else result
        return embeddings


def text_encoder_name(model_name: str) -> str:
    """The text tower for a model of open_clip, ``TEXT_ENCODER.NAME: auto``."""
    if model_config(model_name)["text_cfg"].get("hf_model_name"):
        return "HFTextEncoder"
    is_eva = open_clip_name(model_name).startswith("EVA0")  # key names of published checkpoints
    return "EVACLIPTextEncoder" if is_eva else "CLIPTextEncoder"


def build_text_tower(node: CfgNode, key: str = "TEXT_ENCODER") -> TextTower:
    """Build the tower that a TEXT_ENCODER (or TEXT_ENCODER_F) config node describes."""
    name = text_encoder_name(node.MODEL_NAME) if node.NAME == "auto" else node.NAME
    tower: TextTower = get_part(TEXT_ENCODER_REGISTRY, name, f"MODEL.MASKCLIPPP.{key}.NAME")(node)
    return tower
