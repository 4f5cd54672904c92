"""FC-CLIP's generator classifies its masks into whatever words are asked for."""

import pytest
import torch
from torch.testing import assert_close

from maskclippp.generators import FCCLIPSegmentor, ImageMasks
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.words.vocabulary import Vocabulary
from tests.generators.tiny_generators import NUM_QUERIES, fcclip_config, tiny_generator
from tests.tiny_models import TEST_CLASSES, random_image

WORDS = Vocabulary.from_class_names(["cat, kitten", "dog", "grass, lawn, meadow", "sky"])
OTHER_WORDS = Vocabulary.from_class_names(["sky", "dog"])


def classifying(vocabulary: Vocabulary = WORDS) -> FCCLIPSegmentor:
    generator = tiny_generator("FCCLIPSegmentor")
    generator.set_vocabulary(vocabulary)
    assert isinstance(generator, FCCLIPSegmentor)
    return generator


def logits_of(generated: list[ImageMasks]) -> torch.Tensor:
    (found,) = generated
    assert found.logits is not None
    return found.logits


def test_logits_are_over_the_words_and_void() -> None:
    generated = classifying()([{"image": random_image(50, 70)}])
    assert generated[0].own_classes is None
    assert logits_of(generated).shape == (NUM_QUERIES, len(WORDS) + 1)


def test_without_words_there_are_masks_alone() -> None:
    (found,) = tiny_generator("FCCLIPSegmentor")([{"image": random_image(64, 64)}])
    assert found.logits is None
    assert len(found.masks) == NUM_QUERIES


def test_changed_words_change_the_columns_and_not_the_masks() -> None:
    generator = classifying()
    record = {"image": random_image(50, 70)}
    before = generator([record])
    generator.set_vocabulary(OTHER_WORDS)
    after = generator([record])
    assert torch.equal(before[0].masks.values, after[0].masks.values)
    # sky, dog, void
    assert_close(logits_of(after), logits_of(before)[:, [3, 1, 4]])


def test_a_class_scores_as_its_best_synonym() -> None:
    generator = classifying()
    record = {"image": random_image(50, 70)}
    of_classes = logits_of(generator([record]))
    generator.set_vocabulary(Vocabulary.from_class_names(WORDS.synonyms))
    of_names = logits_of(generator([record]))
    for index in range(len(WORDS)):
        best = of_names[:, :-1][:, WORDS.class_of_synonym == index].max(dim=1).values
        assert_close(of_classes[:, index], best)


def test_the_mean_over_templates_has_the_length_of_a_sentence() -> None:
    """Else words whose sentences differ much would score lower."""
    generator = tiny_generator("FCCLIPSegmentor", ".TEMPLATES_F", "t14")
    assert isinstance(generator, FCCLIPSegmentor)
    generator.set_vocabulary(WORDS)
    assert generator.text is not None
    assert generator.text_classifier is not None
    mean = generator.text_classifier.embed_frozen(WORDS.synonyms).mean(dim=1)
    assert mean.norm(dim=-1).max() < 0.999
    assert_close(generator.text, mean / mean.norm(dim=-1, keepdim=True))


def test_void_is_the_last_column() -> None:
    generator = classifying()
    record = {"image": random_image(50, 70)}
    before = logits_of(generator([record]))
    generator.void_embedding.weight.data.neg_()
    after = logits_of(generator([record]))
    assert_close(after[:, :-1], before[:, :-1])
    assert_close(after[:, -1], -before[:, -1])


def test_words_are_encoded_once() -> None:
    generator = classifying()
    embeddings = generator._text
    generator.set_vocabulary(Vocabulary(WORDS.classes))
    assert generator._text is embeddings


def test_logits_are_finite_in_bfloat16() -> None:
    generator = classifying()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = logits_of(generator([{"image": random_image(64, 64)}]))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_the_text_tower_is_no_part_of_the_state() -> None:
    generator = classifying()
    assert {key.split(".")[0] for key in generator.head.state_dict()} == {
        "pixel_decoder",
        "predictor",
        "void_embedding",
    }


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MASK_DIM \(16\) and MODEL\.MASK_FORMER\.HIDDEN_DIM"):
        tiny_generator("FCCLIPSegmentor", "MODEL.SEM_SEG_HEAD.MASK_DIM", 16)


@pytest.mark.parametrize(
    ("option", "value"), [("TEXT_ENCODER_F.NAME", "none"), ("TEMPLATES_F", "t15")]
)
def test_what_its_words_need_is_checked_before_training(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"MODEL\.MASKCLIPPP\.{option}: '{value}' is not one of"):
        MaskCLIPpp(fcclip_config(f".{option}", value))


def test_words_that_cannot_be_encoded_leave_the_earlier_ones() -> None:
    generator = classifying()
    record = {"image": random_image(50, 70)}
    before = logits_of(generator([record]))
    with pytest.raises((RuntimeError, ValueError)):
        generator.set_vocabulary(Vocabulary(()))
    assert_close(logits_of(generator([record])), before)


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_model_runs_on_its_masks(ensemble: bool) -> None:
    model = MaskCLIPpp(
        fcclip_config(
            *(".TEST.ENSEMBLE_ON", ensemble, ".TEST.GEOMETRIC_ENSEMBLE_ALPHA", 0.6),
            *(".TEST.SEMANTIC_OUTPUT", "scores", "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True),
        )
    ).eval()
    (result,) = model([{"image": random_image(40, 60), "height": 77, "width": 101}])
    assert result["sem_seg"].shape == (len(TEST_CLASSES), 77, 101)
    assert result["sem_seg"].isfinite().all()
    assert result["panoptic_seg"][0].shape == (77, 101)


def test_no_query_above_the_threshold_leaves_the_panoptic_map_empty() -> None:
    options = (
        *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True),
        *("MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", 1.0),
    )
    model = MaskCLIPpp(fcclip_config(*options)).eval()
    (result,) = model([{"image": random_image(40, 60)}])
    ids, segments = result["panoptic_seg"]
    assert segments == []
    assert not ids.any()
