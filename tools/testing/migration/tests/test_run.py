# SPDX-License-Identifier: GPL-2.0
"""How a run of the tests is told, and that one which proved less than it set out to has failed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import HOME

HEAD = """\
import pytest
from conftest import NO_TREES
from lab.errors import LabError, NoSource
import conftest

"""
PROVED = "@pytest.mark.proof(2)\ndef test_one():\n    pass\n"


def run(folder: Path, text: str, **environment: str) -> tuple[int, list[str]]:
    shutil.copy(HOME / "tests" / "conftest.py", folder / "conftest.py")
    (folder / "test_it.py").write_text(HEAD + text)
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "-o", "console_output_style=classic", "-p",
         "no:cacheprovider", "."], cwd=folder, text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(HOME), "FULL": "", "FAST": "", **environment})
    return done.returncode, done.stdout.splitlines()


def test_all_is_proved(tmp_path: Path) -> None:
    status, said = run(tmp_path, PROVED)
    assert status == 0
    assert re.fullmatch(r"\[ 0:\d\d\] test_it.py: test_one ...", said[0])
    assert re.fullmatch(r"\[ 0:\d\d\] test_it.py: 1 passed \(\d s\)", said[1])
    assert "2 kernels were to be booted, 2 were; 1 proofs were to be made, 1 were" in said
    assert re.match(r"1 passed in ", said[-1])


@pytest.mark.parametrize("how", [
    "    pytest.skip('no source of 6.12: no network')\n",
    "    assert False\n",
    "    raise NoSource('no such thing')\n",
])
def test_one_that_was_not_proved_fails_the_run(tmp_path: Path, how: str) -> None:
    status, said = run(tmp_path, PROVED + "@pytest.mark.proof(2)\ndef test_two():\n" + how)
    assert status == 1
    assert "4 kernels were to be booted, 2 were; 2 proofs were to be made, 1 were" in said
    assert "  not proved: test_it.py::test_two" in said


@pytest.mark.parametrize("how", [
    "@pytest.mark.skipif(True, reason='takes long')\n@pytest.mark.proof(2)\ndef test_two():\n"
    "    pass\n",
    "@pytest.mark.proof(2)\ndef test_two():\n    pytest.skip(f'no tree: {NO_TREES}')\n",
])
def test_what_was_not_asked_for_is_not_missed(tmp_path: Path, how: str) -> None:
    status, said = run(tmp_path, PROVED + how)
    assert status == 0
    assert "2 kernels were to be booted, 2 were; 1 proofs were to be made, 1 were" in said


def test_a_fast_run_proves_nothing(tmp_path: Path) -> None:
    status, said = run(tmp_path, PROVED + "def test_two(tree612):\n    pass\n", FAST="1")
    assert status == 0 and said[-1].startswith("2 skipped")
    assert not [line for line in said if "to be booted" in line]


@pytest.mark.parametrize("error", ["LabError", "NoSource"])
def test_only_a_source_that_is_not_to_be_had_is_skipped(tmp_path: Path, error: str) -> None:
    """A full disk, or a bug of the lab, is no reason to skip."""
    status, said = run(tmp_path, f"""
def refuse(*_):
    raise {error}("no")


def test_it(monkeypatch):
    monkeypatch.setattr(conftest.source, "from_base", refuse)
    conftest.debian_tree("6.12")
""")
    assert (status, said[-1].split(" in ")[0]) == ((0, "1 skipped") if error == "NoSource"
                                                   else (1, "1 failed"))
