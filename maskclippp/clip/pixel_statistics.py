"""Mean and standard deviation of pixels: those of the config, or of the pretrained weights.

SigLIP and PE-Core use 0.5 and 0.5, some MobileCLIPs 0 and 1, CLIPA those of ImageNet. Other
statistics than a model's own make its results slightly worse, which nothing else would tell.
"""

import logging

from detectron2.config import CfgNode
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import get_pretrained_cfg
from open_clip.pretrained import list_pretrained_tags_by_model as list_tags

from maskclippp.clip.model_names import open_clip_name

logger = logging.getLogger(__name__)

_Statistics = tuple[list[float], list[float]]


def pixel_statistics(node: CfgNode) -> _Statistics:
    """Mean and standard deviation of the RGB channels (0..255) for a VISUAL_ENCODER node.

    PIXEL_MEAN and PIXEL_STD of the config, unless both have their default values, which are
    CLIP's: then those of the tag in PRETRAINED. For weights that are not a tag, such as a file,
    they are those of the model's tags, if all have the same.
    """
    configured = (list(node.PIXEL_MEAN), list(node.PIXEL_STD))
    clip = _of_tag({"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD})
    if not _equal(configured, clip):
        return configured
    name = open_clip_name(node.MODEL_NAME)
    own = get_pretrained_cfg(name, node.PRETRAINED)
    found: list[_Statistics] = []
    for settings in [own] if own else [get_pretrained_cfg(name, tag) for tag in list_tags(name)]:
        statistics = _of_tag(settings)
        if not any(_equal(statistics, known) for known in found):
            found.append(statistics)
    if len(found) > 1:
        logger.warning(
            "The weights of %s were trained with different PIXEL_MEAN and PIXEL_STD (%s), and "
            "PRETRAINED %r does not tell which: set both. CLIP's are used",
            *(name, " or ".join(map(str, found)), node.PRETRAINED),
        )
    if len(found) != 1 or _equal(found[0], clip):
        return configured
    logger.info("PIXEL_MEAN and PIXEL_STD of %s: %s and %s", name, *found[0])
    return found[0]


def _of_tag(settings: dict[str, tuple[float, ...]]) -> _Statistics:
    """Those of open_clip's settings of a tag, from 0..1 to 0..255."""
    mean, std = ([255 * value for value in settings[key]] for key in ("mean", "std"))
    return mean, std


def _equal(one: _Statistics, other: _Statistics) -> bool:
    pairs = zip(one[0] + one[1], other[0] + other[1], strict=False)
    return all(abs(a - b) < 1e-3 for a, b in pairs)
