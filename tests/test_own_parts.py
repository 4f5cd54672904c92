"""The parts of docs/own_parts.md, each in a file of its own, train and evaluate as they are."""

import importlib
import re
import sys

import pytest
import torch

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.meta_arch import MaskCLIPpp
from tests.documents import write_files
from tests.golden_cases import REPOSITORY
from tests.tiny_models import labeled_record, striped_record

PAGE = REPOSITORY / "docs" / "own_parts.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MaskCLIPpp:
    """The model of the page's config, made by the page's files."""
    folder = tmp_path_factory.mktemp("project")
    write_files(PAGE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        # The page on encoders has a file of this name as well.
        patch.delitem(sys.modules, "my_encoder", raising=False)
        importlib.import_module("my_train")
        patch.delitem(sys.modules, "my_encoder")
    cfg = get_cfg()
    merge_config_file(cfg, folder / "my_parts.yaml")
    cfg.MODEL.MASKCLIPPP.TEMPLATES = "t14"
    return MaskCLIPpp(cfg)


def test_the_config_chooses_the_parts_of_the_page(model: MaskCLIPpp) -> None:
    shown = set(re.findall(r"^class (\w+)\(", PAGE.read_text(), re.M))
    chosen = (model.visual_encoder, model.psm, model.criterion, model._get_generator())
    assert {type(part).__name__ for part in chosen} == shown


def test_one_training_step_changes_encoder_and_psm(model: MaskCLIPpp) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    records = [striped_record((64, 64), [0, 1]), striped_record((50, 70), [2])]
    model.train()(records)["loss_ce"].backward()
    optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {name.split(".")[0] for name in changed} >= {"visual_encoder", "psm"}


def test_a_batch_without_masks_has_a_loss(model: MaskCLIPpp) -> None:
    assert model.train()([striped_record((64, 64), [])])["loss_ce"].isfinite()


def test_an_image_is_evaluated(model: MaskCLIPpp) -> None:
    (result,) = model.eval()([labeled_record((50, 70), 0, 3)])
    left, right = result["sem_seg_labels"].split(35, dim=1)
    assert len(left.unique()) == len(right.unique()) == 1
