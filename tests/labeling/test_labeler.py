"""Batches of images in, columns of labels out, as Ray Data's ``map_batches`` calls it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskclippp.errors import InputError
from maskclippp.labeling import Labeler
from tests.labeling.jobs import labeler
from tests.shapes_predictor import WORDS, picture


def test_paths_contents_and_pixels_get_the_same_labels(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "PNG")
    file = tmp_path / "a.png"
    file.write_bytes(buffer.getvalue())
    by_path = labeler()({"image": [str(file)], "id": [3]})
    contents = np.array([buffer.getvalue()], dtype=object)
    by_content = labeler()({"image": contents, "path": [str(file)], "id": [3]})
    by_pixels = labeler()({"image": picture()[None], "path": [str(file)], "id": [3]})
    labels = {key: by_path[key] for key in ("id", "height", "width", "segments", "error")}
    expected = labeler().predictor(file).to_coco(str(file))
    assert labels["segments"] == [expected]
    assert expected
    assert by_content == by_pixels == {"path": [str(file)], **labels}
    assert by_path["image"] == [str(file)]


def test_unreadable_images_have_an_error_instead_of_segments(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    found = labeler()({"image": [str(tmp_path / "a.png"), str(tmp_path / "b.png"), picture()]})
    assert "a.png cannot be read" in found["error"][0]
    assert "b.png does not exist" in found["error"][1]
    assert found["error"][2] is None
    assert found["height"] == [None, None, 192]
    assert found["segments"][:2] == [[], []]


def test_tiny_and_narrow_images_are_labeled() -> None:
    images = [np.zeros((*size, 3), np.uint8) for size in ((1, 1), (1, 300), (300, 1), (2, 3))]
    assert labeler()({"image": images})["error"] == [None] * 4


def test_things_may_be_read_only_once() -> None:
    from_list, from_iterator = (
        Labeler(WORDS, things, model="shapes", device="cpu").predictor.words.thing_classes
        for things in ([WORDS[0]], iter([WORDS[0]]))
    )
    assert from_list == from_iterator == {0}


def test_a_batch_without_images_names_its_columns() -> None:
    with pytest.raises(
        InputError, match=r"expected a column 'image' with images, found \['item'\]"
    ):
        labeler()({"item": [picture()]})


def test_the_fingerprint_follows_words_and_weights() -> None:
    before = labeler().fingerprint()
    parameter = next(labeler().predictor.model.mask_generator.parameters())
    value = parameter.flatten()[0].item()
    parameter.flatten()[0] += 1
    changed = labeler().fingerprint()
    parameter.flatten()[0] = value
    assert {key for key in before if before[key] != changed[key]} == {"weights"}
    words, things = labeler().predictor.names, labeler().predictor.words.thing_classes
    labeler().predictor.set_classes([*words], things=[])
    changed = labeler().fingerprint()
    labeler().predictor.set_classes([*words], things=[words[index] for index in things])
    assert {key for key in before if before[key] != changed[key]} == {"words"}
    assert labeler().fingerprint() == before
