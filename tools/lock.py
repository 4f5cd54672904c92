"""Write requirements.lock: every package that requirements.txt leads to, with its SHA-256.

    python tools/lock.py

pip resolves the requirements for the Python and the machine that run it; nothing is installed.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_RESOLVE = ("pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-")


def locked(report: dict[str, Any]) -> str:
    """The lock file for what pip would install, according to its report."""
    place = report["environment"]
    lines = [
        f"{package['metadata']['name']}=={package['metadata']['version']} "
        f"--hash=sha256:{package['download_info']['archive_info']['hashes']['sha256']}\n"
        for package in report["install"]
    ]
    return (
        f"# Written by make lock, for Python {place['python_version']} on {place['sys_platform']} "
        f"{place['platform_machine']}.\n"
        "# pip install --require-hashes -r requirements.lock installs exactly these files.\n"
        + "".join(sorted(lines, key=str.lower))
    )


def main() -> None:
    """Resolve and write."""
    command = [sys.executable, "-m", *_RESOLVE, "-r", str(ROOT / "requirements.txt")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    (ROOT / "requirements.lock").write_text(locked(json.loads(done.stdout)), encoding="utf-8")


if __name__ == "__main__":
    main()
