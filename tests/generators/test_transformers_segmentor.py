"""Models of the transformers library as generators: what they find is what the library finds."""

import importlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.testing import assert_close

from maskclippp.errors import InputError, UnreadableFileError
from maskclippp.generators import ImageMasks, TransformersSegmentor, build_generator
from maskclippp.generators.transformers_masks import MODEL_TYPES
from maskclippp.generators.transformers_segmentor import classes_of_labels
from maskclippp.inference.postprocess import (
    ClassifiedMasks,
    panoptic_segmentation,
    semantic_labels,
)
from maskclippp.inference.settings import InferenceSettings
from maskclippp.words.vocabulary import Vocabulary
from tests.generators.tiny_transformers import LABELS, MODELS, NUM_QUERIES, save_tiny_model
from tests.tiny_models import random_image, tiny_config, tiny_model

# Wide, tall, square; smaller and larger than what the models work at.
FUSED = frozenset({1})
SIZES = [(60, 90), (150, 70), (64, 64), (37, 41)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: save_tiny_model(kind, folder / kind) for kind in MODELS}


def options(folder: Path, *more: Any) -> tuple[Any, ...]:
    return (
        *(".SEGMENTOR.NAME", "TransformersSegmentor", ".SEGMENTOR.PRETRAINED", str(folder)),
        *more,
    )


def build(folder: Path, *more: Any) -> TransformersSegmentor:
    generator = build_generator(tiny_config(*options(folder, *more)))
    assert isinstance(generator, TransformersSegmentor)
    return generator


def find(generator: TransformersSegmentor, *images: Tensor) -> list[ImageMasks]:
    with torch.no_grad():
        return generator([{"image": image} for image in images])


def library_outputs(folder: Path, image: Tensor) -> tuple[Any, Any]:
    """The processor of a folder, and what its model finds in an image."""
    model = transformers.AutoModelForUniversalSegmentation.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    inputs = processor([image], return_tensors="pt")
    if model.config.model_type == "oneformer":
        # "the task is panoptic" in CLIP's vocabulary.
        tokens = [49406, 518, 10549, 533, 1072, 24755, 49407]
        inputs["task_inputs"] = F.pad(torch.tensor([tokens]), (0, 77 - len(tokens)))
    with torch.no_grad():
        return processor, model(**inputs)


def segments_of(kind: str, found: ImageMasks, size: tuple[int, int]) -> tuple[Tensor, list[int]]:
    """Segments of generated masks, as each architecture's own post-processing forms them.

    That of EoMT is Mask2Former's published one, and ours; the others keep more pixels.
    """
    assert found.logits is not None
    if "eomt" in kind:
        settings = InferenceSettings(object_mask_threshold=0.3, overlap_threshold=0.1)
        classified = ClassifiedMasks(found.masks, found.logits, len(LABELS))
        things = frozenset(LABELS) - FUSED
        ids, segments = panoptic_segmentation(classified, size, things, settings)
        return ids, [segment["category_id"] for segment in segments]
    name = f"transformers.models.{kind}.image_processing_{kind}"
    library = importlib.import_module(name)
    scores, labels = found.logits.softmax(dim=-1).max(dim=-1)
    masks, scores, labels = library.remove_low_and_no_objects(
        found.masks.resized(size), scores, labels, 0.3, len(LABELS)
    )
    ids, segments = library.compute_segments(masks, scores, labels, 0.3, 0.1, FUSED)
    return ids, [segment["label_id"] for segment in segments]


def without_ties(found: ImageMasks, size: tuple[int, int]) -> Tensor:
    """Bool [H, W]: where rounding does not decide which mask wins."""
    assert found.logits is not None
    scores = found.logits.softmax(dim=-1).max(dim=-1).values
    first, second = (found.masks.resized(size) * scores[:, None, None]).topk(2, dim=0).values
    return first - second > 1e-6


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", MODELS)
def test_panoptic_segments_are_those_of_the_library(
    kind: str, size: tuple[int, int], models: dict[str, Path]
) -> None:
    image = random_image(*size)
    processor, outputs = library_outputs(models[kind], image)
    arguments: dict[str, Any] = {"threshold": 0.3, "overlap_mask_area_threshold": 0.1}
    if "eomt" in kind:
        arguments |= {"stuff_classes": FUSED}
    else:
        arguments |= {"label_ids_to_fuse": FUSED, "mask_threshold": 0.3}
    (expected,) = processor.post_process_panoptic_segmentation(
        outputs, target_sizes=[size], **arguments
    )
    (found,) = find(build(models[kind]), image)
    ids, labels = segments_of(kind, found, size)
    # EoMT counts from 0, with -1 for no segment.
    clear = without_ties(found, size)
    assert torch.equal(ids[clear], expected["segmentation"][clear] + ("eomt" in kind))
    assert labels == [segment["label_id"] for segment in expected["segments_info"]]
    assert labels


@pytest.mark.parametrize("kind", ["mask2former", "maskformer", "oneformer", "detr"])
def test_masks_are_those_that_the_library_averages(kind: str, models: dict[str, Path]) -> None:
    """Its semantic scores are sums of masks, so that one class per mask shows each of them."""
    image = random_image(60, 90)
    processor, outputs = library_outputs(models[kind], image)
    logits = torch.eye(NUM_QUERIES, NUM_QUERIES + 1)[None] * 1000
    outputs["logits" if kind == "detr" else "class_queries_logits"] = logits
    (scores,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[(60, 90)], return_segmentation_scores=True
    )
    (found,) = find(build(models[kind]), image)
    assert_close(found.masks.resized((60, 90)), scores.segmentation_scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["eomt", "eomt_dinov3"])
def test_the_padding_of_a_square_is_no_part_of_the_masks(
    kind: str, models: dict[str, Path]
) -> None:
    processor, outputs = library_outputs(models[kind], image := random_image(50, 100))
    squares = F.interpolate(outputs.masks_queries_logits, (64, 64), mode="bilinear")
    (expected,) = processor.unpad_image(squares, [(50, 100)], processor.size)
    (found,) = find(build(models[kind]), image)
    assert_close(found.masks.resized((50, 100)), expected.sigmoid(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 150), (100, 64), (64, 64)], ids=str)
def test_windows_are_merged_as_by_the_library(size: tuple[int, int], tmp_path: Path) -> None:
    folder = save_tiny_model("eomt", tmp_path)
    processor = transformers.EomtImageProcessor(
        size={"shortest_edge": 64, "longest_edge": None}, do_split_image=True
    )
    processor.save_pretrained(folder)
    images = [random_image(*size) for _ in range(2)]
    found = find(build(folder), *images)
    for image, masks in zip(images, found, strict=True):
        processor, outputs = library_outputs(folder, image)
        (expected,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
        assert masks.logits is not None
        classified = ClassifiedMasks(masks.masks, masks.logits, len(LABELS))
        assert torch.equal(semantic_labels(classified, size), expected)


def test_padding_to_a_fixed_size_is_no_part_of_the_masks(tmp_path: Path) -> None:
    folder = save_tiny_model("maskformer", tmp_path)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"pad_size": {"height": 128, "width": 160}}
    path.write_text(json.dumps(settings))
    (found,) = find(build(folder), random_image(64, 96))
    assert found.masks.frame is not None
    assert found.masks.frame.padded_size == (128, 160)
    assert found.masks.frame.image_size == (64, 96)


@pytest.mark.parametrize("kind", MODELS)
def test_images_do_not_change_each_other(kind: str, models: dict[str, Path]) -> None:
    generator = build(models[kind])
    images = [random_image(60, 90), random_image(100, 50), random_image(60, 90)]
    for image, found in zip(images, find(generator, *images), strict=True):
        (alone,) = find(generator, image)
        assert_close(found.masks.values, alone.masks.values, atol=1e-4, rtol=0)
        assert_close(found.logits, alone.logits, atol=1e-4, rtol=0)


def test_the_output_size_is_that_of_the_record(models: dict[str, Path]) -> None:
    generator = build(models["eomt"])
    with torch.no_grad():
        (found,) = generator([{"image": random_image(60, 90), "height": 30, "width": 45}])
    assert found.masks.shape == (30, 45)


def test_every_architecture_is_tested() -> None:
    assert set(MODELS) == set(MODEL_TYPES)


def test_it_classifies_with_its_own_labels(models: dict[str, Path]) -> None:
    """Whatever DATASETS.TRAIN is."""
    ensemble = (".TEST.ENSEMBLE_ON", True, ".TEST.GEOMETRIC_ENSEMBLE_BETA", 0.0)
    model = tiny_model(*options(models["detr"], *ensemble, "DATASETS.TRAIN", ())).eval()
    model.set_test_vocabulary(["sky", "palm tree", "wall"])
    record: Any = {"image": random_image(60, 90)}
    (found,) = model.classify_masks([record])
    (own,) = find(build(models["detr"]), record["image"])
    assert own.logits is not None
    expected = own.logits[:, [2, 1, 0, 3]].softmax(dim=1)
    assert_close(found.logits.softmax(dim=1), expected, atol=1e-5, rtol=0)


def test_of_labels_without_names_only_void_is_used(tmp_path: Path) -> None:
    folder = save_tiny_model("detr", tmp_path, {0: "LABEL_0", 1: "LABEL_1"})
    record: Any = {"image": random_image(60, 90)}
    results = []
    for ensemble in (False, True):
        model = tiny_model(*options(folder, ".TEST.ENSEMBLE_ON", ensemble)).eval()
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        (found,) = model.classify_masks([record])
        results.append(found.logits)
    assert torch.equal(*results)
    (own,) = find(build(folder), record["image"])
    assert own.logits is not None
    void = own.logits.softmax(dim=1)[:, -1]
    assert_close(results[0].softmax(dim=1)[:, -1], void, atol=1e-5, rtol=0)


def test_labels_of_coco_are_also_known_without_their_endings() -> None:
    labels = {0: "road, route", 1: "wall-other-merged", 2: "floor-wood"}
    assert classes_of_labels(labels).classes == (
        ("road", "route"),
        ("wall-other-merged", "wall"),
        ("floor-wood", "wood floor"),
    )


def test_labels_that_match_no_requested_word_are_told_once(
    models: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    generator = build(models["detr"], ".TEST.ENSEMBLE_ON", True)
    with caplog.at_level(logging.WARNING):
        for words in (["unicorn"], ["unicorn"], ["wall"]):
            generator.set_vocabulary(Vocabulary.from_class_names(words))
    assert caplog.text.count("none of the 3 labels of the mask generator is a requested word") == 1


def test_a_model_of_another_task_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    config = transformers.SegformerConfig(hidden_sizes=[8] * 4, num_attention_heads=[1] * 4)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match=r"is a model of the type 'segformer', but .* \['detr'"):
        build(tmp_path / "other")
    # The same architecture, trained for boxes: it has no weights that predict masks.
    config = transformers.AutoConfig.from_pretrained(models["detr"])
    transformers.DetrForObjectDetection(config).save_pretrained(tmp_path / "boxes")
    shutil.copy(models["detr"] / "preprocessor_config.json", tmp_path / "boxes")
    with pytest.raises(InputError, match=r"lacks \d+ weights .* trained for another task"):
        build(tmp_path / "boxes")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_damaged_file_is_told_in_one_sentence(
    file: str, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models["eomt"], tmp_path / "copy"))
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableFileError, match=r"PRETRAINED: the model in .* cannot be loaded"):
        build(folder)


def test_weights_that_are_pickled_or_code_are_not_read(
    models: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models["eomt"], tmp_path / "copy"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no weights in the safetensors format"):
        build(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = {"AutoModelForUniversalSegmentation": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "evil.py").write_text("raise RuntimeError('executed')")
    assert type(build(folder).model).__module__.startswith("transformers.")
