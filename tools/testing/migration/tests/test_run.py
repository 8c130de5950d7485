# SPDX-License-Identifier: GPL-2.0
"""How a run of the tests is told, and that one which proved less than it set out to has failed; and
that two workers lose none of it."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from lab.paths import HOME, REPO

HEAD = """\
import pytest
from conftest import NO_TREES
from lab.errors import LabError, NoSource
import conftest

"""
PROVED = "@pytest.mark.proof(2)\ndef test_one():\n    pass\n"


# How `make check` has it.
TWO = re.findall(r"-m pytest (-n \S+)", (REPO / "Makefile").read_text())[0].split()
needs_xdist = pytest.mark.skipif(
    not importlib.util.find_spec("xdist"), reason="apt install python3-pytest-xdist")


def start(folder: Path, files: dict[str, str], *words: str, **environment: str
          ) -> "subprocess.Popen[str]":
    """A run of these tests, with what all tests are run by."""
    for name in ("conftest.py", "workers.py"):
        shutil.copy(HOME / "tests" / name, folder)
    for name, text in files.items():
        (folder / name).write_text(HEAD + text)
    # Those of the worker that this runs in are not for what it starts.
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("PYTEST_XDIST", "PYTHON"))}
    return subprocess.Popen(
        [sys.executable, "-B", "-m", "pytest", "-q", "-o", "console_output_style=classic", "-p",
         "no:cacheprovider", *words, "."], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, process_group=0,
        env={**clean, "PYTHONPATH": str(HOME), "FULL": "", "FAST": "", **environment})


def run(folder: Path, text: str, **environment: str) -> tuple[int, list[str]]:
    """A run in one process."""
    with start(folder, {"test_it.py": text}, **environment) as process:
        said = process.communicate()[0]
    return process.returncode, said.splitlines()


def run_two(folder: Path, files: dict[str, str], *words: str, **environment: str
            ) -> tuple[int, list[str]]:
    """A run with two workers."""
    with start(folder, files, *TWO, *words, **environment) as process:
        said = process.communicate()[0]
    return process.returncode, said.splitlines()


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


# ---- with two workers ------------------------------------------------------------------------


def told(said: list[str]) -> set[str]:
    """The lines about files, without their times."""
    return {re.sub(r"^\[ 0:\d\d\] | \(\d s\)$", "", line) for line in said if line[:1] == "["}


# Who runs, in which process, and who else did in the meantime.
BUSY = """
import os, time
from pathlib import Path

WHO = os.environ.get("PYTEST_XDIST_WORKER", "itself")


@pytest.fixture(autouse=True)
def busy(request):
    mine = Path(f"busy-{WHO}")
    mine.write_text(request.node.name)
    time.sleep(0.3)
    others = sorted(path.name for path in Path().glob("busy-*") if path != mine)
    with open("ran", "a") as file:
        print(WHO, request.node.name, *others, file=file)
    mine.unlink()

"""
MARK = "@pytest.mark.alone\n"


@needs_xdist
def test_what_is_alone_is_alone(tmp_path: Path) -> None:
    """It comes first and in the one process; the others are shared out, a file to each of two."""
    tests = "".join(f"def test_{number}():\n    pass\n" for number in range(4))
    status, said = run_two(tmp_path, {
        "test_a.py": BUSY + tests, "test_b.py": BUSY + tests,
        "test_c.py": BUSY + f"{MARK}def test_alone():\n    pass\n"
                            "@pytest.mark.proof(2)\ndef test_proof():\n    pass\n"
                            "def test_other():\n    pass\n"
                            "@pytest.mark.first\ndef test_first():\n    pass\n"
                            "def test_boots(fixed):\n    pass\n"
                            "@pytest.fixture\ndef fixed():\n    pass\n"})
    assert status == 0, said
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert ran[:4] == [["itself", name] for name in ("test_first", "test_alone", "test_proof",
                                                     "test_boots")]
    assert len(ran) == 4 + 4 + 4 + 1 and {line[0] for line in ran[4:]} == {"gw0", "gw1"}
    assert any("busy-" in word for line in ran[4:] for word in line), "they take turns"
    assert told(said) == {"test_c.py: test_first ...", "test_c.py: test_proof ...",
                          *(f"test_{name}.py: {number} passed" for name, number in
                            (("a", 4), ("b", 4), ("c", 5)))}
    assert "2 kernels were to be booted, 2 were; 1 proofs were to be made, 1 were" in said
    assert re.match(r"13 passed in ", said[-1])
    # The interpreter is told to leave none, and so are the workers.
    assert not list(tmp_path.rglob("*.pyc"))


BAD = "def test_bad():\n    assert False\n"
GOOD = "def test_good():\n    pass\ndef test_not():\n    pytest.skip('no')\n"


@needs_xdist
@pytest.mark.parametrize(("first", "then", "status", "sum_of_both"), [
    (BAD, GOOD, 1, "1 failed, 1 passed, 1 skipped"),
    (GOOD, BAD, 1, "1 failed, 1 passed, 1 skipped"),
    (GOOD, GOOD, 0, "2 passed, 2 skipped"),
    ("", GOOD, 0, "1 passed, 1 skipped"),
    (GOOD, "", 0, "1 passed, 1 skipped"),
    ("import no_such_thing\n", GOOD, 2, "1 error"),
])
def test_one_line_tells_of_both_parts(tmp_path: Path, first: str, then: str, status: int,
                                      sum_of_both: str) -> None:
    found, said = run_two(tmp_path, {
        "test_alone.py": "pytestmark = pytest.mark.alone\n" + first, "test_beside.py": then})
    assert (found, said[-1].split(" in ")[0]) == (status, sum_of_both), said
    for name, text in (("alone", first), ("beside", then)):
        failed = f"FAILED test_{name}.py::test_bad"
        assert (failed in told(said)) == (text == BAD)
    # How the workers are started is nothing to tell.
    assert said[0].startswith("[") or status == 2


@needs_xdist
def test_a_worker_that_dies_is_a_failure(tmp_path: Path) -> None:
    """Of the test that it ran.  All others run, also those of its file, and each but once."""
    def three(name: str, dies: int) -> str:
        return "import os\n" + "".join(
            f"def test_{at}():\n    open('ran', 'a').write('{name}{at} ')\n"
            f"    {'os.kill(os.getpid(), 9)' if at == dies else ''}\n" for at in range(3))

    status, said = run_two(tmp_path, {"test_b.py": three("b", 0), "test_c.py": three("c", 1),
                                      "test_d.py": three("d", 2), "test_good.py": GOOD})
    assert status == 1
    assert said[-1].startswith("7 passed, 1 skipped, 3 errors in "), said
    assert told(said) >= {"FAILED test_b.py::test_0", "FAILED test_c.py::test_1",
                          "FAILED test_d.py::test_2", "test_b.py: 2 passed, 1 failed",
                          "test_c.py: 2 passed, 1 failed", "test_d.py: 2 passed, 1 failed"}
    for name in ("b.py::test_0", "c.py::test_1", "d.py::test_2"):
        assert re.search(rf"worker 'gw\d' crashed while running 'test_{name}'", "\n".join(said))
    assert sorted((tmp_path / "ran").read_text().split()) == [
        f"{name}{at}" for name in "bcd" for at in range(3)]


@needs_xdist
def test_one_that_dies_on_its_own_is_a_failure(tmp_path: Path) -> None:
    """All of it is in one process then, as without workers."""
    status, _said = run_two(tmp_path, {"test_dies.py": f"{MARK}def test_one():\n    import os\n"
                                                       "    os.kill(os.getpid(), 9)\n"})
    assert status == -signal.SIGKILL


LOSES = """
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    return True if item.name == "test_lost" else None
"""


@needs_xdist
@pytest.mark.parametrize("words", [[], TWO], ids=["one", "two"])
def test_a_test_that_is_lost_is_missed(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "loses.py").write_text(LOSES)
    lost = "def test_lost():\n    pass\n"
    with start(tmp_path, {"test_alone.py": MARK + lost, "test_it.py": GOOD + lost}, *words,
               "-p", "loses") as process:
        said = process.communicate()[0].splitlines()
    assert process.returncode == 1
    assert "2 tests did not come to their end" in said
    assert {f"  no end: test_{name}.py::test_lost" for name in ("alone", "it")} <= set(said)
    assert said[-1].startswith("1 passed, 1 skipped in ")


@needs_xdist
def test_ctrl_c_ends_all_of_them(tmp_path: Path) -> None:
    text = "def test_long():\n    import os, time\n    open(f'pid-{os.getpid()}', 'w')\n" \
           "    time.sleep(100)\n"
    with start(tmp_path, {"test_a.py": text, "test_b.py": text}, *TWO) as process:
        try:
            end = time.monotonic() + 60
            while len(pids := list(tmp_path.glob("pid-*"))) < 2:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            said = process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 2 and "tests did not come" not in said
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.name.removeprefix("pid-")), 0)


@needs_xdist
def test_a_source_is_unpacked_once_for_all(tmp_path: Path) -> None:
    """Though both workers ask for it."""
    linux, tarball = tmp_path / "linux-source-6.12", tmp_path / "source.tar"
    (linux / "mm").mkdir(parents=True)
    (linux / "mm/rmap.c").write_text("text\n")
    with tarfile.open(tarball, "w") as packed:
        packed.add(linux, linux.name)
    (tmp_path / "bin").mkdir()
    for name, script in (("xz", "exec cat"),
                         ("tar", f'echo >> {tmp_path}/tars; sleep 1; exec /usr/bin/tar "$@"')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    text = "from pathlib import Path\n" \
           f"conftest.debian_tarball = lambda name: Path({str(tarball)!r})\n" \
           "def test_it():\n    made = conftest.debian_files('6.12')\n" \
           "    assert (made / 'mm/rmap.c').read_text() == 'text\\n'\n" \
           "    open('places', 'a').write(f'{made}\\n')\n"
    status, said = run_two(tmp_path, {"test_a.py": text, "test_b.py": text},
                           PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert status == 0, said
    places = (tmp_path / "places").read_text().split()
    assert len(places) == 2 and len(set(places)) == 1
    assert len((tmp_path / "tars").read_text()) == 1
    # And nothing of it stays.
    assert not Path(places[0]).parent.exists()
