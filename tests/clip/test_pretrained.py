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

from maskclippp.clip.open_clip_models import load_text_tower, load_visual_tower
from maskclippp.clip.pretrained import find_pretrained, read_pretrained
from tests.clip.weight_files import check_towers, eva_clip_state, node, open_clip_state
from tests.tiny_models import MODEL_NAME

PUBLISHED = "convnext_base_w_320"


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    torch.save(open_clip_state(), tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, an empty cache, and a working directory without files."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def test_random_weights_need_no_file() -> None:
    assert read_pretrained(node("random"), "visual") is None


def test_load_from_is_laid_over_the_pretrained_weights(weights_file: Path, tmp_path: Path) -> None:
    """LOAD_FROM may hold a part of the keys, under a prefix of its own."""
    changed = {"backbone.visual.trunk.stem.1.bias": torch.full((32,), 7.0), "other": torch.ones(1)}
    torch.save(changed, tmp_path / "later.pt")
    made = node(weights_file, LOAD_FROM=str(tmp_path / "later.pt"), LOAD_BEG_KEY="backbone.")
    state = load_visual_tower(made).state_dict()
    assert (state["trunk.stem.1.bias"] == 7).all()
    unchanged = torch.load(weights_file)["visual.trunk.stem.0.bias"]
    assert torch.equal(state["trunk.stem.0.bias"], unchanged)


def test_the_prefix_of_load_from_may_end_at_the_image_tower(
    weights_file: Path, tmp_path: Path
) -> None:
    state = torch.load(weights_file)
    torch.save({f"backbone.{key}": value + 1 for key, value in state.items()}, tmp_path / "l.pt")
    made = node("random", LOAD_FROM=str(tmp_path / "l.pt"), LOAD_BEG_KEY="backbone.visual.")
    for key, value in load_visual_tower(made).state_dict().items():
        assert torch.equal(value, state[f"visual.{key}"] + 1)


def test_load_from_may_have_another_layout(tmp_path: Path) -> None:
    first, later = open_clip_state("EVA02-tiny"), open_clip_state("EVA02-tiny")
    torch.save(first, tmp_path / "timm.pt")
    torch.save(eva_clip_state(later), tmp_path / "eva.pt")
    made = node(tmp_path / "timm.pt", "EVA02-tiny", LOAD_FROM=str(tmp_path / "eva.pt"))
    check_towers(made, later)


def test_load_from_without_a_matching_key_is_an_error(weights_file: Path) -> None:
    made = node("random", LOAD_FROM=str(weights_file), LOAD_BEG_KEY="nothing.")
    with pytest.raises(ValueError, match=r"no key of .*clip\.pt starts with .* 'nothing\.'"):
        load_visual_tower(made)


@pytest.mark.parametrize("prefix", ["", "visual_encoder.proxy."])
def test_load_from_without_anything_for_the_tower_is_an_error(
    prefix: str, weights_file: Path, tmp_path: Path
) -> None:
    """A fine-tuned checkpoint has names of its own; to leave it out in silence would mislead."""
    visual = {k: v for k, v in torch.load(weights_file).items() if k.startswith("visual.")}
    own = {f"visual_encoder.proxy.{k.removeprefix('visual.')}": v for k, v in visual.items()}
    torch.save({"model": own}, tmp_path / "model_final.pth")
    made = node(weights_file, LOAD_FROM=str(tmp_path / "model_final.pth"), LOAD_BEG_KEY=prefix)
    with pytest.raises(ValueError, match=r"final\.pth has nothing for the visual tower .*WEIGHTS"):
        load_visual_tower(made)
    torch.save(visual, tmp_path / "visual.pt")
    made = node(weights_file, LOAD_FROM=str(tmp_path / "visual.pt"))
    with pytest.raises(ValueError, match=r"visual\.pt has nothing for the text tower"):
        load_text_tower(made)


@pytest.mark.parametrize(
    ("model_name", "alias", "file"),
    [
        ("EVA02-CLIP-B-16", "eva02_clip", "EVA02_CLIP_B_psz16_s8B.pt"),
        ("EVA02-CLIP-L-14-336", "eva_clip", "EVA02_CLIP_L_336_psz14_s6B.pt"),
        ("EVA01-CLIP-g-14-plus", "eva01_clip", "EVA01_CLIP_g_14_plus_psz14_s11B.pt"),
    ],
)
def test_original_eva_files_are_used_where_published_configs_expect_them(
    model_name: str, alias: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("pretrained/eva_clip", file)
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_pretrained(model_name, alias).path == path


@pytest.mark.parametrize("alias", ["eva_clip", "eva01_clip", "eva02_clip"])
@pytest.mark.parametrize("model_name", ["EVA01-CLIP-tiny", "EVA02-tiny"])
def test_eva_aliases_stand_for_the_only_tag(
    model_name: str, alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {"merged2b": {"file": str(tmp_path / "eva.bin")}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, model_name.replace("-CLIP", ""), tags)
    if alias == "eva_clip" or alias[:5].upper() == model_name[:5]:
        assert find_pretrained(model_name, alias).path == tmp_path / "eva.bin"
    else:
        with pytest.raises(ValueError, match=rf"'{alias}' is neither .* tags are \['merged2b'\]"):
            find_pretrained(model_name, alias)


@pytest.mark.parametrize("model_name", ["RN50x16", "RN50x16-quickgelu", "ViT-B-16"])
def test_tags_say_that_the_weights_need_quick_gelu(
    model_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**open_clip.pretrained._PRETRAINED[model_name]["openai"], "file": "weights.bin"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED[model_name], "openai", settings)
    assert find_pretrained(model_name, "openai").quick_gelu


def test_towers_of_a_quick_gelu_tag_have_quick_gelu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(open_clip_state("ViT-tiny"), tmp_path / "clip.pt")
    tags = {"quick": {"file": str(tmp_path / "clip.pt"), "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", tags)
    made = node("quick", "ViT-tiny")
    for tower in (load_visual_tower(made), load_text_tower(made)[0]):
        assert "QuickGELU" in repr(tower)


@pytest.mark.parametrize("tag", ["laion5b", "", "/nowhere/weights.pt"])
def test_unknown_tag_lists_the_tags_of_the_model(tag: str) -> None:
    with pytest.raises(ValueError, match=r"neither an existing file nor a tag .*_320") as error:
        load_visual_tower(node(tag, PUBLISHED))
    assert "laion_aesthetic_s13b_b82k_augreg" in str(error.value)


def test_unknown_tag_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean laion_aesthetic_s13b_b82k\b"):
        find_pretrained(PUBLISHED, "laion-aesthetic-s13B-b83K")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "tag", ["laion_aesthetic_s13b_b82k_augreg", "laion_aesthetic-s13B-b82K-augreg"]
)
def test_no_network_says_what_to_download_and_where_to_put_it(tag: str) -> None:
    with pytest.raises(FileNotFoundError, match="are not on this machine") as error:
        find_pretrained(PUBLISHED, tag)
    assert "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K-augreg" in str(error.value)
    place = Path("pretrained", f"{PUBLISHED}-{tag}.safetensors")
    assert f"put the file at {place} in the working directory" in str(error.value)
    place.parent.mkdir()
    place.touch()
    assert find_pretrained(PUBLISHED, tag).path == place


@pytest.mark.usefixtures("offline")
def test_a_file_put_there_by_hand_keeps_what_is_known_of_its_tag() -> None:
    """OpenAI's weights look like all others: only their tag tells that they need QuickGELU."""
    place = Path("pretrained", "RN50x16-openai.safetensors")
    place.parent.mkdir()
    place.touch()
    found = find_pretrained("RN50x16", "openai")
    assert found.path == place
    assert found.quick_gelu


@pytest.mark.usefixtures("offline")
def test_no_network_names_the_original_files_of_eva() -> None:
    with pytest.raises(FileNotFoundError, match="not on this machine") as error:
        find_pretrained("EVA02-CLIP-B-16", "eva02_clip")
    assert "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k" in str(error.value)
    assert "or EVA02_CLIP_B_psz16_s8B.pt of EVA-CLIP, put into pretrained/eva_clip" in str(
        error.value
    )


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


@pytest.mark.parametrize("url", ["{server}/absent.pt", "http://127.0.0.1:9/absent.pt"])
def test_a_failed_download_names_the_address(
    url: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = url.format(server=server)
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as error:
        load_visual_tower(offer(address, monkeypatch, tmp_path / "home"))
    assert address in str(error.value)
    assert f"pretrained/{MODEL_NAME}-served.pt" in str(error.value)
