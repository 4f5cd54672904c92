"""MaskCLIP++ as a detectron2 meta-architecture. It wires the parts and computes nothing itself.

Training: CLIP classifies annotated masks into the classes of the training set. Inference: a mask
generator supplies masks, which are classified into any requested classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from maskclippp.alignment import PSM, build_criterion, build_psm
from maskclippp.clip import EncodedImages, VisualEncoder, build_text_tower, build_visual_encoder
from maskclippp.clip.similarity import choose_logit_scale, similarity
from maskclippp.devices import copied_to
from maskclippp.errors import InputError, check_choice
from maskclippp.generators import ImageMasks, MaskGenerator, build_generator, check_generator
from maskclippp.inference.class_logits import combine_with_generator, max_over_synonyms
from maskclippp.inference.image_resize import resized_on
from maskclippp.inference.postprocess import ClassifiedMasks, binary_masks, image_results
from maskclippp.inference.settings import InferenceSettings
from maskclippp.masks.batching import call_by_size
from maskclippp.masks.overlap import label_by_overlap
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.training_masks import LabeledMasks, ground_truth_masks
from maskclippp.records import ImageResult, Record, check_images, output_size
from maskclippp.words import (
    RequestedWords,
    TextClassifier,
    Vocabulary,
    get_templates,
    training_vocabulary,
)


@dataclass(frozen=True)
class EncodedMasks:
    """A batch of images as far as it can be computed without words, but for ``generated.logits``.

    Attributes:
        generated: per image its masks.
        encoded: the images and the embeddings of all their masks, in float32.
        vocabulary: the words that the generator's logits are for; None: for none.
    """

    generated: tuple[ImageMasks, ...]
    encoded: EncodedImages
    vocabulary: Vocabulary | None = None

    @property
    def mask_embeddings(self) -> tuple[Tensor, ...]:
        """Per image [Q, D], not normalized."""
        assert self.encoded.mask_embeddings is not None
        return tuple(self.encoded.mask_embeddings.split(self.encoded.batch.masks_per_image))


@META_ARCH_REGISTRY.register()
class MaskCLIPpp(nn.Module):
    """A mask classifier, and the mask generator whose masks it classifies in evaluation.

    Args:
        visual_encoder: images and masks -> mask embeddings.
        text_classifier: synonyms -> text embeddings.
        psm: similarities of both -> logits.
        criterion: the training loss.
        make_generator: builds the mask generator; called when it is first needed, because
            training on ground-truth masks needs none.
        train_vocabulary: classes of the training set; None for a model that is not trained.
        requested_words: what to find; None until :meth:`set_test_dataset` or
            :meth:`set_test_vocabulary` is called.
        vocabulary: value of DATASETS.VOCABULARY (:mod:`maskclippp.words.sources`), for
            :meth:`set_test_dataset`.
        use_logit_scale: multiply similarities by a trained scale.
        train_masks: "ground_truth" | "segmentor".
        ignore_index: label of generated training masks that match no annotated mask.
        inference: what is computed in evaluation.
    """

    @configurable
    def __init__(
        self,
        *,
        visual_encoder: VisualEncoder,
        text_classifier: TextClassifier,
        psm: PSM,
        criterion: nn.Module,
        make_generator: Callable[[], MaskGenerator],
        train_vocabulary: Vocabulary | None = None,
        requested_words: RequestedWords | None = None,
        vocabulary: str = "builtin",
        use_logit_scale: bool = False,
        train_masks: str = "ground_truth",
        ignore_index: int = -100,
        inference: InferenceSettings | None = None,
    ) -> None:
        super().__init__()
        check_choice("TRAIN_MASKS:", train_masks, ("ground_truth", "segmentor"))
        self.visual_encoder = visual_encoder
        self.text_classifier = text_classifier
        self.text_encoder = text_classifier.tower  # a submodule, under the name in checkpoints
        self.psm = psm
        self.criterion = criterion
        self.train_vocabulary = train_vocabulary
        self.vocabulary = vocabulary
        self.train_masks = train_masks
        self.ignore_index = ignore_index
        self.inference = inference or InferenceSettings()
        self.logit_scale = choose_logit_scale(self.text_encoder.logit_scale, used=use_logit_scale)
        # Behind a function: as an attribute it would join the module tree, and would be saved,
        # and set to training, as soon as it is built.
        self._get_generator: Callable[[], MaskGenerator] = cache(make_generator)
        self._requested_words = requested_words

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build all parts from the complete config."""
        if cfg.INPUT.FORMAT != "RGB":
            raise InputError(f"INPUT.FORMAT: CLIP reads RGB images, found {cfg.INPUT.FORMAT!r}")
        node, datasets = cfg.MODEL.MASKCLIPPP, cfg.DATASETS
        if datasets.TEST or node.TRAIN_MASKS == "segmentor":
            # The generator is built when it is first needed; what is missing is an error now.
            check_generator(cfg)
        train_vocabulary = training_vocabulary(datasets.TRAIN, datasets.VOCABULARY)
        requested_words = None
        if datasets.TEST:
            requested_words = RequestedWords.of_dataset(
                datasets.TEST[0], datasets.VOCABULARY, train_vocabulary
            )
        return {
            "visual_encoder": build_visual_encoder(node.VISUAL_ENCODER, model=cfg.MODEL),
            "text_classifier": TextClassifier(
                build_text_tower(node.TEXT_ENCODER),
                get_templates(node.TEMPLATES),
                chunk_size=node.TEXT_CHUNK_SIZE,
                cache=node.TEXT_CACHE,
            ),
            "psm": build_psm(cfg),
            "criterion": build_criterion(cfg),
            "make_generator": lambda: build_generator(cfg),
            "train_vocabulary": train_vocabulary,
            "requested_words": requested_words,
            "vocabulary": datasets.VOCABULARY,
            "use_logit_scale": node.USE_LOGIT_SCALE,
            "train_masks": node.TRAIN_MASKS,
            "ignore_index": node.CRITERION.IGNORE_INDEX,
            "inference": InferenceSettings.from_config(cfg),
        }

    @property
    def checkpoint_prefixes(self) -> tuple[str, ...]:
        """First components of the state-dict keys that a checkpoint holds."""
        prefixes = ["visual_encoder", "psm", "criterion"]
        if not self.text_encoder.frozen:
            prefixes.append("text_encoder")
        if self.logit_scale is not None and self.logit_scale is not self.text_encoder.logit_scale:
            prefixes.append("logit_scale")
        return tuple(prefixes)

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return self.visual_encoder.device

    @property
    def mask_generator(self) -> MaskGenerator:
        """Built when it is first needed; its weights are not among those of the model."""
        return self._get_generator()

    @property
    def requested_words(self) -> RequestedWords:
        """What the model is asked to find; an InputError if nothing was requested."""
        if self._requested_words is None:
            raise InputError(
                "no classes were requested: set DATASETS.TEST, or call set_test_vocabulary"
            )
        return self._requested_words

    def set_test_dataset(self, name: str) -> None:
        """Request the classes of a registered dataset from now on, and embed them.

        In a distributed run all processes must call this together.

        Raises:
            InputError, MissingFileError: see :meth:`RequestedWords.of_dataset`.
        """
        words = RequestedWords.of_dataset(name, self.vocabulary, self.train_vocabulary)
        self._requested_words = words
        generator = self._get_generator()
        if not self.inference.segmentor_only:
            # All processes are here; later, one may have no image left.
            self.text_classifier.embed_frozen(words.vocabulary.synonyms)
            generator.set_vocabulary(words.vocabulary)

    def set_test_vocabulary(
        self, class_names: str | Sequence[str], thing_classes: Sequence[int] = ()
    ) -> None:
        """Request any classes from now on.

        Args:
            class_names: one string per class, synonyms separated by commas; or one text such as
                ``"cat, kitten; table"``.
            thing_classes: numbers of the classes that have instances.

        Raises:
            InputError: wrong, empty or repeated names, or a thing class that does not exist.
        """
        vocabulary = Vocabulary.from_class_names(class_names).require_unique()
        self._requested_words = RequestedWords(
            vocabulary, frozenset(thing_classes), self.train_vocabulary
        )

    def forward(self, batched_inputs: Sequence[Record]) -> dict[str, Tensor] | list[ImageResult]:
        """The loss in training, results per image in evaluation.

        Args:
            batched_inputs: one record per image, with

                - ``image``: uint8 [3, h, w], RGB;
                - in training ``instances``: ``gt_masks`` bool [n, h, w], ``gt_classes`` int64 [n];
                - in evaluation ``height`` and ``width`` of the results (H and W below; by default
                  those of the image), and what the mask generator needs.

        Returns:
            In training ``{"loss_ce": scalar}``. In evaluation a dictionary per image, in which K
            is the number of requested classes, with ``category_overlapping_mask`` bool [K], true
            for classes that share a synonym with a training class, and, as configured,

            - ``sem_seg_labels`` int64 [H, W], or ``sem_seg`` float32 [K, H, W];
            - ``panoptic_seg``: segment ids int32 [H, W], 0 for none, and the list of segments;
            - ``instances``: ``pred_masks`` bool [n, H, W], ``pred_boxes`` [n, 4], ``pred_classes``
              int64 [n], ``scores`` [n], best first.

            Two settings replace these. With TEST.MASK_ACC there is ``mask_cls`` int64 [Q], the
            class of each generated mask. With TEST.SEGMENTOR_ONLY there is only ``pred_masks``
            bool [Q, H, W].

        Raises:
            InputError: an image in another form (:func:`maskclippp.records.check_images`).
        """
        check_images(batched_inputs)
        if self.training:
            return self._losses(batched_inputs)
        with torch.no_grad(), self.inference.autocast(self.device):
            return self._infer(batched_inputs)

    def classify_masks(self, batched_inputs: Sequence[Record]) -> list[ClassifiedMasks]:
        """Per image the generated masks with their logits: what results are computed from."""
        with torch.no_grad(), self.inference.autocast(self.device):
            return self._classify_masks(batched_inputs)

    def encode(
        self,
        records: Sequence[Record],
        words: RequestedWords | None = None,
        masks: Sequence[SoftMasks] | None = None,
    ) -> EncodedMasks:
        """Find and encode the masks of a batch; :meth:`classify` does the rest, for any words.

        Args:
            records: as for :meth:`forward`.
            words: the words that are classified into first.
            masks: per image its masks; None: those of the generator.
        """
        with torch.no_grad(), self.inference.autocast(self.device):
            if masks is not None:
                return self._encode(records, [ImageMasks(found) for found in masks])
            vocabulary = None if words is None else words.vocabulary
            return self._encode(records, self._generate(records, vocabulary), vocabulary)

    def finds_the_same(self, encoded: EncodedMasks, words: RequestedWords) -> bool:
        """Whether the generator would find these masks for other words, too."""
        same_words = encoded.vocabulary == words.vocabulary
        return same_words or not self._get_generator().finds_words

    def classify(self, encoded: EncodedMasks, words: RequestedWords) -> list[ClassifiedMasks]:
        """Per image its masks, classified into any words; see :meth:`finds_the_same`."""
        with torch.no_grad(), self.inference.autocast(self.device):
            text = self.text_classifier.embed_frozen(words.vocabulary.synonyms)
            return self._classify(encoded, words, text)

    def _losses(self, records: Sequence[Record]) -> dict[str, Tensor]:
        if self.train_vocabulary is None:
            raise InputError("no classes to train on: set DATASETS.TRAIN")
        masks, labels = zip(*self._training_masks(records), strict=True)
        encoded = self.visual_encoder([record["image"] for record in records], masks)
        logits = self._align(encoded, self.text_classifier.sample(self.train_vocabulary))
        loss = self.criterion(
            logits,
            copied_to(torch.cat(labels), self.device),
            encoded.batch.image_of_mask,
            len(records),
            encoded.mask_areas,
        )
        if len(logits) == 0:
            # DDP waits for the gradient of every trained parameter, also on such a batch.
            loss = loss + sum(p.sum() for p in self.parameters() if p.requires_grad) * 0
        return {"loss_ce": loss}

    def _training_masks(self, records: Sequence[Record]) -> list[LabeledMasks]:
        """Annotated masks per image; or generated ones, labeled by the annotated ones."""
        num_classes = len(self.train_vocabulary or ())
        annotated = [ground_truth_masks(record, num_classes) for record in records]
        if self.train_masks == "ground_truth":
            return annotated
        with torch.no_grad():
            generated = [found.masks for found in self._get_generator()(records)]
        return [
            LabeledMasks(masks, label_by_overlap(masks, truth.values, classes, self.ignore_index))
            for masks, (truth, classes) in zip(generated, annotated, strict=True)
        ]

    def _align(self, encoded: EncodedImages, text: Tensor) -> Tensor:
        """Logits [N, Ka] of N masks for the synonyms with text embeddings [Ka, T, D]."""
        assert encoded.mask_embeddings is not None
        similarities = similarity(
            encoded.mask_embeddings, text, self.logit_scale, self.text_encoder.max_scale
        )
        logits: Tensor = self.psm(similarities, encoded, text)
        return logits

    def _infer(self, records: Sequence[Record]) -> list[ImageResult]:
        records = [resized_on(record, self.device) for record in records]
        if self.inference.pad_alone:
            return call_by_size(self._infer_padded, records)
        return self._infer_padded(records)

    def _infer_padded(self, records: Sequence[Record]) -> list[ImageResult]:
        """Results of images that are padded to a common size."""
        sizes = [output_size(record) for record in records]
        if self.inference.segmentor_only:
            return [
                {"pred_masks": binary_masks(found.masks.to(self.device), size)}
                for found, size in zip(self._get_generator()(records), sizes, strict=True)
            ]
        words = self.requested_words
        results: list[ImageResult] = []
        for image, size in zip(self._classify_masks(records), sizes, strict=True):
            result = image_results(image, size, words.thing_classes, self.inference)
            result["category_overlapping_mask"] = words.seen
            results.append(result)
        return results

    def _classify_masks(self, records: Sequence[Record]) -> list[ClassifiedMasks]:
        words = self.requested_words
        text = self.text_classifier.embed_frozen(words.vocabulary.synonyms)
        generated = self._generate(records, words.vocabulary)
        return self._classify(self._encode(records, generated, words.vocabulary), words, text)

    def _generate(
        self, records: Sequence[Record], vocabulary: Vocabulary | None
    ) -> list[ImageMasks]:
        generator = self._get_generator()
        if vocabulary is not None:
            generator.set_vocabulary(vocabulary)
        elif generator.finds_words:
            raise InputError(
                f"{type(generator).__name__} finds masks for words: say first which words"
            )
        generated: list[ImageMasks] = generator(records)
        return generated

    def _encode(
        self,
        records: Sequence[Record],
        generated: Sequence[ImageMasks],
        vocabulary: Vocabulary | None = None,
    ) -> EncodedMasks:
        found = [replace(image, masks=image.masks.to(self.device)) for image in generated]
        images = [record["image"] for record in records]
        encoded = self.visual_encoder(images, [image.masks for image in found])
        return EncodedMasks(tuple(found), encoded.float(), vocabulary)

    def _classify(
        self, encoded: EncodedMasks, words: RequestedWords, text: Tensor
    ) -> list[ClassifiedMasks]:
        generated = encoded.generated
        if words.vocabulary != encoded.vocabulary:
            generated = tuple(
                found
                if found.class_embeddings is None
                else self._get_generator().reclassify(found, words.vocabulary)
                for found in generated
            )
        # In half precision the similarities of hundreds of synonyms are not distinct.
        with torch.autocast(self.device.type, enabled=False):
            synonym_logits = self._align(encoded.encoded, text)
        class_of_synonym = words.class_of_synonym(self.device)
        class_logits = max_over_synonyms(synonym_logits, class_of_synonym, len(words))
        per_image = torch.split(class_logits, encoded.encoded.batch.masks_per_image)
        return [
            ClassifiedMasks(found.masks, self._combine(logits, found, words), len(words))
            for logits, found in zip(per_image, generated, strict=True)
        ]

    def _combine(self, logits: Tensor, found: ImageMasks, words: RequestedWords) -> Tensor:
        """Logits [Q, K], with the generator's [Q, K + 1] combined if it classifies its masks."""
        if found.logits is None:
            return logits
        own = found.own_classes
        table = None if own is None else words.class_of_own_class(own)
        theirs = found.logits.to(self.device)
        return combine_with_generator(logits, theirs, words.seen, table, self.inference)
