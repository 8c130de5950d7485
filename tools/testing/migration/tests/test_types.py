# SPDX-License-Identifier: GPL-2.0
"""The lab is typed, and its tests use what they import."""

import subprocess
from pathlib import Path

from lab.paths import HOME


def test_mypy(tmp_path: Path) -> None:
    done = subprocess.run(["mypy", "--strict", f"--cache-dir={tmp_path}", "lab"], cwd=HOME,
                          text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyflakes() -> None:
    done = subprocess.run(["pyflakes3", "lab", "tests"], cwd=HOME, text=True, capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
