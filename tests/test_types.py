# SPDX-License-Identifier: GPL-2.0
"""The lab is typed, and its tests use what they import."""

import subprocess
from pathlib import Path

from lab.paths import REPO


def test_mypy(tmp_path: Path) -> None:
    done = subprocess.run(["mypy", "--strict", f"--cache-dir={tmp_path}", "lab"], cwd=REPO,
                          text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyflakes() -> None:
    done = subprocess.run(["pyflakes3", "lab", "tests"], cwd=REPO, text=True, capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
