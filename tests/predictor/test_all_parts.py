"""The Predictor gives what evaluation gives, with encoders of every family and every generator."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tests.tiny_eva  # noqa: F401  (registers models)
from maskclippp import Predictor
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.masks.mask_files import write_masks
from tests.generators.tiny_transformers import save_tiny_model, save_tiny_sam, save_tiny_sam3
from tests.golden_cases import REPOSITORY
from tests.shapes_predictor import picture, scene, words_of_scene
from tests.tiny_models import tiny_config

SHAPES = REPOSITORY / "configs" / "shapes"
OTHER_WORDS = ["red ring", "gray brick wall", "green leaf"]


def check(predictor: Predictor, image: Path) -> None:
    """A call, and words that were changed after encoding, give the labels of evaluation."""
    predictor.min_size = 0
    record = {
        "image": torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1),
        "file_name": str(image),
    }
    for words in (words_of_scene(), OTHER_WORDS):
        predictor.model.set_test_vocabulary(words)
        with torch.no_grad():
            (evaluated,) = predictor.model([record])
        expected = evaluated["sem_seg_labels"].numpy()
        called = predictor.set_classes(words)(image)
        changed = predictor.set_classes(["cat"]).classify(predictor.encode(image), words)
        for result in (called, changed):
            assert (result.labels >= 0).mean() > 0.2
            assert np.array_equal(np.where(result.labels < 0, expected, result.labels), expected)
        np.testing.assert_allclose(called.scores, changed.scores, atol=1e-5)
    predictor.set_image(image)
    halves = np.zeros((2, *expected.shape), dtype=bool)
    halves[0, :, :100] = halves[1, :, 100:] = True
    embeddings = predictor.predict_masks(halves, OTHER_WORDS).embeddings
    assert embeddings is not None
    assert embeddings[0] @ embeddings[1] < 0.9999


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    Image.fromarray(picture()).save(file)
    return file


@pytest.mark.parametrize(
    ("encoder", "model"),
    [
        ("MaskTokenEncoder", "ViT-tiny"),
        ("EVACLIPViT", "EVA02-tiny"),
        ("AttentionPoolEncoder", "Pool-tiny"),
        ("AverageEncoder", "shapes_convnext"),
        ("CLIPResNet", "RN-tiny"),
    ],
)
def test_every_family_of_encoders(encoder: str, model: str, image: Path) -> None:
    torch.manual_seed(0)
    cfg = tiny_config(
        *(".VISUAL_ENCODER.NAME", "auto", ".VISUAL_ENCODER.MODEL_NAME", model),
        *(".VISUAL_ENCODER.MASK_PRIOR_BEG", 0, ".VISUAL_ENCODER.SIZE_DIVISIBILITY", 32),
        *(".TEXT_ENCODER.NAME", "auto", ".TEXT_ENCODER.MODEL_NAME", model),
        *(".VISUAL_ENCODER.OUT_FEATURES", ["m_embs"], ".PSM.NAME", "DummyPSM"),
        *(".SEGMENTOR.NAME", "SuperpixelSegmentor", "DATASETS.TRAIN", (), ".TEMPLATES", "t1"),
    )
    config = image.with_name("config.yaml")
    config.write_text(cfg.dump())
    predictor = Predictor.from_pretrained(config, device="cpu")
    assert type(predictor.model.visual_encoder).__name__ == encoder
    check(predictor, image)


def generator_config(folder: Path, name: str, model: Path) -> str:
    """A config of the built-in world for a random model, which is never sure of its masks."""
    cfg = get_cfg()
    merge_config_file(cfg, SHAPES / f"{name}.yaml")
    node = cfg.MODEL.MASKCLIPPP.SEGMENTOR
    node.PRETRAINED, node.SAM.MIN_IOU, node.SAM.MIN_STABILITY = str(model), -1000.0, 0.0
    node.SAM.POINTS_PER_SIDE, node.SAM3.MIN_SCORE = 8, 0.0
    (folder / "generator.yaml").write_text(cfg.dump())
    return str(folder / "generator.yaml")


def offline(folder: Path) -> str:
    ids = np.array([segment.id for segment in scene().segments])[:, None, None]
    write_masks(folder / "picture.npz", torch.from_numpy(scene().segment_ids == ids))
    text = f"MODEL: {{MASKCLIPPP: {{SEGMENTOR: {{OFFLINE_ANN_DIR: {folder}}}}}}}"
    (folder / "g.yaml").write_text(f"_BASE_: {SHAPES / 'linear_psm_offline.yaml'}\n{text}\n")
    return str(folder / "g.yaml")


GENERATORS: dict[str, Callable[[Path], str]] = {
    "SuperpixelSegmentor": lambda _: "superpixels",
    "FCCLIPSegmentor": lambda _: "shapes",
    "Mask2FormerSegmentor": lambda _: str(SHAPES / "linear_psm_mask2former.yaml"),
    "TransformersSegmentor": lambda folder: str(save_tiny_model("eomt", folder / "hub")),
    "SamSegmentor": lambda folder: generator_config(
        folder, "linear_psm_sam", save_tiny_sam("sam2", folder / "hub")
    ),
    "Sam3Segmentor": lambda folder: generator_config(
        folder, "linear_psm_sam3", save_tiny_sam3(folder / "hub")
    ),
    "OfflineSegmentor": offline,
}


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator(name: str, image: Path, tmp_path: Path) -> None:
    predictor = Predictor.from_pretrained(
        "shapes", generator=GENERATORS[name](tmp_path), device="cpu"
    )
    check(predictor, image)
    assert type(predictor.model._get_generator()).__name__ == name


def test_a_model_of_the_hub_names_its_generator(tmp_path: Path) -> None:
    folder = save_tiny_sam("sam", tmp_path / "sam")
    predictor = Predictor.from_pretrained("shapes", generator=str(folder), device="cpu")
    assert type(predictor.model._get_generator()).__name__ == "SamSegmentor"
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"of the type 'bert', but mask generators can use \['d"):
        Predictor.from_pretrained("shapes", generator=str(folder), device="cpu")


def test_masks_for_words_are_found_for_the_words_that_are_asked_for(
    image: Path, tmp_path: Path
) -> None:
    generator = GENERATORS["Sam3Segmentor"](tmp_path)
    predictor = Predictor.from_pretrained("shapes", generator=generator, device="cpu")
    with pytest.raises(ValueError, match=r"Sam3Segmentor finds masks for words"):
        predictor.set_image(image)
    predictor.set_classes(["cat"]).set_image(image)
    later = predictor.predict(["green leaf"], task="masks").masks
    assert np.array_equal(later, predictor.set_classes(["green leaf"])(image, task="masks").masks)
    assert not np.array_equal(later, predictor.set_classes(["cat"])(image, task="masks").masks)
