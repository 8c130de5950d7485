# SPDX-License-Identifier: GPL-2.0
"""The front door: what `make` shows, and one clear line for everything that is put in wrong."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import outside_make

from lab.paths import REPO


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "--no-print-directory", *words], cwd=REPO, text=True,
                          capture_output=True, check=False, env={**outside_make(), **environment})


def test_make_alone_shows_every_verb_and_variable() -> None:
    said = make().stdout
    text = (REPO / "Makefile").read_text()
    verbs = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert verbs
    for verb in set(verbs[1].split()) - {"help"}:
        assert f"make {verb}" in said, verb
    for variable in re.findall(r"^(\w+) \?=$", text, re.MULTILINE):
        assert f"{variable}=" in said, variable


def test_list_names_defects_and_bases() -> None:
    done = make("list")
    assert done.returncode == 0
    assert "pmd-share-migrate" in done.stdout and "6.12" in done.stdout
    assert "; shown by hugetlb_pmd_flush\n" in done.stdout
    assert "; no selftest shows it\n" in done.stdout
    assert "since 3.12, fixed in no version yet; shown by" in done.stdout
    assert "      came with e632a938d914 mm: migrate" in done.stdout


@pytest.mark.parametrize("words, says", [
    (("DEFECT=nonesuch",), "no defect nonesuch: there are"),
    (("DEFECT=pmd-share-gup",), "nothing to prove pmd-share-gup with: no selftest"),
    (("BASE=3.0",), "no base 3.0"),
    (("BASE=4.14",), "KERNEL=/path/to/linux"),
    (("BOOTS=0",), "BOOTS=0: a whole number"),
    (("BOOTS=many",), "BOOTS=many: a whole number"),
    (("ACCEL=hvf",), "ACCEL=hvf: one of kvm, tcg"),
    (("DEBUG=yes",), "DEBUG=yes: 0 or 1"),
    (("TIMEOUT=-1",), "TIMEOUT=-1: a whole number"),
    (("KERNEL=/nonexistent",), "/nonexistent"),
    (("KERNEL=/etc",), "/etc"),
])
def test_bad_input_is_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    out = tmp_path / "out"
    done = make("prove", f"OUT={out}", *words, LAB_CACHE=str(tmp_path / "cache"))
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert done.returncode != 0
    assert len(errors) == 1 and errors[0].startswith("error: ") and says in errors[0], done.stderr
    assert not out.exists()


def test_a_variant_that_is_none(tmp_path: Path) -> None:
    done = make("shell", "VARIANT=broken", LAB_CACHE=str(tmp_path / "cache"))
    assert "error: VARIANT=broken: vulnerable or fixed" in done.stderr


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    done = make("prove", LAB_CACHE=str(blocker / "cache"))
    assert "set LAB_CACHE to a folder you can write to" in done.stderr
    assert "Traceback" not in done.stderr
