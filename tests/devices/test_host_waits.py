"""The whole package on a pretended device (:mod:`tests.devices.pretended`).

A tensor on the wrong device fails the process that runs the cases. How often the host waits for the
device is limited: change a number below only to lower it.
"""

import json
import subprocess
import sys
from pathlib import Path

# Host waits of one image with all three tasks; of one training step.
ALLOWED = {
    "evaluate ConvNeXt": 9,
    "evaluate ViT": 9,
    "evaluate EVA02": 9,
    "evaluate FC-CLIP": 9,
    "evaluate Mask2Former": 9,
    "train EVA02": 1,
    "train both towers": 2,
    "train on generated masks": 5,
}


def test_nothing_is_on_the_wrong_device_and_the_host_waits_no_more_often() -> None:
    command = [sys.executable, "-m", "tests.devices.cases"]
    folder = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout)
    assert set(measured) == set(ALLOWED)
    too_many = {c: measured[c] for c, limit in ALLOWED.items() if sum(measured[c].values()) > limit}
    assert too_many == {}, json.dumps(too_many, indent=2)
