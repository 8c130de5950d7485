# SPDX-License-Identifier: GPL-2.0
"""What other people's CI systems are given: each file is read as its system reads it, and the
commands in it are such that the lab takes."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import outside_make

from lab import fragment, options
from lab.errors import LabError
from lab.host import needs
from lab.paths import HOME, REPO

yaml = pytest.importorskip("yaml", reason="there is no module yaml: apt install yamllint")

CI = HOME / "ci"
FILES = sorted(CI.glob("*"))
YAML = [path for path in FILES if path.suffix in (".yml", ".yaml")]
RULES = "{extends: default, rules: {line-length: {max: 100}, document-start: disable}}"


def load(name: str) -> Any:
    return yaml.safe_load((CI / name).read_text(encoding="utf-8"))


def test_the_files_are_told_of() -> None:
    text = (REPO / "Documentation/ci.rst").read_text(encoding="utf-8")
    assert FILES and all(path.name in text for path in FILES)


@pytest.mark.skipif(not shutil.which("yamllint"), reason="there is no yamllint")
@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yamllint(path: Path) -> None:
    done = subprocess.run(["yamllint", "--strict", "-d", RULES, path], text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def scripts(value: object) -> Iterator[str]:
    """All that a file has a shell run."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("run", "script", "before_script", "after_script", "steps") \
                    and not isinstance(inner, dict):
                for one in inner if isinstance(inner, list) else [inner]:
                    if isinstance(one, str):
                        yield one
            yield from scripts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scripts(inner)


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml", "gitlab-matrix.yml",
                                  "lava-test.yaml"])
def test_the_scripts_are_shell(name: str) -> None:
    found = list(scripts(load(name)))
    assert len(found) > 3
    for script in found:
        # GitHub puts in what is in ${{ }} before the shell sees it.
        text = re.sub(r"\$\{\{.*?\}\}", "x", script)
        done = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, script


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_the_lab_takes_what_they_ask_of_it(name: str) -> None:
    asked = [shlex.split(line.partition(" > ")[0]) for script in scripts(load(name))
             for line in script.splitlines() if line.strip().startswith("make ")]
    verbs = {words[4] for words in asked}
    assert verbs == {"audit", "prove", "report"}
    for words in asked:
        # What make says of itself is no JSON.
        assert words[:3] == ["make", "--no-print-directory", "-C"]
        options.parse([word for word in words[4:] if word != "||"])
    with pytest.raises(LabError):
        options.parse([*asked[1][4:], "NONESUCH=1"])


@pytest.mark.parametrize(("name", "status"), [("github.yml", 0), ("gitlab.yml", 42)])
@pytest.mark.parametrize("good", [True, False])
def test_the_audit_of_a_tree(tmp_path: Path, name: str, status: int, good: bool) -> None:
    """Hardly a tree, of which the audit cannot tell; and none at all."""
    script = next(one for one in scripts(load(name)) if "AUDIT=json" in one)
    (tmp_path / "lab").symlink_to(REPO)
    linux = tmp_path / "linux"
    (linux / "mm").mkdir(parents=True)
    if good:
        (linux / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 0\n")
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, text=True, check=False,
                          capture_output=True, env={
                              **outside_make(), "LAB": str(REPO), "CI_PROJECT_DIR": str(linux),
                              "LAB_CACHE": str(tmp_path / "cache")})
    assert done.returncode == (status if good else 1), done.stderr
    if good:
        assert json.loads((tmp_path / "audit.json").read_text())["version"] == "6.12.0"


def test_lava_takes_the_job() -> None:
    schemas = pytest.importorskip("lava_common.schemas", reason="apt install lava-common")
    schemas.validate(load("lava-job.yaml"), strict=True)
    broken = load("lava-job.yaml")
    del broken["timeouts"]["job"]
    with pytest.raises(Exception, match="required key not provided"):
        schemas.validate(broken, strict=True)


def test_the_job_names_the_definition_and_its_parameters() -> None:
    one = load("lava-job.yaml")["actions"][-1]["test"]["definitions"][0]
    assert (REPO / one["path"]).is_file()
    definition = load(Path(one["path"]).name)
    assert set(one["parameters"]) <= set(definition["params"])
    assert definition["metadata"]["format"] == "Lava-Test Test Definition 1.0"
    kernelci = load("kernelci.yaml")
    assert kernelci["jobs"]["pmd-share"]["params"]["definition_path"] == one["path"]
    assert {one["job"] for one in kernelci["scheduler"]} == set(kernelci["jobs"])


def test_the_options_for_kernelci_are_those_of_the_lab() -> None:
    lab = {line for path in (HOME / "configs/base.config", *HOME.glob("defects/*/config"))
           for line in fragment.lines(path)}
    asked = set(load("kernelci.yaml")["fragments"]["pmd-share"]["configs"])
    assert asked <= lab, asked - lab


KTAP = """KTAP version 1
1..3
# # ok 1 x
ok 1 selftests: mm: hugetlb_pmd_count
not ok 2 selftests: mm: hugetlb_pmd_flush # exit=1
ok 3 selftests: mm: hugetlb_subpool # SKIP needs two nodes
pmd-share-test: status=failed passed=1 failed=1 skipped=1 defects=x restored={restored} seconds=1
"""


@pytest.mark.parametrize("restored", ["yes", "no"])
@pytest.mark.parametrize("package", ["", "https://example.org/one.deb"])
def test_lavas_steps(tmp_path: Path, restored: str, package: str) -> None:
    """As LAVA runs them: one shell script, after its parameters; the commands are stand-ins."""
    (tmp_path / "ktap").write_text(KTAP.format(restored=restored))
    stand_ins = {"pmd-share-test": f"echo \"$*\" > {tmp_path}/asked; cat {tmp_path}/ktap; exit 1"}
    for name in ("lava-test-case", "lava-test-raise", "wget", "apt-get"):
        stand_ins[name] = f'echo "{name} $*" >> {tmp_path}/called'
    (tmp_path / "bin").mkdir()
    for name, text in stand_ins.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    definition = load("lava-test.yaml")
    values = definition["params"] | {"PACKAGE": package, "DEFECT": "pmd-share-flush"}
    script = "set -e\n" + "".join(f"{name}={shlex.quote(value)}\n" for name, value in
                                  values.items()) + "\n".join(definition["run"]["steps"])
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, text=True, capture_output=True,
                          check=False,
                          env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    called = (tmp_path / "called").read_text().splitlines()
    assert [line for line in called if line.startswith("lava")] == [
        "lava-test-case hugetlb_pmd_count --result pass",
        "lava-test-case hugetlb_pmd_flush --result fail",
        "lava-test-case hugetlb_subpool --result skip",
        f"lava-test-case restored --result {'pass' if restored == 'yes' else 'fail'}"]
    assert any(line.startswith("wget") for line in called) == bool(package)
    asked = shlex.split((tmp_path / "asked").read_text())
    assert asked == ["--force=0", "--defect", "pmd-share-flush"]
    options.parse(["hosttest", *asked])
    # Each of its results is of a program that there is.
    assert "hugetlb_pmd_count" in needs.load()
