"""What users and the trainer rely on in the whole model."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor
from torch.testing import assert_close

from maskclippp.meta_arch import MaskCLIPpp
from tests.generators.tiny_generators import fcclip_config
from tests.tiny_models import (
    TEST_CLASSES,
    labeled_record,
    random_image,
    soft,
    striped_record,
    tiny_config,
    tiny_model,
    train_record,
)

PSMS = {
    "DummyPSM": (),
    "LinearPSM": (".PSM.CORR_WIDTH", 8),
    "PseudoTextPSM": (
        *(".PSM.IN_FEATURES", ["p_embs"], ".PSM.CORR_RESIDUAL", True),
        *(".PSM.USE_LOGIT_SCALE", True),
    ),
}
ALL_OUTPUTS = (
    *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True),
    *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
)


def no_masks(size: tuple[int, int]) -> dict[str, Any]:
    return train_record(size, [], torch.zeros(0, *size, dtype=torch.bool))


def trained(model: MaskCLIPpp) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def text_embeddings(model: MaskCLIPpp) -> Tensor:
    """Embeddings of the requested synonyms."""
    return model.text_classifier.embed_frozen(model.requested_words.vocabulary.synonyms)


class TestTraining:
    """``model(records) -> {"loss_ce": scalar}``"""

    @pytest.mark.parametrize("text", ["none", "attention", "all"])
    @pytest.mark.parametrize("psm", PSMS)
    @pytest.mark.parametrize("use_scale", [False, True])
    def test_every_trained_parameter_gets_a_gradient(
        self, psm: str, text: str, use_scale: bool
    ) -> None:
        model = tiny_model(
            *(".PSM.NAME", psm, *PSMS[psm], ".TEXT_ENCODER.FINETUNE_TYPE", text),
            *(".USE_LOGIT_SCALE", use_scale),
        ).train()
        records = [striped_record((64, 64), [0, 1]), striped_record((96, 64), [2])]
        loss = model(records)["loss_ce"]
        assert loss.isfinite()
        assert loss > 0
        loss.backward()
        missing = [name for name, p in trained(model).items() if p.grad is None]
        assert missing == []

    @pytest.mark.parametrize("text", ["none", "all"])
    @pytest.mark.parametrize("psm", PSMS)
    def test_a_batch_without_masks_gives_zero_that_touches_every_trained_parameter(
        self, psm: str, text: str
    ) -> None:
        """DistributedDataParallel waits for all gradients of every step."""
        model = tiny_model(
            *(".PSM.NAME", psm, *PSMS[psm], ".TEXT_ENCODER.FINETUNE_TYPE", text),
            *(".USE_LOGIT_SCALE", True),
        ).train()
        loss = model([no_masks((64, 64)), no_masks((64, 96))])["loss_ce"]
        assert loss == 0
        loss.backward()
        gradients = {name: p.grad for name, p in trained(model).items()}
        assert gradients
        for name, gradient in gradients.items():
            assert gradient is not None, name
            assert not gradient.any(), name

    def test_an_image_without_masks_does_not_change_the_loss_of_others(self) -> None:
        model = tiny_model(".PSM.NAME", "DummyPSM").train()
        full = striped_record((64, 64), [0, 2])
        random.seed(0)  # the same synonyms
        alone = model([full])["loss_ce"]
        random.seed(0)
        with_empty = model([full, no_masks((64, 64))])["loss_ce"]
        assert_close(with_empty, alone)

    def test_frozen_towers_get_no_gradient(self) -> None:
        model = tiny_model().train()
        model([striped_record((64, 64), [0, 1])])["loss_ce"].backward()
        assert all(p.grad is None for p in model.text_encoder.parameters())

    def test_a_class_out_of_range_names_the_file(self) -> None:
        model = tiny_model().train()
        with pytest.raises(ValueError, match=r"some/image\.jpg: annotated class 3, but .* 3 class"):
            model([striped_record((64, 64), [0, 3])])

    def test_a_generator_is_neither_built_nor_needed(self) -> None:
        model = tiny_model(".SEGMENTOR.NAME", "no such generator", "DATASETS.TEST", ()).train()
        assert model([striped_record((64, 64), [0, 1])])["loss_ce"] > 0

    def test_generated_masks_take_the_labels_of_the_annotated_ones(self) -> None:
        model = tiny_model(
            ".TRAIN_MASKS", "segmentor", ".SEGMENTOR.NAME", "SuperpixelSegmentor"
        ).train()
        record = striped_record((64, 64), [2, 0])
        record["image"] = torch.zeros(3, 64, 64, dtype=torch.uint8)
        record["image"][0, :, 32:] = 255
        ((masks, labels),) = model._training_masks([record])
        at_left, at_right = (masks.values[:, 32, column] for column in (8, 56))
        assert labels[at_left].tolist() == [2]
        assert labels[at_right].tolist() == [0]
        loss = model([record])["loss_ce"]
        loss.backward()
        assert loss > 0

    def test_generated_masks_off_all_annotation_have_no_loss(self) -> None:
        model = tiny_model(
            ".TRAIN_MASKS", "segmentor", ".SEGMENTOR.NAME", "SuperpixelSegmentor"
        ).train()
        assert model([no_masks((64, 64))])["loss_ce"] == 0

    def test_one_synonym_per_class_is_sampled_anew(self) -> None:
        model = tiny_model(".PSM.NAME", "DummyPSM").train()
        record = striped_record((64, 64), [0, 1])
        losses = {round(model([record])["loss_ce"].item(), 6) for _ in range(20)}
        assert len(losses) > 1

    def test_training_sets_must_share_their_classes(self) -> None:
        MetadataCatalog.get("meta_arch_other").set(stuff_classes=["a", "b"])
        with pytest.raises(ValueError, match=r"'tiny_train' \(3 .*'meta_arch_other' \(2 classes\)"):
            tiny_model("DATASETS.TRAIN", ("tiny_train", "meta_arch_other"))

    def test_no_training_set_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"set DATASETS\.TRAIN"):
            tiny_model("DATASETS.TRAIN", ()).train()([striped_record((64, 64), [0])])


class TestLogitScale:
    """USE_LOGIT_SCALE: the factor of the similarities is trained and saved."""

    def test_it_trains_and_is_saved_when_the_text_tower_is_frozen(self) -> None:
        model = tiny_model(".USE_LOGIT_SCALE", True).train()
        assert model.logit_scale is not None
        model([striped_record((64, 64), [0, 1])])["loss_ce"].backward()
        assert model.logit_scale.grad is not None
        assert model.logit_scale.grad != 0
        assert "logit_scale" in model.checkpoint_prefixes
        assert "logit_scale" in model.state_dict()

    def test_a_tuned_text_tower_brings_its_own(self) -> None:
        model = tiny_model(".USE_LOGIT_SCALE", True, ".TEXT_ENCODER.FINETUNE_TYPE", "all")
        assert model.logit_scale is model.text_encoder.logit_scale
        assert "text_encoder" in model.checkpoint_prefixes
        assert "logit_scale" not in model.checkpoint_prefixes

    def test_a_partly_tuned_text_tower_does_not_train_its_own(self) -> None:
        model = tiny_model(".USE_LOGIT_SCALE", True, ".TEXT_ENCODER.FINETUNE_TYPE", "attention")
        assert model.logit_scale is not model.text_encoder.logit_scale
        assert {"text_encoder", "logit_scale"} <= set(model.checkpoint_prefixes)

    def test_unused_it_is_not_trained(self) -> None:
        model = tiny_model(".TEXT_ENCODER.FINETUNE_TYPE", "all")
        assert "text_encoder.logit_scale" not in trained(model)
        assert model.checkpoint_prefixes[:3] == ("visual_encoder", "psm", "criterion")


class TestEvaluation:
    """``model(records)`` -> one dictionary per image."""

    def test_outputs_of_the_config(self) -> None:
        model = tiny_model(*ALL_OUTPUTS).eval()
        record = {**labeled_record((64, 80), 0, 1, 3), "height": 100, "width": 130}
        (result,) = model([record])
        assert result["sem_seg_labels"].shape == (100, 130)
        ids, segments = result["panoptic_seg"]
        assert ids.shape == (100, 130)
        assert segments
        assert all(segment["isthing"] == (segment["category_id"] == 1) for segment in segments)
        assert result["instances"].pred_masks.shape[1:] == (100, 130)
        assert set(result["instances"].pred_classes.tolist()) <= {1}
        assert result["category_overlapping_mask"].tolist() == [False, True, True, False]

    def test_mask_accuracy_needs_the_classes_of_the_masks_alone(self) -> None:
        (result,) = tiny_model(".TEST.MASK_ACC", True).eval()([labeled_record((64, 80), 0, 1)])
        assert result["mask_cls"].shape == (2,)
        assert set(result) == {"mask_cls", "category_overlapping_mask"}

    def test_the_generator_alone_is_judged_by_its_masks(self) -> None:
        record = {**labeled_record((64, 80), 0, 1, 3), "height": 32, "width": 40}
        (result,) = tiny_model(".TEST.SEGMENTOR_ONLY", True).eval()([record])
        assert result["pred_masks"].shape == (3, 32, 40)
        assert result["pred_masks"].dtype == torch.bool

    def test_scores_agree_with_labels(self) -> None:
        record = labeled_record((64, 80), 0, 1, 3)
        model = tiny_model().eval()
        (labels,) = model([record])
        model.inference = type(model.inference)(semantic_output="scores")
        (scores,) = model([record])
        assert scores["sem_seg"].shape == (4, 64, 80)
        assert torch.equal(scores["sem_seg"].argmax(dim=0), labels["sem_seg_labels"])

    @pytest.mark.parametrize("generator", ["GTSegmentor", "SuperpixelSegmentor"])
    def test_a_batch_equals_its_images_one_by_one(self, generator: str) -> None:
        model = tiny_model(".SEGMENTOR.NAME", generator, *ALL_OUTPUTS).eval()
        records = [labeled_record((64, 96), *labels) for labels in ([0, 1], [3], [2, 0, 255])]
        for record, result in zip(records, model(records), strict=True):
            (alone,) = model([record])
            assert torch.equal(result["sem_seg_labels"], alone["sem_seg_labels"])
            assert result["panoptic_seg"][1] == alone["panoptic_seg"][1]
            assert_close(result["instances"].scores, alone["instances"].scores)

    @pytest.mark.parametrize("psm", PSMS)
    def test_an_image_without_masks(self, psm: str) -> None:
        """All of its annotation is "ignore"."""
        model = tiny_model(".PSM.NAME", psm, *PSMS[psm], *ALL_OUTPUTS).eval()
        records = [labeled_record((64, 64), 255), labeled_record((64, 64), 0, 1)]
        empty, full = model(records)
        assert empty["panoptic_seg"][1] == []
        assert not empty["panoptic_seg"][0].any()
        assert len(empty["instances"]) == 0
        assert empty["sem_seg_labels"].shape == (64, 64)
        assert_close(full["sem_seg_labels"], model(records[1:])[0]["sem_seg_labels"])
        (only,) = model(records[:1])
        assert only["panoptic_seg"][1] == []

    def test_bfloat16_gives_float_results(self) -> None:
        torch.manual_seed(0)
        exact = tiny_model().eval()
        torch.manual_seed(0)
        rough = tiny_model(".TEST.DTYPE", "bfloat16").eval()
        for model in (exact, rough):
            model.inference = type(model.inference)(
                semantic_output="scores", dtype=model.inference.dtype
            )
        record = labeled_record((64, 80), 0, 1, 3)
        expected, found = exact([record])[0]["sem_seg"], rough([record])[0]["sem_seg"]
        assert found.dtype == torch.float32
        spread = expected.max() - expected.min()
        assert 0 < (found - expected).abs().max() < min(0.02, spread / 4)

    def test_bfloat16_tells_hundreds_of_words_apart(self) -> None:
        """Similarities of many words lie closer together than bfloat16 can tell."""
        torch.manual_seed(0)
        model = tiny_model(".TEST.DTYPE", "bfloat16", ".PSM.NAME", "DummyPSM").eval()
        model.set_test_vocabulary([f"word number {number}" for number in range(300)])
        encoded = model.visual_encoder([random_image(64, 64)], soft([torch.ones(1, 64, 64)]))
        exact = model._align(encoded, text_embeddings(model))
        logits = []
        model.psm.register_forward_hook(lambda module, inputs, found: logits.append(found))
        model([labeled_record((64, 80), 0, 1)])
        assert len(logits[0][0].unique()) > 0.9 * len(exact[0].unique())

    def test_a_missing_generator_is_an_error_before_training(self) -> None:
        with pytest.raises(ValueError, match=r"SEGMENTOR\.NAME: 'FCCLIP' is not one of"):
            tiny_model(".SEGMENTOR.NAME", "FCCLIP")

    def test_a_generator_without_its_encoder_is_an_error_before_training(self) -> None:
        with pytest.raises(ValueError, match=r"'FCCLIPSegmentor' decodes .*VISUAL_ENCODER_F"):
            tiny_model(".SEGMENTOR.NAME", "FCCLIPSegmentor")

    def test_images_of_a_batch_do_not_change_each_other(self) -> None:
        """A smaller image is not padded to the size of a larger one."""
        torch.manual_seed(0)
        psm = (".PSM.NAME", "PseudoTextPSM", ".PSM.IN_FEATURES", ["p_embs"])
        model = tiny_model(*ALL_OUTPUTS, *psm).eval()
        records = [
            labeled_record(size, 0, 1, 3) for size in ((64, 80), (150, 90), (64, 80), (33, 40))
        ]
        for record, together in zip(records, model(records), strict=True):
            (alone,) = model([record])
            assert torch.equal(alone["sem_seg_labels"], together["sem_seg_labels"])
            assert_close(alone["instances"].scores, together["instances"].scores)
            assert torch.equal(alone["panoptic_seg"][0], together["panoptic_seg"][0])

    def test_thing_classes_must_exist(self) -> None:
        with pytest.raises(ValueError, match=r"thing classes \[5\] are not in 0\.\.1"):
            tiny_model().set_test_vocabulary(["a", "b"], thing_classes=[5])

    def test_evaluation_keeps_no_graph(self) -> None:
        (result,) = tiny_model(*ALL_OUTPUTS).eval()([labeled_record((64, 80), 0, 1)])
        assert not result["instances"].scores.requires_grad

    def test_the_size_of_the_image_is_the_default_size_of_the_results(self) -> None:
        record = labeled_record((64, 80), 0, 1)
        del record["height"], record["width"]
        assert tiny_model().eval()([record])[0]["sem_seg_labels"].shape == (64, 80)

    def test_another_working_directory_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (result,) = tiny_model().eval()([labeled_record((64, 80), 0, 1)])
        assert result["sem_seg_labels"].shape == (64, 80)
        assert list(tmp_path.iterdir()) == []


class TestWords:
    """The test vocabulary may change at any time."""

    def test_any_words_can_be_asked_for(self) -> None:
        model = tiny_model(*ALL_OUTPUTS).eval()
        record = labeled_record((64, 80), 0, 1, 3)
        before = model([record])[0]
        words = "zebra; dog, hound; sea; lake; river; pond; hill; road; beach"
        model.set_test_vocabulary(words, thing_classes=[0, 1])
        changed = model([record])[0]
        assert changed["category_overlapping_mask"].tolist() == [False, True, *[False] * 7]
        model.set_test_dataset("tiny_test")
        assert torch.equal(model([record])[0]["sem_seg_labels"], before["sem_seg_labels"])

    def test_changed_words_equal_a_model_built_for_them(self) -> None:
        torch.manual_seed(0)
        built = tiny_model().eval()
        torch.manual_seed(0)
        changed = tiny_model("DATASETS.TEST", ()).eval()
        changed.set_test_vocabulary(TEST_CLASSES)
        record = labeled_record((64, 80), 0, 1, 3)
        expected = built([record])[0]["sem_seg_labels"]
        assert torch.equal(changed([record])[0]["sem_seg_labels"], expected)

    @pytest.mark.parametrize("make_config", [tiny_config, fcclip_config])
    def test_words_can_change_on_encoded_images(self, make_config: Callable[[], CfgNode]) -> None:
        torch.manual_seed(0)
        model = MaskCLIPpp(make_config()).eval()
        records = [labeled_record((64, 80), 0, 1, 3) for _ in range(2)]
        encoded = model.encode(records, model.requested_words)
        first = model.classify(encoded, model.requested_words)
        for found, expected in zip(first, model.classify_masks(records), strict=True):
            assert torch.equal(found.logits, expected.logits)
        model.set_test_vocabulary(["sky, heaven", "dog", "zebra"])
        changed = model.classify(encoded, model.requested_words)
        for found, expected in zip(changed, model.classify_masks(records), strict=True):
            assert_close(found.logits, expected.logits)
            assert torch.equal(found.masks.values, expected.masks.values)

    def test_masks_of_any_origin_are_classified(self) -> None:
        model = tiny_model().eval()
        record = labeled_record((64, 80), 0, 1, 3)
        expected = model.classify_masks([record])[0]
        model._get_generator = None  # not asked
        encoded = model.encode([record], masks=[expected.masks])
        (found,) = model.classify(encoded, model.requested_words)
        assert torch.equal(found.logits, expected.logits)
        (embeddings,) = encoded.mask_embeddings
        assert embeddings.shape == (3, 64)

    def test_words_must_be_given(self) -> None:
        model = tiny_model("DATASETS.TEST", ()).eval()
        with pytest.raises(ValueError, match=r"set DATASETS\.TEST, or call set_test_vocabulary"):
            model([labeled_record((64, 80), 0)])

    def test_a_tuned_text_tower_is_asked_again_after_training(self) -> None:
        model = tiny_model(".TEXT_ENCODER.FINETUNE_TYPE", "all").eval()
        before = text_embeddings(model)
        model.train()
        with torch.no_grad():
            model.text_encoder.get_parameter("text_projection").mul_(torch.linspace(0.5, 1.5, 64))
        model.eval()
        assert not torch.allclose(text_embeddings(model), before)


class TestConfig:
    """Impossible settings are refused before anything is computed."""

    def test_the_model_is_registered(self) -> None:
        assert META_ARCH_REGISTRY.get("MaskCLIPpp") is MaskCLIPpp

    def test_images_must_be_rgb(self) -> None:
        with pytest.raises(ValueError, match=r"INPUT\.FORMAT: CLIP reads RGB images, found 'BGR'"):
            MaskCLIPpp(tiny_config("INPUT.FORMAT", "BGR"))

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            (".VISUAL_ENCODER.NAME", "CLIPConvnext", r"VISUAL_ENCODER\.NAME: .*'CLIPConvNeXt'"),
            (".TEXT_ENCODER.NAME", "none", r"TEXT_ENCODER\.NAME: 'none' .*'CLIPTextEncoder'"),
            (".CRITERION.NAME", "CELoss", r"CRITERION\.NAME: 'CELoss' .*'ReweightCELoss'"),
            (".TEMPLATES", "t2", r"TEMPLATES: 't2' is not one of"),
            (".TRAIN_MASKS", "generated", r"TRAIN_MASKS: 'generated' is not one of"),
            (".TEST.SEMANTIC_OUTPUT", "maps", r"SEMANTIC_OUTPUT: 'maps' is not"),
            (".TEST.DTYPE", "int8", r"TEST\.DTYPE: 'int8' is not one of"),
        ],
    )
    def test_unknown_names_list_the_valid_ones(self, key: str, value: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            tiny_model(key, value)
