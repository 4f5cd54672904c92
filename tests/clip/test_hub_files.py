"""Tokenizers and text towers of the Hugging Face Hub, from files on this machine."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from torch.testing import assert_close

from maskclippp.clip.hub_files import hub_folder
from maskclippp.clip.open_clip_models import load_tokenizer
from maskclippp.clip.text_tower import HFTextEncoder, TextTower, build_text_tower
from maskclippp.errors import InputError, MissingFileError
from tests.tiny_hub import CONFIGS, add_hub_model, write_tokenizer
from tests.tiny_models import tiny_config

SENTENCES = ["a photo of a cat.", "Katze"]


def text_tower(model: str, **options: object) -> TextTower:
    node = tiny_config().MODEL.MASKCLIPPP.TEXT_ENCODER
    node.NAME, node.MODEL_NAME = "auto", model
    for key, value in options.items():
        node[key] = value
    return build_text_tower(node).eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_text_tower_of_the_hub_computes_what_open_clip_computes(
    kind: str, tmp_path: Path
) -> None:
    tower = text_tower(add_hub_model(tmp_path, kind))
    assert isinstance(tower, HFTextEncoder)
    tokens = tower.tokenize(SENTENCES)
    assert tokens.shape == (2, 77)
    assert_close(tower(SENTENCES), tower.proxy(tokens))


@torch.no_grad()
def test_a_causal_tower_leaves_out_padding_of_a_tokenizer_of_the_hub(tmp_path: Path) -> None:
    model = add_hub_model(tmp_path, None, context_length=12, pool_type="eos", eos_id=2)
    tower = text_tower(model)
    tokens = tower.tokenize(SENTENCES)
    assert tokens.shape == (2, 12)
    assert tower.pad_id == 1
    assert tower.lengths(tokens).tolist() == [8, 3]
    assert_close(tower(SENTENCES), tower.encode_tokens(tokens))


@pytest.mark.parametrize(
    ("finetune_type", "trained"),
    [("none", ()), ("attention", ("attention",)), ("proj", ("proj", "logit_scale"))],
)
def test_trained_parts_of_a_text_tower_of_the_hub(
    finetune_type: str, trained: tuple[str, ...], tmp_path: Path
) -> None:
    tower = text_tower(add_hub_model(tmp_path), FINETUNE_TYPE=finetune_type)
    for name, parameter in tower.named_parameters():
        expected = any(part in name.split(".") for part in trained)
        assert parameter.requires_grad == expected, name


def test_a_folder_in_the_working_directory_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "pretrained" / "timm" / "ViT-B-16-SigLIP2")
    tokens = load_tokenizer("ViT-B-16-SigLIP2")(["a cat"])
    assert tokens.shape == (1, 64)
    assert tokens[0, :5].tolist() == [0, 4, 7, 2, 1]


def test_missing_files_say_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    said = r"the tokenizer of 'X' .* timm/nothing .* \(\*\.json, .* into pretrained/timm/nothing in"
    with pytest.raises(MissingFileError, match=said) as error:
        hub_folder("timm/nothing", "the tokenizer of 'X'")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("pretrained/timm/ViT-B-16-SigLIP2")
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=f"MODEL_NAME: {folder} does not have the tokenizer of"):
        load_tokenizer("ViT-B-16-SigLIP2")
