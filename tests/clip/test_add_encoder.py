"""The encoder that docs/encoders.md adds in one file trains and evaluates as the text says."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.data.shapes.dataset import write_split
from maskclippp.meta_arch import MaskCLIPpp
from tests.documents import commands, write_files
from tests.golden_cases import REPOSITORY
from tests.tiny_models import labeled_record, soft, striped_record

DOCUMENT = REPOSITORY / "docs" / "encoders.md"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the document."""
    folder = tmp_path_factory.mktemp("project")
    write_files(DOCUMENT, folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _registered(project: Path) -> None:
    """Importing the encoder's file registers it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project)
        importlib.import_module("my_encoder")


@pytest.fixture
def model(project: Path) -> MaskCLIPpp:
    """The model of the document's config, without its weights."""
    cfg = get_cfg()
    merge_config_file(cfg, project / "my_config.yaml")
    node = "MODEL.MASKCLIPPP"
    merge_options(
        cfg,
        [
            *(f"{node}.VISUAL_ENCODER.PRETRAINED", "random"),
            *(f"{node}.TEXT_ENCODER.PRETRAINED", "random"),
            *(f"{node}.VISUAL_ENCODER.OUT_FEATURES", ["m_embs", "p_embs"]),
            *(f"{node}.SEGMENTOR.NAME", "GTSegmentor"),
            *(f"{node}.TEMPLATES", "t1"),
        ],
    )
    return MaskCLIPpp(cfg)


def test_a_fresh_program_knows_the_encoder(project: Path) -> None:
    """It names the valid encoders before anything else happens."""
    command = [sys.executable, "my_train.py", "--config-file", "my_config.yaml", "--num-gpus", "0"]
    wrong_name = ["MODEL.MASKCLIPPP.VISUAL_ENCODER.NAME", "Nothing"]
    python_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    finished = subprocess.run(
        [*command, *wrong_name],
        cwd=project,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 2, finished.stderr
    error = finished.stderr.splitlines()[-1]
    assert error.startswith("error: MODEL.MASKCLIPPP.VISUAL_ENCODER.NAME: 'Nothing' is not one of")
    assert "'PooledTimmEncoder'" in error


def test_the_commands_train_and_evaluate(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the weights that the config names, on a CPU, for one iteration."""
    node = "MODEL.MASKCLIPPP"
    options = [
        *("MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "1"),
        *(f"{node}.VISUAL_ENCODER.PRETRAINED", "random"),
        *(f"{node}.TEXT_ENCODER.PRETRAINED", "random"),
        *(f"{node}.TEMPLATES", "t1", "DATALOADER.NUM_WORKERS", "0"),
    ]
    cache = tmp_path / "cache"
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(cache))
    monkeypatch.chdir(project)
    for split in ("train", "val"):
        write_split(split, 2, cache / "shapes_v1" / split)
    for command in commands(DOCUMENT):
        monkeypatch.setattr("sys.argv", [*command.words[1:], *options])
        runpy.run_path(command.words[1], run_name="__main__")
    results = (project / "output" / "my_config").glob("*/inference/shapes_val/results.json")
    assert len(list(results)) == 2


def test_one_training_step_changes_the_trunk_and_nothing_else_of_the_encoder(
    model: MaskCLIPpp,
) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    records = [striped_record((64, 64), [0, 1]), striped_record((50, 70), [2])]
    model.train()(records)["loss_ce"].backward()
    optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {name.split(".")[0] for name in changed} == {"visual_encoder", "psm"}
    assert all(".trunk." in name for name in changed if name.startswith("visual_encoder."))


def test_an_image_is_evaluated(model: MaskCLIPpp) -> None:
    (result,) = model.eval()([labeled_record((50, 70), 0, 3)])
    assert result["sem_seg_labels"].shape == (50, 70)


@torch.no_grad()
def test_a_mask_of_one_cell_embeds_as_its_patch(model: MaskCLIPpp) -> None:
    mask = torch.zeros(1, 64, 96)
    mask[:, 32:, 64:] = 1
    image = torch.randint(0, 256, (3, 64, 96))
    encoded = model.eval().visual_encoder([image], soft([mask]))
    assert encoded.mask_embeddings is not None
    patch = encoded.maps["p_embs"][0, :, 1, 2]
    torch.testing.assert_close(encoded.mask_embeddings[0], patch, rtol=1e-4, atol=1e-5)
