"""Names of models: the built-in world, configs, run folders, the published list."""

from pathlib import Path

import numpy as np
import pytest
import torch

import maskclippp
from maskclippp import Predictor
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.engine.trainer import Trainer
from maskclippp.predictor.models import build_model
from tests.golden_cases import REPOSITORY
from tests.shapes_predictor import WORDS, picture, shapes_predictor

SHAPES = REPOSITORY / "configs" / "shapes"


def test_a_run_folder_has_its_config_and_newest_checkpoint(tmp_path: Path) -> None:
    cfg = get_cfg()
    merge_config_file(cfg, SHAPES / "linear_psm_fcclip.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = Trainer.build_model(cfg)
    with torch.no_grad():
        for parameter in model.psm.parameters():
            parameter.fill_(0.1)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    Checkpointer(model, str(tmp_path)).save("model_final")
    predictor = Predictor.from_pretrained(tmp_path, device="cpu")
    found = dict(predictor.model.psm.named_parameters())
    assert all((value == 0.1).all() for value in found.values())
    result = predictor.set_classes(WORDS)(picture())
    assert result.labels.shape == (192, 256)


def test_a_model_without_its_fine_tuned_weights_is_plain_clip_only_if_asked_for() -> None:
    config = SHAPES / "linear_psm_fcclip.yaml"
    with pytest.raises(ValueError, match=r"LinearPSM would be random: give a checkpoint"):
        build_model(config, device="cpu")
    plain = Predictor.from_pretrained(config, weights="initial", device="cpu").set_classes(WORDS)
    expected = shapes_predictor().set_classes(WORDS)(picture())
    assert np.array_equal(plain(picture()).labels, expected.labels)


def test_a_generator_is_taken_from_another_config() -> None:
    superpixels = SHAPES / "plain_clip.yaml"
    predictor = Predictor.from_pretrained(superpixels, generator="shapes", device="cpu")
    expected = shapes_predictor().set_classes(WORDS)(picture())
    assert np.array_equal(predictor.set_classes(WORDS)(picture()).labels, expected.labels)


def test_the_published_list_is_complete() -> None:
    kinds = [entry.kind for entry in maskclippp.list_models()]
    assert [kinds.count(kind) for kind in ("clip", "generator", "model")] == [6, 7, 8]
    for entry in maskclippp.list_models("model"):
        assert entry.config_file.is_file()
        assert entry.results
    for entry in maskclippp.list_models("generator"):
        assert entry.path in entry.config_file.read_text()


def test_auto_computes_in_bfloat16_where_the_processor_can() -> None:
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.exists() else ""
    fast = "avx512_bf16" in text or "amx_bf16" in text
    model = build_model("shapes", device="cpu")[1]
    assert model.inference.dtype == ("bfloat16" if fast else "float32")
    assert build_model("shapes", device="cpu", dtype="float32")[1].inference.dtype == "float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "shape"}, r"'shape' is not in the list of .*; did you mean shapes\?"),
        ({"model": str(SHAPES)}, r"configs/shapes has no config\.yaml"),
        ({"model": "maftp-b"}, r"'maftp-b' is a generator, not a model; pass it as generator"),
        ({"model": "absent.yaml"}, r"Config file 'absent\.yaml' does not exist"),
        (
            {"model": "coco-pan_clip-convnext-base"},
            r"are not there: run: maskclippp download coco-pan_clip-convnext-base",
        ),
        ({"model": "shapes", "weights": "absent.pth"}, r"weights absent\.pth of shapes are not"),
        ({"model": "shapes", "generator": "sam"}, r"generator 'sam' is not one of"),
        ({"model": "shapes", "device": "tpu"}, r"device 'tpu' cannot be used"),
        ({"model": "shapes", "dtype": "half"}, r"dtype 'half' is not one of"),
    ],
)
def test_wrong_names_are_one_sentence(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_model(**{"device": "cpu", **options})
    assert "\n" not in str(caught.value)


def test_the_default_model_says_what_it_fetches_and_what_to_do_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"facebook/mask2former-swin-tiny-coco-panoptic|weights"):
        build_model("default", device="cpu")
    assert "at most 0.9 GiB" in caplog.text
    assert "maskclippp download coco-pan_clip-convnext-base" in caplog.text
