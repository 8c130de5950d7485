# SPDX-License-Identifier: GPL-2.0
"""make package: what is in a package, that it works where it is installed, and that nothing stays.

Nothing here runs a selftest as root: the machine may be at work.
"""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import debian_files, debian_tree, make, refused

from lab import arch, cli, deps, options
from lab.errors import LabError
from lab.pack import command, deb, manual, rpm, stage, tar
from lab.paths import HOME, REPO
from lab.verbs import package

RELEASE = stage.Release("0.20261128.160941", 1796000000, "2026-11-28", "0123456789ab")
FULL = os.environ.get("FULL") == "1"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
RUNNER = "/usr/libexec/pmd-share/run_kselftest.sh"
# What it depends on, and what an audit of a source needs.
INCLUDE = "python3,python3-capstone,python3-pyelftools,coccinelle,libpython3.11"
AUDIT = command.load("pmd-share-audit")


def run(*words: str | Path, cwd: Path | None = None, **environment: str
        ) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(words), text=True, capture_output=True, check=False, cwd=cwd,
                          stdin=subprocess.DEVNULL,
                          env={**os.environ, "LC_ALL": "C.UTF-8", **environment})


def stand_ins(folder: Path) -> Path:
    """A folder as kselftest.install() makes it, of programs that are small."""
    source = folder / "one.c"
    source.write_text("void _start(void) { for (;;); }\n")
    subprocess.run(["gcc", "-g", "-static", "-nostdlib", "-Wl,--build-id", "-o", folder / "one",
                    source], check=True)
    top = folder / "laid-out"
    (top / "mm").mkdir(parents=True)
    (top / "kselftest").mkdir()
    for name in package.kselftest.selftest.names():
        shutil.copy(folder / "one", top / "mm" / name)
    (top / "kselftest-list.txt").write_text(
        "".join(f"mm:{name}\n" for name in package.kselftest.selftest.names()))
    (top / "run_kselftest.sh").write_text("#!/bin/sh\n")
    (top / "run_kselftest.sh").chmod(0o755)
    (top / "kselftest/runner.sh").write_text("#!/bin/sh\n")
    (top / "kselftest/prefix.pl").write_text("#!/usr/bin/env perl\n")
    (top / "kselftest/prefix.pl").chmod(0o755)
    return top


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree as it is installed."""
    made = tmp_path_factory.mktemp("package") / "top"
    made.mkdir()
    stage.lay_out(made, RELEASE, arch.load(), stand_ins(made.parent))
    return made


def tree(folder: Path, version: str = "6 12 0") -> Path:
    """Hardly a kernel tree: the audit knows nothing of it for certain."""
    made = folder / "linux"
    (made / "mm").mkdir(parents=True)
    numbers = dict(zip(("VERSION", "PATCHLEVEL", "SUBLEVEL"), version.split()))
    (made / "Makefile").write_text("".join(f"{name} = {value}\n" for name, value in
                                           (*numbers.items(), ("EXTRAVERSION", ""))))
    return made


# ---- the commands --------------------------------------------------------------------------


def test_the_audit_works_from_where_it_is_installed(top: Path, tmp_path: Path) -> None:
    linux = debian_files("6.12")
    done = run(top / "usr/bin/pmd-share-audit", "--format", "json", linux, cwd=tmp_path,
               LAB_CACHE="/nonexistent/cache")
    assert done.returncode == 1, done.stderr
    here = json.loads(make("audit", f"KERNEL={linux}", "AUDIT=json").stdout)
    there = json.loads(done.stdout)
    patches = [what for one in there["defects"] for what in one["apply"] if "queue/" in what]
    assert patches and all(Path(what).is_file() for what in patches)
    # There is no make there, but the patches are.
    assert here["mend"].startswith("make series KERNEL=") and "make " not in json.dumps(there)
    folder = re.match(r"the patches of (\S+), in the order of its file series$", there["mend"])
    assert folder and (Path(folder[1]) / "series").is_file()
    for one in (here, there):
        assert one.pop("mend") and all("note" in row for row in one["defects"])
        one["defects"] = [{**row, "note": ""} for row in one["defects"]]
    assert json.dumps(there).replace(f"{top / stage.SHARE}/", "") == json.dumps(here)


def test_the_audit_leaves_nothing_in_its_folder(top: Path, tmp_path: Path) -> None:
    before = stage.files(top)
    done = run(top / "usr/bin/pmd-share-audit", tree(tmp_path))
    assert done.returncode == 1 and "unknown" in done.stdout, done.stderr
    assert stage.files(top) == before


def test_the_tests_are_found_where_they_are_installed(top: Path) -> None:
    done = run(top / "usr/sbin/pmd-share-test", "--plan")
    assert "They would leave alone:" in done.stdout, done.stderr
    told = set(re.findall(r"\b(?:hugetlb|thp|exec)_\w+", done.stdout))
    count = int(re.findall(r"(?m)^(\d+) tests? would run", done.stdout)[0])
    skipped = done.stdout.partition("These would not run:")[2].count("\n  ")
    assert count + skipped == len(package.kselftest.selftest.names()) and told
    assert run(top / "usr/sbin/pmd-share-test", "--defect", "nonesuch").returncode == 2


@pytest.mark.parametrize(("words", "says"), [
    (("/nonexistent",), "/nonexistent"),
    (("--boots", "3"), "--boots means nothing to audit"),
    (("BASE=6.1",), "BASE= means nothing to audit"),
    (("--format", "xml"), "AUDIT=xml: "),
])
def test_bad_input_is_one_line(top: Path, words: tuple[str, ...], says: str) -> None:
    done = run(top / "usr/bin/pmd-share-audit", *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert says in done.stderr


def test_a_kernel_must_be_named(top: Path) -> None:
    """In the words of this command: who has the package has no Makefile."""
    done = run(top / "usr/bin/pmd-share-audit")
    assert done.returncode == 2 and done.stderr.startswith("error: name a kernel")
    assert "pmd-share-audit --running " in done.stderr and "make " not in done.stderr
    assert "make audit RUNNING=1 " in make("audit").stderr


def test_its_documents_are_there(top: Path) -> None:
    """What the command refers to: who has the package has no Documentation/."""
    said = run(top / "usr/bin/pmd-share-audit", "--help").stdout
    assert "Documentation/" not in said
    assert "/share/doc/pmd-share/binary-audit.rst" in "".join(said.split())
    for name in ("binary-audit", "hosts", "defects"):
        assert (top / "usr/share/doc/pmd-share" / f"{name}.rst").is_file()


def test_nothing_is_installed(top: Path, tmp_path: Path) -> None:
    """A check that runs as root on a machine in use must not call apt."""
    done = run(top / "usr/bin/pmd-share-audit", tmp_path, "--format", "nrpe", PATH="/nonexistent")
    assert done.returncode == 3
    assert done.stdout.startswith("MIGRATION UNKNOWN - not installed: coccinelle")


def test_there_is_nothing_to_build(top: Path) -> None:
    test = top / "usr/sbin/pmd-share-test"
    assert "harness" not in run(test, "--help").stdout
    done = run(test, "--plan", "--harness", top)
    assert done.returncode == 2 and "the package has them" in done.stderr


def test_what_is_said_alone(tmp_path: Path) -> None:
    def said(*words: str) -> list[str]:
        return command.named(AUDIT, words)
    assert said("/linux") == ["--kernel=/linux"]
    assert said("--format", "json", "/linux") == ["--format", "json", "--kernel=/linux"]
    assert said("--kernel", "/linux", "AUDIT=json") == ["--kernel", "/linux", "AUDIT=json"]
    assert said("--kernel=/linux", "--format=json") == ["--kernel=/linux", "--format=json"]
    # A folder is a tree, and a file an image.
    (tmp_path / "vmlinuz").write_text("")
    assert said(str(tmp_path)) == [f"--kernel={tmp_path}"]
    assert said(f"{tmp_path}/vmlinuz") == [f"--image={tmp_path}/vmlinuz"]


@pytest.mark.parametrize("one", command.COMMANDS, ids=lambda one: one.name)
def test_help_manual_and_completion_have_every_option(top: Path, one: command.Command) -> None:
    script = top / "usr" / one.folder / one.name
    told = run(script, "--help", COLUMNS="80")
    assert told.returncode == 0 and told.stderr == "" and "usage: " + one.name in told.stdout
    page = run("man", "--warnings", "-l",
               top / f"usr/share/man/man{one.section}/{one.name}.{one.section}.gz",
               MANWIDTH="80", MANPAGER="cat")
    assert page.returncode == 0 and page.stderr == "", page.stderr
    text = re.sub(r"\x1b\[[\d;]*m|.\x08", "", page.stdout)
    for option in one.does().takes:
        assert f"--{option.name}" in told.stdout and f"--{option.name}" in text
        assert f"{option.variable}=" in text
    assert f"pmd-share {RELEASE.version}" in text and "@" not in text.replace("@v", "")
    assert completed(top, one, "--") == sorted(
        [*(f"--{option.name}" for option in one.does().takes), "--help", "--version"])
    assert run(script, "--version").stdout == f"{one.name} {RELEASE.version}\n"


def completed(top: Path, one: command.Command, *words: str, cwd: Path | None = None) -> list[str]:
    """What bash offers for the last of the words."""
    script = (f"source {top}/usr/share/bash-completion/completions/{one.name}\n"
              f'COMP_WORDS=({one.name} "$@"); COMP_CWORD=$#\n'
              f"_{one.name.replace('-', '_')}; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n")
    done = run("bash", "-euc", script, "bash", *words, cwd=cwd)
    assert done.stderr == "", done.stderr
    return sorted(done.stdout.split())


def test_completion_of_values(top: Path, tmp_path: Path) -> None:
    test = command.load("pmd-share-test")
    assert completed(top, test, "--defect", "pmd-share-fl") == ["pmd-share-flush"]
    assert completed(top, test, "--plan", "") == []
    (tmp_path / "linux-6.12").mkdir()
    (tmp_path / "linux.tar").touch()
    assert "json" in completed(top, AUDIT, "--format", "")
    assert completed(top, AUDIT, "--format", "=", "j") == ["json"]
    assert "json" in completed(top, AUDIT, "--format", "=")
    assert completed(top, AUDIT, "--kernel", "lin", cwd=tmp_path) == ["linux-6.12"]
    # Alone it may be a file, too.
    assert completed(top, AUDIT, "linux-", cwd=tmp_path) == ["linux-6.12"]
    (tmp_path / "vmlinuz-6.1").write_text("")
    assert completed(top, AUDIT, "vm", cwd=tmp_path) == ["vmlinuz-6.1"]
    assert completed(top, AUDIT, "--kernel", "vm", cwd=tmp_path) == []


def test_what_would_be_markup_in_a_manual_page() -> None:
    assert manual.escape(".x\\y\n'z a-b ~") == "\\&.x\\ey\n\\&'z a\\-b \\(ti"


# ---- the packages --------------------------------------------------------------------------


needs_dpkg = pytest.mark.skipif(not deb.there(), reason="there is no dpkg-deb")
needs_rpm = pytest.mark.skipif(not rpm.there(), reason="there is no rpmbuild: apt install rpm")


@contextlib.contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("form", [pytest.param(deb.make, marks=needs_dpkg, id="deb"),
                                  pytest.param(rpm.make, marks=needs_rpm, id="rpm")])
def test_the_same_bytes_twice(tmp_path: Path, form: Callable[..., Path]) -> None:
    wants = "python3" if form is deb.make else ("python3",)
    made = []
    for number, mask in enumerate((0o022, 0o077)):
        folder = tmp_path / f"somewhere-{number}"
        (folder / "top").mkdir(parents=True)
        with umask(mask):
            stage.lay_out(folder / "top", RELEASE, arch.load(), stand_ins(folder))
            made.append(form(folder / "top", RELEASE, arch.load(), wants, folder))
    assert made[0].name == made[1].name
    assert made[0].read_bytes() == made[1].read_bytes()


def test_one_archive_of_several_architectures(tmp_path: Path) -> None:
    here = arch.load()
    # Of a compiler that each machine has.
    other = dataclasses.replace(here, machine_name="other")
    made = []
    for number, mask in enumerate((0o022, 0o077)):
        folder = tmp_path / f"somewhere-{number}"
        folder.mkdir()
        with umask(mask):
            laid_out = stand_ins(folder)
            made.append(tar.make({here: laid_out, other: laid_out}, RELEASE, folder))
    assert made[0].name == f"pmd-share-selftests-{RELEASE.version}.tar.xz"
    assert made[0].read_bytes() == made[1].read_bytes()
    done = run("tar", "xf", made[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    top = tmp_path / made[0].name.removesuffix(".tar.xz")
    assert sorted(path.name for path in top.iterdir()) == sorted([here.machine_name, "other"])
    for folder in top.iterdir():
        for name in ("run_kselftest.sh", *(f"mm/{one}" for one in
                                           package.kselftest.selftest.names())):
            assert os.access(folder / name, os.X_OK), name
        assert (folder / "kselftest-list.txt").stat().st_mode & 0o777 == 0o644


def test_no_architecture_is_named_but_in_its_row() -> None:
    names = {name for one in map(arch.load, arch.names())
             for name in (one.name, one.machine_name, one.debian, one.triplet)}
    for path in [*(HOME / "lab/pack").glob("*.py"), HOME / "lab/verbs/package.py"]:
        assert not names & set(re.findall(r"\w+", path.read_text())), path


def test_packages_of_which_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []
    needed: list[str] = []

    def make_none(arches: list[arch.Arch], *_rest: object) -> list[Path]:
        asked.append([one.name for one in arches])
        return []
    monkeypatch.setattr(cli.package, "make", make_none)
    monkeypatch.setattr(cli.deps, "ensure", lambda _progress, needs: needed.extend(
        need.package for need in needs))
    for words in ((), ("ARCH=arm64",), ("--arch", "all")):
        assert cli.main(["package", f"O={tmp_path}", *words]) == 0
    assert asked == [[arch.load().name], ["arm64"], arch.names()]
    assert {"libc6-dev", f"libc6-dev-{'arm64' if arch.host() != 'arm64' else 'amd64'}-cross"
            } <= set(needed)
    assert cli.main(["package", "ARCH=pdp11"]) == cli.ERROR


@needs_dpkg
def test_lintian_has_nothing_to_say(tmp_path: Path) -> None:
    if not shutil.which("lintian"):
        pytest.skip("there is no lintian: apt install lintian")
    (tmp_path / "top").mkdir()
    stage.lay_out(tmp_path / "top", RELEASE, arch.load(), stand_ins(tmp_path))
    made = deb.make(tmp_path / "top", RELEASE, arch.load(), package.DEB_DEPENDS, tmp_path)
    done = run("lintian", "--fail-on", "error,warning", "--allow-root", made)
    # An override that is not needed is said as information.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_where_packages_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="neither dpkg-deb nor rpmbuild is there"):
        package.make([arch.load()], tmp_path, package.Progress())


def test_a_time_that_is_none(tmp_path: Path) -> None:
    says = refused("package", f"O={tmp_path}", SOURCE_DATE_EPOCH="today")
    assert "SOURCE_DATE_EPOCH=today: seconds since 1970 are wanted" in says


def test_without_git_a_time_must_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package, "REPO", tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    with pytest.raises(LabError, match="with SOURCE_DATE_EPOCH"):
        package.released()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1796000000")
    assert package.released() == stage.Release("0.20261130.005320", 1796000000, "2026-11-30", "")


def test_the_verb_is_that_of_the_options() -> None:
    assert any(one.name == "package" for one in options.VERBS)
    assert deps.missing(deps.SELFTESTS) == [] and (HOME / "package/description").is_file()


@pytest.fixture(scope="module")
def packed() -> Iterator[list[Path]]:
    """The packages themselves, made twice by an ordinary user, each time in an empty cache."""
    linux = debian_tree("6.12").tree
    # Not in pytest's folder, which it keeps from other users.
    with tempfile.TemporaryDirectory(prefix="lab-packed-") as folder:
        os.chmod(folder, 0o755)
        yield [path for name in ("one", "other") for path in build(Path(folder) / name, linux)]


def build(folder: Path, linux: Path) -> list[Path]:
    folder.mkdir()
    os.chmod(folder, 0o777)
    words = ["make", "-C", str(REPO), "--no-print-directory", "package", f"O={folder}/out",
             f"HARNESS={linux}"]
    done = run(*(NOBODY if os.geteuid() == 0 else ()), *words, HOME="/nonexistent",
               LAB_CACHE=f"{folder}/cache", TMPDIR=str(folder), SOURCE_DATE_EPOCH="1796000000",
               GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory",
               GIT_CONFIG_VALUE_0=str(REPO))
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted((folder / "out").iterdir())


@pytest.mark.slow
@needs_dpkg
@pytest.mark.skipif(not FULL, reason="with FULL=1: it builds the selftests twice")
def test_an_ordinary_user_makes_the_same_package_twice(packed: list[Path]) -> None:
    half = len(packed) // 2
    assert half and [path.name for path in packed[:half]] == [path.name for path in packed[half:]]
    for one, other in zip(packed[:half], packed[half:]):
        assert one.read_bytes() == other.read_bytes(), one.name


def chroot(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run("chroot", root, *words, PATH="/usr/sbin:/usr/bin:/sbin:/bin", HOME="/")


def listed(root: Path) -> list[str]:
    """All files but dpkg's own, and what it says it did."""
    own = ("var/lib/dpkg", "var/log", "proc", "sys", "dev", "tmp")
    return [name for name in run("find", ".", "-mount", cwd=root).stdout.splitlines()
            if not name[2:].startswith(own)]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not FULL, reason="with FULL=1: it makes a Debian of its own")
def test_in_a_clean_chroot(packed: list[Path], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can enter a chroot")
    if not shutil.which("mmdebstrap"):
        pytest.skip("there is no mmdebstrap: apt install mmdebstrap")
    root = tmp_path / "root"
    made = run("mmdebstrap", "--variant=minbase", f"--include={INCLUDE}", "bookworm", root)
    if made.returncode != 0:
        pytest.skip(f"mmdebstrap cannot make one here: {made.stderr.strip().splitlines()[-1]}")
    shutil.copy(next(path for path in packed if path.suffix == ".deb"), root / "tmp/one.deb")
    linux = root / "tmp/linux"
    shutil.copytree(debian_files("6.12") / "mm", linux / "mm")
    shutil.copy(debian_files("6.12") / "Makefile", linux)
    before = listed(root)
    done = chroot(root, "dpkg", "-i", "/tmp/one.deb")
    assert done.returncode == 0, done.stderr
    assert set(listed(root)) > set(before)
    assert "usage: pmd-share-audit" in chroot(root, "pmd-share-audit", "--help").stdout
    plan = chroot(root, "pmd-share-test", "--plan")
    assert plan.returncode == 0 and "would run" in plan.stdout, plan.stderr
    # As one who may change nothing: it must be the tests that skip.
    audit = chroot(root, *NOBODY, "pmd-share-audit", "/tmp/linux")
    assert audit.returncode == 1 and "Linux 6.12" in audit.stdout, audit.stderr
    assert "VULNERABLE" in audit.stdout and "/usr/share/pmd-share/queue/6.12/" in audit.stdout
    # The runner writes to /dev/stdout. In a mount namespace, so that nothing is left mounted.
    tests = run("unshare", "--mount", "--propagation", "private", "sh", "-c",
                "mount -t proc none proc && ln -sf /proc/self/fd/1 dev/stdout && "
                f"exec chroot . {shlex.join(NOBODY)} sh -c '{RUNNER} -t mm:hugetlb_pmd_flush | cat'",
                cwd=root)
    assert "# SKIP needs root" in tests.stdout and "ok 1 self" in tests.stdout, \
        tests.stdout + tests.stderr
    done = chroot(root, "dpkg", "--purge", "pmd-share")
    assert done.returncode == 0, done.stderr
    assert listed(root) == before
