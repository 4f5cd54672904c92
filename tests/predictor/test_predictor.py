"""Images and words in, segmentations out; an image is encoded once."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskclippp import Predictor
from tests.shapes_predictor import WORDS, picture, scene, shapes_predictor, words_of_scene


@pytest.fixture
def predictor() -> Predictor:
    return shapes_predictor().set_classes(WORDS)


def encodings(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of images whenever the image tower runs."""
    counts: list[int] = []
    hook = predictor.model.visual_encoder.register_forward_hook(
        lambda _, inputs, __: counts.append(len(inputs[0]))
    )
    monkeypatch.setattr(predictor, "_hook", hook, raising=False)
    return counts


def test_the_built_in_model_names_what_it_sees() -> None:
    predictor = shapes_predictor().set_classes(words_of_scene())
    result = predictor(picture())
    names = [segment.category.names[0] for segment in scene().segments]
    truth = np.full(result.orig_shape, -1)
    for segment in scene().segments:
        first = [name.split(",")[0] for name in predictor.names]
        truth[scene().segment_ids == segment.id] = first.index(segment.category.names[0])
    assert len(names) > 2
    assert (result.labels == truth).mean() > 0.5


def test_all_forms_of_an_image_give_the_same(predictor: Predictor, tmp_path: Path) -> None:
    pixels = picture()
    file = tmp_path / "picture.png"
    Image.fromarray(pixels).save(file)
    forms = [pixels, Image.open(file), torch.from_numpy(pixels).permute(2, 0, 1), file, str(file)]
    results = predictor(forms)
    assert all(np.array_equal(r.labels, results[0].labels) for r in results)
    assert [r.path for r in results[3:]] == [file, file]
    assert np.array_equal(results[0].image, pixels)


def test_a_list_gives_a_list_in_its_order(predictor: Predictor) -> None:
    images = [picture(0), picture(1)[:128], picture(2)]
    for together, image in zip(predictor(images), images, strict=True):
        alone = predictor(image)
        assert together.orig_shape == image.shape[:2]
        assert (together.labels == alone.labels).mean() > 0.999


def test_a_folder_is_segmented_in_batches(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(5):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._0.png").touch()
    counts = encodings(predictor, monkeypatch)
    results = list(predictor.stream(tmp_path, batch_size=2))
    assert [r.path.name for r in results] == [f"{index}.png" for index in range(5)]
    assert counts == [2, 2, 1]
    assert set(results[0].speed) == {"read", "encode", "classify", "output"}


def test_on_a_cpu_images_are_encoded_one_by_one(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = encodings(predictor, monkeypatch)
    assert len(predictor([picture()] * 2)) == 2
    assert counts == [1, 1]


def test_an_image_that_cannot_be_read_is_raised_or_reported(
    predictor: Predictor, tmp_path: Path
) -> None:
    Image.fromarray(picture()).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        list(predictor.stream(tmp_path))
    reported = []
    results = list(predictor.stream(tmp_path, on_error=lambda *error: reported.append(error)))
    assert [r.path.name for r in results] == ["b.png"]
    assert [path.name for path, _ in reported] == ["a.png"]


def test_words_change_without_encoding_again(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = encodings(predictor, monkeypatch)
    predictor.set_image(picture())
    found = predictor.predict(["blue striped square", "pink cloudy sky"])
    again = predictor.predict(task="panoptic")
    assert counts == [1]
    assert found.names == ("blue striped square", "pink cloudy sky")
    assert again.names == tuple(WORDS)
    fresh = predictor(picture(), task="panoptic")
    assert np.array_equal(again.panoptic, fresh.panoptic)
    predictor.set_classes(["blue striped square", "pink cloudy sky"])
    assert np.array_equal(predictor(picture()).labels, found.labels)


def test_masks_of_other_programs_are_classified(predictor: Predictor) -> None:
    predictor.set_classes(words_of_scene())
    predictor.set_image(picture())
    segments = scene().segments
    masks = np.stack([scene().segment_ids == segment.id for segment in segments])
    result = predictor.predict_masks(masks)
    assert np.array_equal(result.masks, masks)
    right = [r.label == s.category.names[0] for r, s in zip(result, segments, strict=True)]
    assert sum(right) > len(right) / 2
    assert (predictor.predict_masks(masks[:1]).labels == -1).any()  # no mask, no class
    assert len(predictor.predict_masks(masks[:0])) == 0


def test_superpixels_need_no_download_either() -> None:
    predictor = Predictor.from_pretrained("shapes", generator="superpixels", device="cpu")
    result = predictor.set_classes(WORDS)(picture(), task="panoptic")
    assert (result.panoptic > 0).mean() > 0.5


def test_callers_in_threads_do_not_mix_their_words(predictor: Predictor) -> None:
    encoded = predictor.encode(picture())
    vocabularies = [[f"red {number}", "gray brick wall"] for number in range(4)]
    expected = [predictor.classify(encoded, words).labels for words in vocabularies]
    found: dict[int, list[np.ndarray]] = {index: [] for index in range(4)}

    def work(index: int) -> None:
        for _ in range(3):
            found[index].append(predictor.classify(encoded, vocabularies[index]).labels)

    threads = [threading.Thread(target=work, args=(index,)) for index in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, labels in found.items():
        assert len(labels) == 3
        assert all(np.array_equal(each, expected[index]) for each in labels)


def test_equal_words_are_not_embedded_again(predictor: Predictor) -> None:
    words = predictor._words
    predictor.set_classes("; ".join(WORDS))
    assert predictor._words is words


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p(picture(), task="instances"), r"task 'instances' is not one of"),
        (lambda p: p(picture(), threshold=50), r"threshold: expected a probability in 0\.\.1"),
        (lambda p: list(p.stream([picture()], batch_size=0)), r"batch_size: expected a positive"),
        (lambda p: p("absent.jpg"), r"image absent\.jpg does not exist"),
        (lambda p: p("/usr"), r"image /usr is a folder"),
        (lambda p: p(3), r"an image of type int: expected a path"),
        (lambda p: p(picture() / 255), r"expected an array uint8 .* found float64 \[192, 256, 3\]"),
        (
            lambda p: p(picture().transpose(2, 0, 1)),
            r"found uint8 \[3, 192, 256\]: check the order",
        ),
        (lambda p: p(torch.zeros(3, 8, 8)), r"expected a tensor uint8 .*found torch\.float32"),
        (lambda p: list(p.stream("absent")), r"absent is not a folder"),
        (lambda p: p.set_classes([]), r"no class names were given"),
        (lambda p: p.set_classes(["  "]), r"class 0: expected a word such as 'cat', found a blank"),
        (lambda p: p.set_classes(["cat", "Cat"]), r"occur more than once"),
        (lambda p: p.set_classes("ade20k_15"), r"did you mean ade20k_150"),
        (lambda p: p.set_classes(["cat"], things=["dog"]), r"things: 'dog' is not among the words"),
    ],
)
def test_wrong_input_is_one_sentence(predictor: Predictor, call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(predictor)
    assert "\n" not in str(caught.value)


def test_what_must_come_first_is_said() -> None:
    fresh = Predictor(shapes_predictor().model)
    with pytest.raises(ValueError, match=r"call set_classes"):
        fresh(picture())
    with pytest.raises(ValueError, match=r"call set_image"):
        fresh.predict(["cat"])
    fresh.set_image(picture())
    with pytest.raises(ValueError, match=r"expected masks \[N, 192, 256\], .*found \[1, 5, 5\]"):
        fresh.predict_masks(np.ones((1, 5, 5), bool), ["cat"])
    with pytest.raises(ValueError, match=r"probabilities in 0\.\.1, found -1\.\.-1"):
        fresh.predict_masks(-np.ones((1, 192, 256)), ["cat"])
    with pytest.raises(ValueError, match=r"probabilities in 0\.\.1, found nan\.\.nan"):
        fresh.predict_masks(np.full((1, 192, 256), np.nan), ["cat"])
    with pytest.raises(ValueError, match=r"masks as an array \[N, 192, 256\], found a list"):
        fresh.predict_masks([np.ones((192, 256), bool), np.ones((5, 5), bool)], ["cat"])


def test_streams_share_converted_weights_and_leave_no_trace() -> None:
    predictor = Predictor.from_pretrained("shapes", device="cpu", dtype="bfloat16")
    predictor.set_classes(WORDS)
    alone = predictor(picture())
    before = dict(predictor.model.named_parameters())
    first, second = (predictor.stream([picture()] * 2) for _ in range(2))
    found = [next(first), next(second)]
    half = [p for p in predictor.model.parameters() if p.dtype == torch.bfloat16]
    assert half
    first.close()
    found += list(second)
    assert all(np.array_equal(result.labels, alone.labels) for result in found)
    after = dict(predictor.model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
