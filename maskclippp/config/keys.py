"""Every configuration key: its name, its default and what it does.

Names and defaults are those of the published configs, which therefore run unchanged. Keys that this
project adds are marked with (new). detectron2's keys come from ``detectron2.config.get_cfg``.
"""

import copy
import functools
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

CLIP_PIXEL_MEAN = [122.7709383, 116.7460125, 104.09373615]
CLIP_PIXEL_STD = [68.5005327, 66.6321579, 70.32316305]

# Published keys that are accepted but never read: reason -> full keys with their defaults.
INERT_KEYS: dict[str, dict[str, Any]] = {
    "switch of the published demo script": {"RUN_DEMO": False},
    "see VISUAL_ENCODER_MULTIPLIER": {"SOLVER.BACKBONE_MULTIPLIER": 0.1},
    "no encoder uses it": {
        "MODEL.MASKCLIPPP.VISUAL_ENCODER.MASK_SCALE": 1.0,
        "MODEL.MASKCLIPPP.VISUAL_ENCODER.MASK_BIAS": 0.0,
        "MODEL.MASKCLIPPP.VISUAL_ENCODER_F.MASK_SCALE": 1.0,
        "MODEL.MASKCLIPPP.VISUAL_ENCODER_F.MASK_BIAS": 0.0,
    },
    "the ensemble covers all masks": {"MODEL.MASKCLIPPP.TEST.ENSEMBLE_ON_VALID_MASK": 0.0},
    "all mask generators have the same kind of decoder": {
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
        "MODEL.MASK_FORMER.ENC_LAYERS": 0,
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
    },
    "loss of the mask generators' own training, which this project does not have": {
        "MODEL.MASK_FORMER.DEEP_SUPERVISION": True,
        "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT": 0.1,
        "MODEL.MASK_FORMER.CLASS_WEIGHT": 1.0,
        "MODEL.MASK_FORMER.DICE_WEIGHT": 1.0,
        "MODEL.MASK_FORMER.MASK_WEIGHT": 20.0,
        "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 112 * 112,
        "MODEL.MASK_FORMER.OVERSAMPLE_RATIO": 3.0,
        "MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO": 0.75,
    },
    "results do not depend on the order": {
        "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": False
    },
    "see the keys of that kind of MODEL.MASKCLIPPP and MODEL.MASK_FORMER": {
        "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": 32,
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS": 8,
        "MODEL.SWIN.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    },
    "DeepLab's head, which no model here has": {
        "MODEL.SEM_SEG_HEAD.LOSS_TYPE": "hard_pixel_mining",
        "MODEL.SEM_SEG_HEAD.PROJECT_FEATURES": ["res2"],
        "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [48],
        "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": 256,
        "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [6, 12, 18],
        "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT": 0.1,
        "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV": False,
    },
    "ResNets come from open_clip, and their weights determine their layers": {
        "MODEL.RESNETS.RES4_DILATION": 1,
        "MODEL.RESNETS.RES5_MULTI_GRID": [1, 2, 4],
        "MODEL.RESNETS.STEM_TYPE": "deeplab",
    },
    "only for position embeddings, which no Swin here has": {"MODEL.SWIN.PRETRAIN_IMG_SIZE": 224},
}


def get_cfg() -> CfgNode:
    """The complete default configuration: detectron2's keys and all of ours."""
    cfg = get_detectron2_cfg()
    add_maskclippp_config(cfg)
    return cfg


def add_maskclippp_config(cfg: CfgNode) -> None:
    """Add our keys to a detectron2 configuration, in place."""
    _add_input_keys(cfg)
    _add_solver_keys(cfg)
    _add_model_keys(cfg)
    _add_mask_former_keys(cfg)
    _add_swin_keys(cfg)
    for keys in copy.deepcopy(INERT_KEYS).values():
        for full_key, default in keys.items():
            *sections, key = full_key.split(".")
            functools.reduce(getattr, sections, cfg)[key] = default
    cfg.WANDB = CfgNode(
        {
            "ENABLED": False,  # log to Weights & Biases instead of TensorBoard
            "PROJECT": "maskclippp",
            "NAME": None,  # run name; None: config name and tag
        }
    )
    # (new) vocabulary of the classes: auto | builtin | openseg | path of a text file | names
    # separated by commas (maskclippp/words/sources.py)
    cfg.DATASETS.VOCABULARY = "auto"
    # (new) your own datasets, a list of mappings (docs/own_dataset.md)
    cfg.DATASETS.CUSTOM = []
    # (new) RandomSubsetTrainingSampler: fraction of the records that a run uses
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 1.0


def _add_input_keys(cfg: CfgNode) -> None:
    node = cfg.INPUT
    # the training mapper: mask_former_semantic, coco_panoptic_lsj, ... (maskclippp/data/mappers)
    node.DATASET_MAPPER_NAME = "mask_former_semantic"
    node.COLOR_AUG_SSD = False  # SSD color changes in training
    # maximum fraction of a crop that one category may cover; 1.0: no limit
    node.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    node.SIZE_DIVISIBILITY = -1  # > 0: pad training images to exactly this size
    node.IMAGE_SIZE = 1024  # large-scale jitter: side of the square crop
    node.MIN_SCALE = 0.1  # large-scale jitter: smallest scale
    node.MAX_SCALE = 2.0  # large-scale jitter: largest scale


def _add_solver_keys(cfg: CfgNode) -> None:
    node = cfg.SOLVER
    node.OPTIMIZER = "ADAMW"  # ADAMW | SGD
    node.WEIGHT_DECAY_EMBED = 0.0  # weight decay of embedding tables
    node.VISUAL_ENCODER_MULTIPLIER = 0.001  # learning-rate factor of the CLIP image tower
    node.TEXT_ENCODER_MULTIPLIER = 0.001  # learning-rate factor of the text tower
    node.POLY_LR_POWER = 0.9  # WarmupPolyLR: exponent
    node.POLY_LR_CONSTANT_ENDING = 0.0  # WarmupPolyLR: lower bound, as a fraction of BASE_LR
    # (new) batches of IMS_PER_BATCH images per optimizer step
    node.ACCUMULATION_STEPS = 1
    # (new) float16 (CUDA, with gradient scaling) | bfloat16 (CUDA and CPU); used if AMP.ENABLED
    node.AMP.DTYPE = "float16"


def _visual_encoder_keys(feature_suffix: str) -> dict[str, Any]:
    return {
        # CLIPConvNeXt | EVACLIPViT | CLIPViT | CLIPResNet; of a generator (VISUAL_ENCODER_F) also
        # D2SwinTransformer | DummyVisualEncoder (none). Tables of all choices: docs/encoders.md
        "NAME": "none",
        "MODEL_NAME": "",  # convnext_base_w_320, EVA02-CLIP-B-16, ViT-B-16, RN50x16, ...
        # a tag of open_clip | path of a file | eva_clip, eva01_clip, eva02_clip (the only
        # weights of an EVA model) | shapes (ships with the package) | random
        "PRETRAINED": "",
        "LOAD_FROM": "",  # a checkpoint that overrides the pretrained weights
        "LOAD_BEG_KEY": "",  # take only keys of LOAD_FROM with this prefix, and strip it
        # Outputs, each + FEATURE_SUFFIX: m_embs, p_embs, i_embs; CLIPConvNeXt: stage1..stage4;
        # CLIPResNet: layer1..layer4; EVACLIPViT, CLIPViT: blockN and i_embsN (after block N),
        # m_embs-K (mask tokens K blocks before the end); D2SwinTransformer: res2..res5
        "OUT_FEATURES": [],
        "FEATURE_SUFFIX": feature_suffix,
        # none | all | before_proj; CLIPConvNeXt: | before_s4 | after_s4; others: | attention
        "FINETUNE_TYPE": "none",
        "PIXEL_MEAN": list(CLIP_PIXEL_MEAN),
        "PIXEL_STD": list(CLIP_PIXEL_STD),
        "SIZE_DIVISIBILITY": 0,  # the padded batch is a multiple of this; 0: no rounding
        "RESIZE_TYPE": "none",  # none | short | square | rel: while the encoder is trained
        "IMAGE_SIZE": 640,  # for short and square, in pixels
        "IMAGE_SCALE": 1.0,  # for rel
        "TEST_RESIZE_TYPE": "none",  # the same in evaluation and for frozen encoders
        "TEST_IMAGE_SIZE": 640,
        "TEST_IMAGE_SCALE": 1.0,
        # EVACLIPViT, CLIPViT: first block with mask tokens, from 1; CLIPConvNeXt: 5, pooling after
        # the last stage; CLIPResNet: no effect
        "MASK_PRIOR_BEG": 0,
        # masks -> feature grid: bilinear | nearest | bicubic | avg | max
        "DOWNSAMPLE_METHOD": "bilinear",
        # mask tokens and CLIPResNet: a cell is inside a mask above this; None: above half of the
        # mask's maximum
        "DOWN_MASK_THRESH": 0.0,
        # mask tokens and CLIPResNet: initial log of the weight of mask values in attention
        "MASK_LOGIT_SCALE": 0.0,
        # whether it is trained, unless FINETUNE_TYPE is none
        "LEARNABLE_MASK_LOGIT_SCALE": False,
        # (new) recompute activations in the backward pass: less memory, more time
        "GRADIENT_CHECKPOINTING": False,
        "CHANNELS_LAST": False,  # (new) memory format of convolutions; fast on GPUs
        "COMPILE": "",  # (new) backend of torch.compile for the blocks, such as inductor
    }


def _text_encoder_keys() -> dict[str, Any]:
    return {
        "NAME": "none",  # CLIPTextEncoder | EVACLIPTextEncoder
        "MODEL_NAME": "",  # this and the next three: as in VISUAL_ENCODER
        "PRETRAINED": "",
        "LOAD_FROM": "",
        "LOAD_BEG_KEY": "",
        "FINETUNE_TYPE": "none",  # none | all | attention | proj (final norm, projection, scale)
        "SKIP_LN_FINAL": False,  # leave out the final LayerNorm
        # (new) recompute activations in the backward pass: less memory, more time
        "GRADIENT_CHECKPOINTING": False,
    }


def _add_model_keys(cfg: CfgNode) -> None:
    cfg.MODEL.MASKCLIPPP = CfgNode(
        {
            "VISUAL_ENCODER": _visual_encoder_keys(""),  # the mask classifier
            "VISUAL_ENCODER_F": _visual_encoder_keys("_f"),  # the generator's own, frozen
            "TEXT_ENCODER": _text_encoder_keys(),
            "TEXT_ENCODER_F": _text_encoder_keys(),  # the generator's own classifier
            "TEMPLATES": "t14",  # t1 | t14 | t80
            "TEMPLATES_F": "t14",
            "TEXT_CHUNK_SIZE": 512,  # sentences per forward pass of the text tower
            # (new) keep text embeddings of frozen towers in $MASKCLIPPP_CACHE
            "TEXT_CACHE": True,
            "USE_LOGIT_SCALE": False,  # multiply similarities by min(exp(logit_scale), 100)
            # (new) masks classified in training: ground_truth | segmentor. A generated mask takes
            # the label of the annotated segment that it overlaps most.
            "TRAIN_MASKS": "ground_truth",
            "SEGMENTOR": {
                # the mask generator: GTSegmentor | PanGTSegmentor | SuperpixelSegmentor | ...
                "NAME": "FCCLIPSegmentor",
                "PRETRAINED": "",
                "IN_FEATURES": ["stage1_f", "stage2_f", "stage3_f", "stage4_f"],
                "TRANSFORMER_IN_FEATURES": ["stage2_f", "stage3_f", "stage4_f"],
                "OFFLINE_ANN_DIR": "",
                "OFFLINE_ANN_SUFFIX": "",
                # (new) class-agnostic masks from the image alone
                "SUPERPIXELS": {
                    "NUM_SEGMENTS": 150,  # SLIC superpixels before merging
                    "COMPACTNESS": 10.0,  # SLIC: weight of space against color
                    "MERGE_THRESHOLD": 12.0,  # join neighbors closer than this in CIELAB
                    "MIN_AREA": 0.0005,  # smallest region, as a fraction of the image
                },
            },
            "PSM": {
                "NAME": "CorrelationDecoderV1",  # DummyPSM | LinearPSM | PseudoTextPSM
                "CORR_WIDTH": 640,  # hidden width of the linear maps over templates
                "CORR_RESIDUAL": False,  # PseudoTextPSM: add a LinearPSM
                "NUM_HEADS": 8,
                "IN_FEATURES": [],  # PseudoTextPSM: feature maps that the text attends to
                "NORM_VISUAL_COND": False,
                "DETACH_VISUAL_COND": False,
                "USE_LOGIT_SCALE": False,  # PseudoTextPSM: its own logit scale
                "ATTENTION_PROBS_DROPOUT_PROB": 0.0,
                "HIDDEN_DROPOUT_PROB": 0.0,
            },
            "CRITERION": {
                "NAME": "ReweightCELoss",
                "TEMPERATURE": 1.0,
                "BALANCE_CLS": False,  # every class present in an image counts the same
                "IGNORE_EMPTY": False,  # exclude masks that vanish on the feature grid
                "IGNORE_NAN": False,  # a NaN loss becomes 0
                "IGNORE_INDEX": -100,
            },
            "TEST": {
                "ENSEMBLE_ON": False,  # geometric ensemble with the generator's classifier
                "GEOMETRIC_ENSEMBLE_ALPHA": 1.0,  # weight of CLIP for seen classes
                "GEOMETRIC_ENSEMBLE_BETA": 1.0,  # and for unseen classes
                "MASK_ACC": False,  # only classify masks and report mask accuracy
                "SEGMENTOR_ONLY": False,  # evaluate the masks alone: labels from the ground truth
                # (new) labels: per-pixel class index | scores: K x H x W floats
                "SEMANTIC_OUTPUT": "labels",
                # (new) autocast in evaluation: float32 (off) | bfloat16 | float16
                "DTYPE": "float32",
                # (new) pad each image as if it were alone, so that results do not depend on the
                # batch; False: pad all images of a batch to a common size, as published
                "PAD_ALONE": True,
            },
        }
    )


def _add_mask_former_keys(cfg: CfgNode) -> None:
    cfg.MODEL.MASK_FORMER = CfgNode(
        {
            # the transformer decoder of the trained generators
            "NUM_OBJECT_QUERIES": 100,
            "HIDDEN_DIM": 256,
            "NHEADS": 8,
            "DIM_FEEDFORWARD": 2048,
            "DEC_LAYERS": 6,
            "DROPOUT": 0.1,
            "PRE_NORM": False,
            "ENFORCE_INPUT_PROJ": False,
            "TEST": {
                "SEMANTIC_ON": True,
                "PANOPTIC_ON": False,
                "INSTANCE_ON": False,
                "INSTANCE_BOX_ON": False,  # boxes of instance masks (else zeros)
                "OBJECT_MASK_THRESHOLD": 0.0,  # panoptic: minimum class probability
                "OVERLAP_THRESHOLD": 0.0,  # panoptic: minimum fraction of its area kept
            },
        }
    )
    head = cfg.MODEL.SEM_SEG_HEAD
    head.MASK_DIM = 256
    head.TRANSFORMER_ENC_LAYERS = 0
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS = 4


def _add_swin_keys(cfg: CfgNode) -> None:
    cfg.MODEL.SWIN = CfgNode(
        {
            "PATCH_SIZE": 4,
            "EMBED_DIM": 96,
            "DEPTHS": [2, 2, 6, 2],
            "NUM_HEADS": [3, 6, 12, 24],
            "WINDOW_SIZE": 7,
            "MLP_RATIO": 4.0,
            "QKV_BIAS": True,
            "QK_SCALE": None,
            "DROP_RATE": 0.0,
            "ATTN_DROP_RATE": 0.0,
            "DROP_PATH_RATE": 0.3,
            "APE": False,
            "PATCH_NORM": True,
            "USE_CHECKPOINT": False,
        }
    )
