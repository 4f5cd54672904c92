"""What people read from a result."""

import numpy as np
import pytest
import torch

from maskclippp.inference.postprocess import ClassifiedMasks
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.segmentation import Segmentation
from maskclippp.words.requested import RequestedWords
from maskclippp.words.vocabulary import Vocabulary

WORDS = RequestedWords(
    Vocabulary.from_class_names(["cat, kitten", "dog", "grass"]), frozenset({0, 1})
)
IMAGE = np.full((40, 60, 3), 90, dtype=np.uint8)


def made(task: str = "panoptic", **options: object) -> Segmentation:
    """Two cats, grass below them, nothing above."""
    masks = torch.zeros(3, 40, 60)
    masks[0, 10:20, 5:25] = 1
    masks[1, 10:20, 35:55] = 1
    masks[2, 20:, :] = 1
    logits = torch.tensor([[4.0, 1, 0], [3, 2, 0], [0, 0, 5]])
    embeddings = torch.eye(3) * 7
    found = ClassifiedMasks(SoftMasks(masks), logits, 3)
    return Segmentation(IMAGE, found, WORDS, task, mask_embeddings=embeddings, **options)


def test_pixels_have_classes_and_segments() -> None:
    result = made()
    assert result.orig_shape == (40, 60)
    assert result.labels[15, 10] == 0
    assert result.labels[30, 10] == 2
    assert result.labels[0, 0] == -1
    assert result.panoptic[15, 10] == 1
    assert result.panoptic[15, 40] == 2
    assert result.panoptic[0, 0] == 0


def test_a_segment_says_what_it_is() -> None:
    first, second, third = made().segments
    assert (first.id, first.label_id, first.label, first.is_thing) == (1, 0, "cat", True)
    assert first.area == 200
    assert first.bbox_xyxy == (5, 10, 25, 20)
    assert first.top_k[0] == ("cat", pytest.approx(first.score))
    assert [name for name, _ in second.top_k] == ["cat", "dog", "grass"]
    assert not third.is_thing


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("semantic", ["cat", "grass"]),
        ("panoptic", ["cat", "cat", "grass"]),
        ("instance", ["cat", "cat"]),
        ("masks", ["cat", "cat", "grass"]),
    ],
)
def test_the_task_says_what_a_segment_is(task: str, labels: list[str]) -> None:
    result = made(task, threshold=0.5)
    assert [segment.label for segment in result] == labels
    count = len(labels)
    assert len(result) == count
    assert result.masks.shape == (count, 40, 60)
    assert result.boxes.shape == (count, 4)
    assert result.scores.shape == result.class_ids.shape == (count,)
    assert result.embeddings.shape == (count, 3)
    assert np.allclose(np.linalg.norm(result.embeddings, axis=1), 1)
    for mask, segment in zip(result.masks, result.segments, strict=True):
        assert mask.sum() == segment.area


def test_segments_are_found_by_number_and_by_any_synonym() -> None:
    result = made()
    assert result[0] == result.segments[0]
    assert result[1:] == result.segments[1:]
    assert result["kitten"] == result["cat"] == result.segments[:2]
    assert result["dog"] == []
    with pytest.raises(ValueError, match=r"'bird' is not among the words"):
        result["bird"]
    with pytest.raises(IndexError):
        result[3]


def test_other_libraries_get_their_forms() -> None:
    result = made()
    coco = result.to_coco(7)
    assert coco[1]["bbox"] == [35, 10, 20, 10]
    assert {entry["image_id"] for entry in coco} == {7}
    hf = result.to_hf()
    assert hf["segmentation"][0, 0] == -1
    assert [info["id"] for info in hf["segments_info"]] == [1, 2, 3]
    image, annotations = result.to_annotated_image()
    assert image.shape == (40, 60, 3)
    assert [label for _, label in annotations] == ["cat", "cat", "grass"]
    assert result.summary() == "40 x 60, panoptic: 2 cat, grass"


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match=r"to_supervision needs the package supervision: pip"):
        made().to_supervision()


def test_the_picture_shows_the_segments() -> None:
    picture = np.asarray(made().plot(legend=False))
    assert picture.shape == IMAGE.shape
    assert (picture[25:38, 2:20] != 90).any()
    assert made("instance", threshold=0.99).plot(legend=False).tobytes() == IMAGE.tobytes()


@pytest.mark.parametrize("task", ["semantic", "panoptic", "instance", "masks"])
def test_nothing_found_is_a_result(task: str) -> None:
    none = ClassifiedMasks(SoftMasks(torch.zeros(0, 5, 5)), torch.zeros(0, 3), 3)
    result = Segmentation(IMAGE, none, WORDS, task)
    assert len(result) == 0
    assert (result.labels == -1).all()
    assert result.to_coco() == []
    assert result.plot().size[0] == 60
    assert result.summary().endswith("nothing")


def test_words_without_things_have_no_instances() -> None:
    stuff = RequestedWords(WORDS.vocabulary)
    found = made()._found
    assert len(Segmentation(IMAGE, found, stuff, "instance")) == 0


def test_an_object_of_just_the_threshold_is_found() -> None:
    best = made("instance").scores[0].item()
    assert len(made("instance", threshold=best)) == 1
    assert len(made("instance", threshold=best + 1e-6)) == 0


def test_of_objects_that_overlap_the_best_lies_on_top() -> None:
    masks = torch.ones(2, 40, 60)
    masks[1, :, 30:] = 0
    for logits in ([[4.0, 0, 0], [0, 2.0, 0]], [[2.0, 0, 0], [0, 4.0, 0]]):
        found = ClassifiedMasks(SoftMasks(masks), torch.tensor(logits), 3)
        result = Segmentation(IMAGE, found, WORDS, "instance", threshold=0.5)
        best = result.class_ids[0]
        ids = result.to_hf()["segmentation"]
        assert ids[20, 10] == 1
        assert ids[20, 50] == (1 if best == 0 else 2)
        left, right = (
            np.asarray(result.plot(legend=False, outlines=False))[20, x] for x in (10, 50)
        )
        assert (left == right).all() == (best == 0)
