"""Requests to the page, without the page: words, limits, and what is kept between them."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskclippp.app.studio import (
    MAX_SIDE,
    MAX_SYNONYMS,
    Request,
    Studio,
    checked_words,
    read_picture,
    split_words,
)
from maskclippp.errors import InputError
from tests.shapes_predictor import WORDS, picture, shapes_predictor


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    for index in range(2):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.png")
    return Studio({"shapes": shapes_predictor()})


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return Request("shapes", tmp_path / "0.png", tuple(WORDS))


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("", ()),
        (" \n ; \n", ()),
        ("cat", ("cat",)),
        ("cat;", ("cat",)),
        ("sky, dog", ("sky", "dog")),
        ("cat, kitten;", ("cat, kitten",)),
        ("cat, kitten; grass", ("cat, kitten", "grass")),
        ("cat, kitten\ngrass", ("cat, kitten", "grass")),
        ("\n cat, kitten;\r\n\n grass; sky;\n", ("cat, kitten", "grass", "sky")),
        ("cat;; dog", ("cat", "", "dog")),
    ],
)
def test_lines_and_semicolons_separate_classes(text: str, classes: tuple[str, ...]) -> None:
    assert split_words(text) == classes


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), "no words to look for"),
        (("cat", "", "dog"), "class 1: .* found a blank"),
        (("cat", "Cat"), "occur more than once"),
        (("<b>cat</b>",), "does not belong in a name"),
        (tuple(f"w{i}" for i in range(MAX_SYNONYMS + 1)), "at most 1,000 are taken here"),
        (("x" * 20_001,), "20,001 characters"),
    ],
)
def test_unusable_words_are_one_sentence(classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_words(classes)


def test_what_was_typed_is_never_a_file_or_a_dataset(studio: Studio, request_: Request) -> None:
    for text in ("/etc/passwd", "shapes_val", "ade20k_150"):
        assert studio.segment(replace(request_, classes=split_words(text))).names == (text,)


def test_other_words_do_not_encode_the_picture_again(studio: Studio, request_: Request) -> None:
    first = studio.segment(request_)
    second = studio.segment(replace(request_, classes=("gray brick wall",), task="panoptic"))
    assert second.names == ("gray brick wall",)
    assert second.speed["encode"] == first.speed["encode"]
    other = studio.segment(replace(request_, picture=request_.picture.with_name("1.png")))
    assert other.speed["encode"] != first.speed["encode"]


def test_the_result_is_that_of_the_predictor(studio: Studio, request_: Request) -> None:
    expected = shapes_predictor().set_classes(WORDS)(picture())
    assert np.array_equal(studio.segment(request_).labels, expected.labels)


def test_a_file_of_the_same_name_is_another_picture(studio: Studio, request_: Request) -> None:
    before = studio.segment(request_).labels
    Image.fromarray(picture(1)).save(request_.picture)
    assert not np.array_equal(studio.segment(request_).labels, before)


def test_people_who_ask_at_once_get_their_own_words(studio: Studio, request_: Request) -> None:
    asked = [replace(request_, classes=(word, WORDS[2])) for word in ("red disc", "blue square")]
    found: dict[int, set[tuple[str, ...]]] = {0: set(), 1: set()}

    def ask(person: int) -> None:
        for _ in range(5):
            found[person].add(studio.segment(asked[person]).names)

    threads = [threading.Thread(target=ask, args=[person]) for person in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {person: {request.classes} for person, request in enumerate(asked)}


def test_what_visitors_type_is_not_written_to_the_disk(
    studio: Studio, request_: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))
    studio.segment(replace(request_, classes=("a word of mine",)))
    assert not list(tmp_path.glob("cache/**/*.safetensors"))


def test_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    Image.new("RGB", (2 * MAX_SIDE, MAX_SIDE)).save(tmp_path / "large.png")
    assert read_picture(tmp_path / "large.png").size == (MAX_SIDE, MAX_SIDE // 2)


def test_wrong_pictures_are_named_without_their_folder(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (8000, 7000)).save(tmp_path / "huge.png")
    for name, reason in (
        ("text.png", "no picture of a known format"),
        ("huge.png", "at most 50,000,000 are taken here"),
        ("absent.png", "does not exist"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            read_picture(tmp_path / name)
        assert name in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def test_a_model_that_is_not_offered_is_refused(studio: Studio, request_: Request) -> None:
    with pytest.raises(InputError, match="'other' is not one of those of this page"):
        studio.segment(replace(request_, model="other"))
