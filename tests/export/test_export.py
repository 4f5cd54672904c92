"""Exported graphs compute what the model computes, for other sizes than the traced ones, too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor

from maskclippp.cli.main import main
from maskclippp.errors import InputError
from maskclippp.export import FORMATS, export_model
from maskclippp.export.files import text_matrices
from maskclippp.export.graphs import _with_constant_padding
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.meta_arch import EncodedMasks, MaskCLIPpp
from maskclippp.words.given import given_words
from tests.generators.tiny_generators import fcclip_config, mask2former_config
from tests.tiny_eva import SIZE
from tests.tiny_models import random_image, tiny_config

onnxruntime = pytest.importorskip("onnxruntime")

Array = npt.NDArray[Any]
Graph = Callable[[dict[str, Array]], list[Array]]

pytestmark = pytest.mark.processes  # tracing takes seconds
WORDS = given_words(["tree", "dog, puppy", "lawn"])
OTHER_WORDS = given_words(["a", "b, c", "d", "e, f, g"])
SIZES = [(64, 96), (97, 150), (200, 130)]


def build(config: Any) -> MaskCLIPpp:
    torch.manual_seed(0)
    return MaskCLIPpp(config).eval()


def onnx_graph(path: Path) -> Graph:
    session = onnxruntime.InferenceSession(path)
    return lambda inputs: session.run(None, inputs)


def pt2_graph(path: Path) -> Graph:
    module = torch.export.load(path).module()

    def run(inputs: dict[str, Array]) -> list[Array]:
        with torch.no_grad():
            found = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return [value.numpy() for value in found]

    return run


def inputs_of(image: Tensor, masks: Tensor, stride: tuple[float, float], text: Tensor) -> Any:
    return {
        "image": image[None].float().numpy(),
        "masks": masks.float().numpy(),
        "mask_stride": np.array(stride, np.float32),
        "text": text.numpy(),
    }


def assert_classifies_like(
    model: MaskCLIPpp, graph: Graph, inputs: dict[str, Array], encoded: EncodedMasks, text: Tensor
) -> None:
    embeddings, logits = graph(inputs)
    expected = F.normalize(encoded.mask_embeddings[0], dim=-1).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)
    with torch.no_grad():
        expected = model._align(encoded.encoded, text).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3)


@pytest.fixture(scope="module")
def fcclip(tmp_path_factory: pytest.TempPathFactory) -> tuple[MaskCLIPpp, Path]:
    """A ConvNeXt with FC-CLIP, and its files."""
    folder = tmp_path_factory.mktemp("fcclip")
    model = build(
        fcclip_config(".VISUAL_ENCODER.SIZE_DIVISIBILITY", 32, "MODEL.MASK_FORMER.DEC_LAYERS", 2)
    )
    export_model(model, WORDS, folder, graphs=["generator"], formats=["pt2"])  # takes less time
    export_model(model, WORDS, folder, graphs=["classifier"])  # keeps what is said of the other
    return model, folder


def test_fcclip_and_convnext_are_exported_for_all_sizes(fcclip: tuple[MaskCLIPpp, Path]) -> None:
    model, folder = fcclip
    generate = pt2_graph(folder / "generator.pt2")
    classify = onnx_graph(folder / "classifier.onnx")
    stride = json.loads((folder / "model.json").read_text())["mask_stride"]
    for size, words in zip(SIZES, (WORDS, OTHER_WORDS, WORDS), strict=True):
        image = random_image(*size)
        encoded = model.encode([{"image": image}], words)
        (found,) = encoded.generated
        generator: Any = model.mask_generator
        given = {"image": image[None].float().numpy(), "text": generator.text.numpy()}
        masks, logits = generate(given)
        np.testing.assert_allclose(masks, found.masks.values.numpy(), atol=1e-4)
        assert found.logits is not None
        best = np.maximum.reduceat(logits[:, :-1], first_synonyms(words), axis=1)
        np.testing.assert_allclose(best, found.logits[:, :-1].numpy(), atol=1e-3)
        np.testing.assert_allclose(logits[:, -1], found.logits[:, -1].numpy(), atol=1e-3)
        text = model.text_classifier.embed_frozen(words.vocabulary.synonyms)
        inputs = inputs_of(image, found.masks.values, stride, text)
        assert_classifies_like(model, classify, inputs, encoded, text)


def first_synonyms(words: Any) -> Array:
    first: Array = np.searchsorted(words.vocabulary.class_of_synonym.numpy(), range(len(words)))
    return first


def test_masks_of_any_origin_and_number_are_classified(fcclip: tuple[MaskCLIPpp, Path]) -> None:
    model, folder = fcclip
    text = model.text_classifier.embed_frozen(WORDS.vocabulary.synonyms)
    classify = onnx_graph(folder / "classifier.onnx")
    for number, (height, width) in ((1, (90, 70)), (2, (31, 17)), (30, (180, 140))):
        image, masks = random_image(90, 70), (torch.rand(number, height, width) > 0.5).float()
        encoded = model.encode([{"image": image}], masks=[SoftMasks(masks)])
        inputs = inputs_of(image, masks, (90 / height, 70 / width), text)
        assert_classifies_like(model, classify, inputs, encoded, text)


def test_the_words_are_matrices(fcclip: tuple[MaskCLIPpp, Path]) -> None:
    model, folder = fcclip
    text = np.load(folder / "text.npz")
    expected = model.text_classifier.embed_frozen(WORDS.vocabulary.synonyms)
    assert np.array_equal(text["text"], expected.numpy())
    assert text["class_of_synonym"].tolist() == [0, 1, 1, 2]
    assert text["generator_text"].shape == (4, text["text"].shape[2])
    words = json.loads((folder / "words.json").read_text())
    assert [word["synonyms"] for word in words] == [["tree"], ["dog", "puppy"], ["lawn"]]
    assert [word["is_thing"] for word in words] == [False, True, False]


def test_a_vision_transformer_is_exported_that_resizes_its_images(tmp_path: Path) -> None:
    """As the published EVA-CLIPs do."""
    side = SIZE["img_size"]
    config = tiny_config(
        *(".VISUAL_ENCODER.NAME", "auto", ".VISUAL_ENCODER.MODEL_NAME", "EVA02-tiny"),
        *(".VISUAL_ENCODER.TEST_RESIZE_TYPE", "short", ".VISUAL_ENCODER.TEST_IMAGE_SIZE", side),
        *(".VISUAL_ENCODER.OUT_FEATURES", ["m_embs"], ".VISUAL_ENCODER.MASK_PRIOR_BEG", 0),
        *(".VISUAL_ENCODER.SIZE_DIVISIBILITY", SIZE["patch_size"]),
        *(".TEXT_ENCODER.MODEL_NAME", "EVA02-tiny", ".TEXT_ENCODER.NAME", "EVACLIPTextEncoder"),
    )
    model = build(config)
    image, masks = random_image(90, 70), torch.rand(6, 45, 35)
    text = model.text_classifier.embed_frozen(WORDS.vocabulary.synonyms)
    # As masks of a generator: they are resized to the image first.
    placed = SoftMasks(masks, Frame((90, 70), (90, 70)))
    encoded = model.encode([{"image": image}], masks=[placed])
    export_model(
        model, WORDS, tmp_path, graphs=["classifier"], formats=FORMATS, image_size=(90, 70)
    )
    for graph in (onnx_graph(tmp_path / "classifier.onnx"), pt2_graph(tmp_path / "classifier.pt2")):
        assert_classifies_like(model, graph, inputs_of(image, masks, (2, 2), text), encoded, text)


def test_the_classes_of_a_closed_generator_are_numbered_among_the_words(tmp_path: Path) -> None:
    model = build(mask2former_config())
    export_model(model, WORDS, tmp_path, graphs=[])
    # cat, dog, grass/lawn/meadow, void
    assert np.load(tmp_path / "text.npz")["class_of_own_class"].tolist() == [3, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ([".VISUAL_ENCODER.DOWNSAMPLE_METHOD", "avg"], "DOWNSAMPLE_METHOD"),
        ([".SEGMENTOR.NAME", "SuperpixelSegmentor"], "SuperpixelSegmentor cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    options: list[Any], what: str, tmp_path: Path
) -> None:
    graph = "generator" if "SEGMENTOR" in options[0] else "classifier"
    with pytest.raises(InputError, match=what):
        export_model(build(tiny_config(*options)), WORDS, tmp_path, graphs=[graph])


@pytest.mark.parametrize("wrong", [{"graphs": ["clasifier"]}, {"formats": ["onxx"]}])
def test_unknown_graphs_and_formats_write_nothing(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'(clasifier|onxx)' is not one of"):
        export_model(build(tiny_config()), WORDS, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--image-size", "0", "5"], "--image-size: expected positive numbers"),
        (["--generator", "superpixels", "--graphs", "generator"], "SuperpixelSegmentor"),
        (["--model", "shaeps"], "shapes"),
        (
            ["--model", "shaeps", "--output", __file__],
            "test_export.py cannot be written (File exists)",
        ),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "export",
                "--model",
                "shapes",
                "--classes",
                "a; b",
                "--output",
                str(tmp_path),
                *arguments,
            ]
        )
    assert stopped.value.code == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize("kernel", [2, 3, 4, (1, 4)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_that_does_not_depend_on_the_size_is_the_same(kernel: Any, dilation: int) -> None:
    """Even kernels are padded more behind than before."""
    network = torch.nn.Sequential(Conv2dSame(3, 4, kernel, dilation=dilation))
    images = torch.rand(2, 3, 9, 12)
    expected = network(images)
    _with_constant_padding(network)
    assert not any(isinstance(module, Conv2dSame) for module in network.modules())
    assert torch.allclose(network(images), expected, atol=1e-6)


def test_the_written_scale_has_the_limit_of_the_model() -> None:
    model = build(tiny_config(".USE_LOGIT_SCALE", True, ".SEGMENTOR.NAME", "SuperpixelSegmentor"))
    assert model.logit_scale is not None
    for value, expected in ((2.0, np.exp(2.0)), (9.0, 100.0)):
        torch.nn.init.constant_(model.logit_scale, value)
        found = text_matrices(model, WORDS)["logit_scale"].item()
        assert found == pytest.approx(expected, rel=1e-6)
