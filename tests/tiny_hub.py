"""A CLIP model whose tokenizer and text tower are files of the Hugging Face Hub."""

import json
from pathlib import Path
from typing import Any

import open_clip
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
WORDS = ["a", "photo", "of", "cat", "dog", "Katze", "."]

CONFIGS: dict[str, Any] = {
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=90,
        pad_token_id=1,
    ),
    "mt5": lambda: transformers.MT5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=1
    ),
    "m2m_100": lambda: transformers.M2M100Config(
        vocab_size=32,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=90,
        pad_token_id=1,
    ),
}


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words: ``<s> a cat </s> <pad> ...``, in the files of the Hub."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
    fast.save_pretrained(folder)


def add_hub_model(folder: Path, kind: str | None = "xlm-roberta", **text: Any) -> str:
    """Make open_clip know ``Hub-tiny``; None: with open_clip's own text tower."""
    repository = folder / "repository"
    write_tokenizer(repository)
    text = {"hf_tokenizer_name": str(repository), **text}
    if kind is None:
        text = {"vocab_size": 32, "width": 16, "heads": 2, "layers": 2, **text}
    else:
        CONFIGS[kind]().save_pretrained(repository)
        text |= {"hf_model_name": str(repository), "hf_proj_type": "linear"}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (folder / "Hub-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "Hub-tiny.json")
    return "Hub-tiny"
