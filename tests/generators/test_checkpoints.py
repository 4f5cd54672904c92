"""Trained generators find their weights, and say what to do when they do not."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.testing import assert_close

from maskclippp.config.merging import merge_config_file
from maskclippp.generators import build_generator
from maskclippp.generators.checkpoints import check_present
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from tests.golden_cases import REPOSITORY
from tests.tiny_models import tiny_config

CONFIG = REPOSITORY / "configs" / "shapes" / "linear_psm_fcclip.yaml"
QUERIES = "predictor.query_feat.weight"
KEY = "MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED"


def small_config(*options: Any) -> CfgNode:
    """The generator of the built-in world with random weights and a few queries."""
    cfg = tiny_config()
    merge_config_file(cfg, str(CONFIG))
    cfg.merge_from_list(
        [KEY, "random", "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 3, "MODEL.DEVICE", "cpu", *options]
    )
    return cfg


def small_generator(*options: Any) -> nn.Module:
    """All of the generator but its encoder."""
    generator = build_generator(small_config(*options))
    assert isinstance(generator, MaskTransformerSegmentor)
    return generator.head


def published_layout(generator: nn.Module) -> dict[str, Tensor]:
    """Its weights by the keys of published checkpoints, beside those of a whole model."""
    state = {
        key if key.startswith("void") else f"sem_seg_head.{key}": value
        for key, value in generator.state_dict().items()
    }
    return {**state, "backbone.clip_model.visual.some": torch.ones(1)}


def save(path: Path, state: Mapping[str, Tensor]) -> str:
    torch.save({"model": dict(state)}, path)
    return str(path)


def test_a_published_checkpoint_gives_every_weight(tmp_path: Path) -> None:
    trained = small_generator()
    loaded = small_generator(KEY, save(tmp_path / "some.pth", published_layout(trained)))
    assert_close(loaded.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_the_queries_may_have_their_old_name(tmp_path: Path) -> None:
    trained = small_generator()
    state = published_layout(trained)
    state["sem_seg_head.predictor.static_query.weight"] = state.pop(f"sem_seg_head.{QUERIES}")
    loaded = small_generator(KEY, save(tmp_path / "old.pth", state))
    assert_close(loaded.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_random_weights_differ_from_one_model_to_the_next() -> None:
    first, second = (small_generator().state_dict()[QUERIES] for _ in range(2))
    assert not torch.equal(first, second)


def test_another_number_of_queries_is_told_with_its_remedy(tmp_path: Path) -> None:
    file = save(tmp_path / "three.pth", published_layout(small_generator()))
    with pytest.raises(ValueError, match=r"3 queries, but .*NUM_OBJECT_QUERIES is 5; set it to 3"):
        small_generator(KEY, file, "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 5)


def test_another_architecture_is_refused_with_the_keys_that_disagree(tmp_path: Path) -> None:
    file = save(tmp_path / "narrow.pth", published_layout(small_generator()))
    deeper = ["MODEL.MASK_FORMER.DEC_LAYERS", 6, "MODEL.MASK_FORMER.DIM_FEEDFORWARD", 512]
    with pytest.raises(ValueError, match=r"(?s)narrow\.pth.*FCCLIPSegmentor.*missing predictor"):
        small_generator(KEY, file, *deeper)


def test_a_checkpoint_without_a_head_is_of_another_model(tmp_path: Path) -> None:
    file = save(tmp_path / "clip.pth", {"visual.proj": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="seems to be of another model"):
        small_generator(KEY, file)


def test_entries_without_use_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = published_layout(small_generator()) | {"sem_seg_head.extra.weight": torch.ones(1)}
    file = save(tmp_path / "more.pth", state)
    with caplog.at_level(logging.WARNING):
        small_generator(KEY, file)
    assert f"{file}: 1 entries are not used, for example ['extra.weight']" in caplog.text


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        (
            "maskformer2_swin_tiny_bs16_50ep_final_9fd0ae.pkl",
            r"run: maskclippp download mask2former-swin-tiny, .*https://dl\.\S+\.pkl by hand",
        ),
        ("fcclip_coco-pan_clip-convnext-large.pth", "run: maskclippp download fcclip-convnext-l"),
        ("maftp_l_pano.pth", r"by the link on https://github\.com/\S+ and put it at output/ckpts"),
    ],
)
def test_a_missing_published_file_is_told_with_how_to_get_it(file: str, advice: str) -> None:
    with pytest.raises(FileNotFoundError, match=advice):
        check_present(f"some/folder/{file}", KEY)


def test_a_missing_file_of_ones_own_is_told_with_where_it_was_looked_for() -> None:
    with pytest.raises(FileNotFoundError) as error:
        check_present("my/generator.pth", KEY)
    message = str(error.value)
    assert message.startswith(f"{KEY}: my/generator.pth is not there (looked in {Path.cwd()})")
    assert "check the path" in message


def test_no_name_at_all_is_told_with_what_may_stand_there() -> None:
    with pytest.raises(FileNotFoundError, match=rf"{KEY}: no checkpoint .* is named.*'random'"):
        check_present("", KEY)


def test_the_weights_of_the_built_in_world_have_a_name() -> None:
    assert check_present("shapes", KEY).name == "shapes_fcclip.safetensors"


def test_a_config_of_fewer_layers_is_refused(tmp_path: Path) -> None:
    """Its layers would fit, and the masks would be wrong."""
    file = save(tmp_path / "deep.pth", published_layout(small_generator()))
    layers = small_config().MODEL.MASK_FORMER.DEC_LAYERS
    with pytest.raises(ValueError, match=r"unexpected predictor\.transformer_.*_layers\."):
        small_generator(KEY, file, "MODEL.MASK_FORMER.DEC_LAYERS", layers - 1)
