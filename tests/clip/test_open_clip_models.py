"""Where weights come from: files, tags and downloads, with errors that say what to do."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import open_clip.pretrained
import pytest
import torch
from detectron2.config import CfgNode
from torch import Tensor

from maskclippp.clip.open_clip_models import load_text_tower, load_visual_tower
from tests.tiny_models import MODEL_NAME, tiny_config

PUBLISHED = "convnext_base_w_320"


def node(pretrained: str, model_name: str = MODEL_NAME, **options: Any) -> CfgNode:
    made = tiny_config().MODEL.MASKCLIPPP.VISUAL_ENCODER
    made.MODEL_NAME, made.PRETRAINED = model_name, str(pretrained)
    for key, value in options.items():
        made[key] = value
    return made


def clip_state() -> dict[str, Tensor]:
    """A complete CLIP state dict in OpenCLIP's layout."""
    visual = load_visual_tower(node("random")).state_dict()
    text = load_text_tower(node("random"))[0].state_dict()
    return {
        **{f"visual.{key}": value for key, value in visual.items()},
        **text,
        "logit_scale": torch.tensor(3.25),
    }


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    torch.save(clip_state(), tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


def check_towers(made: CfgNode, expected: dict[str, Tensor]) -> None:
    visual = load_visual_tower(made).state_dict()
    text, logit_scale = load_text_tower(made)
    for key, value in visual.items():
        assert torch.equal(value, expected[f"visual.{key}"])
    for key, value in text.state_dict().items():
        assert torch.equal(value, expected[key])
    assert logit_scale == 3.25


def test_both_towers_take_their_share_of_a_file(weights_file: Path) -> None:
    check_towers(node(str(weights_file)), torch.load(weights_file))


def test_text_towers_of_custom_models_lie_under_a_prefix(weights_file: Path) -> None:
    state = torch.load(weights_file)
    own = {k: v for k, v in state.items() if k.startswith("visual.") or k == "logit_scale"}
    renamed = {f"text.{key}": value for key, value in state.items() if key not in own}
    torch.save({**own, **renamed}, weights_file)
    check_towers(node(str(weights_file)), state)


def test_half_precision_weights_are_read_as_float32(weights_file: Path) -> None:
    state = {key: value.half() for key, value in torch.load(weights_file).items()}
    torch.save(state, weights_file)
    tower = load_visual_tower(node(str(weights_file)))
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.float32}


def test_weights_of_another_model_list_keys_and_shapes(weights_file: Path) -> None:
    state = torch.load(weights_file)
    state["visual.trunk.stem.0.weight"] = torch.zeros(8, 3, 4, 4)
    state["visual.trunk.stages.9.gamma"] = torch.zeros(8)
    del state["visual.trunk.stem.0.bias"]
    torch.save(state, weights_file)
    with pytest.raises(ValueError, match=r"do not fit 'shapes_convnext' \(3 disagree") as error:
        load_visual_tower(node(str(weights_file)))
    for line in (
        "missing trunk.stem.0.bias",
        "unexpected trunk.stages.9.gamma",
        "trunk.stem.0.weight: expected shape [32, 3, 4, 4], found [8, 3, 4, 4]",
    ):
        assert line in str(error.value)


def test_load_from_is_laid_over_the_pretrained_weights(weights_file: Path, tmp_path: Path) -> None:
    """LOAD_FROM may hold a part of the keys, under a prefix of its own."""
    changed = {"backbone.visual.trunk.stem.1.bias": torch.full((32,), 7.0), "other": torch.ones(1)}
    torch.save(changed, tmp_path / "later.pt")
    made = node(str(weights_file), LOAD_FROM=str(tmp_path / "later.pt"), LOAD_BEG_KEY="backbone.")
    state = load_visual_tower(made).state_dict()
    assert (state["trunk.stem.1.bias"] == 7).all()
    unchanged = torch.load(weights_file)["visual.trunk.stem.0.bias"]
    assert torch.equal(state["trunk.stem.0.bias"], unchanged)


def test_load_from_without_a_matching_key_is_an_error(weights_file: Path) -> None:
    made = node("random", LOAD_FROM=str(weights_file), LOAD_BEG_KEY="nothing.")
    with pytest.raises(ValueError, match=r"no key of .*clip\.pt starts with .* 'nothing\.'"):
        load_visual_tower(made)


def test_unknown_model_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'convnext_base_w_230' .* mean .*convnext_base_w_320"):
        load_visual_tower(node("random", "convnext_base_w_230"))


@pytest.mark.parametrize("tag", ["laion5b", "", "/nowhere/weights.pt"])
def test_unknown_tag_lists_the_tags_of_the_model(tag: str) -> None:
    with pytest.raises(ValueError, match=r"neither an existing file nor a tag .*_320") as error:
        load_visual_tower(node(tag, PUBLISHED))
    assert "laion_aesthetic_s13b_b82k_augreg" in str(error.value)


@pytest.mark.parametrize(
    "tag", ["laion_aesthetic_s13b_b82k_augreg", "laion_aesthetic-s13B-b82K-augreg"]
)
def test_no_network_says_what_to_download_and_where_to_put_it(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="are not on this machine") as error:
        load_visual_tower(node(tag, PUBLISHED))
    assert "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K-augreg" in str(error.value)
    assert "set PRETRAINED to its path" in str(error.value)


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests of tests are no news."""


@pytest.fixture
def server(weights_file: Path) -> Iterator[str]:
    """The URL of a local server that offers the folder of the weights file."""
    handler = partial(_QuietHandler, directory=str(weights_file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def offer(url: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> CfgNode:
    """Make ``url`` the pretrained weights "served" of the tiny model."""
    tags = {"served": {"url": url}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL_NAME, tags)
    monkeypatch.setenv("HOME", str(home))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return node("served")


def test_a_tag_is_downloaded_once(
    server: str, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = torch.load(weights_file)
    made = offer(f"{server}/clip.pt", monkeypatch, tmp_path / "home")
    check_towers(made, expected)
    weights_file.unlink()
    check_towers(made, expected)


@pytest.mark.parametrize("url", ["{server}/absent.pt", "http://127.0.0.1:9/clip.pt"])
def test_a_failed_download_names_the_address(
    url: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = url.format(server=server)
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as error:
        load_visual_tower(offer(address, monkeypatch, tmp_path / "home"))
    assert address in str(error.value)
