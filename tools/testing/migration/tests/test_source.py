# SPDX-License-Identifier: GPL-2.0
"""Sources and bases: small kernel trees copied, and what the user's tree must not notice."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trees import fill, git

from conftest import put
from lab import base
from lab.errors import LabError
from lab.kernel import apt, source, tree as trees, variant
from lab.kernel.source import Source
from lab.paths import HOME
from lab.progress import Progress

MAKEFILE = "VERSION = 6\nPATCHLEVEL = 8\nSUBLEVEL = 3\nEXTRAVERSION =\nNAME = Test\n"
FILES = {
    "Makefile": MAKEFILE,
    ".gitignore": "*.o\n.*\n!.gitignore\n/include/generated/\n",
    "mm/rmap.c": "int rmap;\n",
    "mm/hugetlb.c": "int hugetlb;\n",
    "include/linux/mm.h": "#define MM\n",
    "arch/x86/kernel/vmlinux.lds.S": "SECTIONS\n",
    "arch/x86/boot/.gitignore": "voffset.h\n*.bin\n",
    "scripts/kconfig/zconf.tab.c_shipped": "int zconf;\n",
    "tools/include/generated/asm-offsets.h": "shipped\n",
    "usr/include/Makefile": "# headers\n",
    "scripts/link-vmlinux.sh": "#!/bin/sh\n",
}


DIFF = ("diff --git a/mm/rmap.c b/mm/rmap.c\n--- a/mm/rmap.c\n+++ b/mm/rmap.c\n"
        "@@ -1 +1 @@\n-int rmap;\n+int vulnerable;\n")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LAB_CACHE", str(folder))
    monkeypatch.setattr(source, "_NEEDED_MIB", 1)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "linux"
    fill(top, FILES)
    (top / "scripts/link-vmlinux.sh").chmod(0o755)
    (top / "arch/x86/kernel/link.S").symlink_to("vmlinux.lds.S")
    return top


def commit(top: Path) -> None:
    git(top, "init", "-q")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "tree")


def copy(tree: Path, base_name: str | None = None) -> Source:
    return source.from_tree(tree, base_name, Progress(io.StringIO()))


def contents(top: Path) -> dict[str, str]:
    return {str(path.relative_to(top)): os.readlink(path) if path.is_symlink()
            else path.read_text("utf-8", "replace")
            for path in sorted(top.rglob("*")) if path.is_symlink() or path.is_file()}


def everything(top: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """All that a write would change, .git among it, folders too."""
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        info = path.lstat()
        found[str(path)] = (info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino,
                            path.read_bytes() if path.is_file() else b"")
    return found


def mtimes(top: Path) -> dict[str, int]:
    return {str(path.relative_to(top)): path.lstat().st_mtime_ns
            for path in top.rglob("*") if not path.is_dir()}


def test_of_some_files_only(tree: Path, cache: Path) -> None:
    before = everything(tree)
    asked = []

    def only(name: str) -> list[str]:
        asked.append(name)
        return ["mm/rmap.c", "arch/x86/kernel/link.S", "mm/is_in_no_tree.c"]

    given = source.from_tree(tree, None, Progress(io.StringIO()), only)
    assert asked == [given.base.name]
    with given.kept.scratch(given.pristine) as scratch:
        assert not scratch.apply(DIFF)
    assert contents(given.tree) == {"mm/rmap.c": FILES["mm/rmap.c"],
                                    "arch/x86/kernel/link.S": "vmlinux.lds.S"}
    assert everything(tree) == before
    # All of it is another copy, which these are no part of.
    assert contents(copy(tree).tree).keys() > contents(given.tree).keys()
    assert [path.name[:5] for path in sorted((cache / "trees").iterdir())] == ["part-", "user-"]


def test_it_counts_only_what_it_has_asked_for(tree: Path, cache: Path) -> None:
    """What another run asked for before is gone from the copy, and is not new."""
    def told(*names: str) -> str:
        said = io.StringIO()
        source.from_tree(tree, None, Progress(said), lambda _name: names)
        return said.getvalue()

    assert "1 of 1 files were new" in told("mm/rmap.c")
    assert "2 of 2 files were new" in told("Makefile", "arch/x86/kernel/link.S")
    assert "2 files, none of them new" in told("Makefile", "arch/x86/kernel/link.S")
    assert "1 files, none of them new" in told("Makefile")


# ---- bases ---------------------------------------------------------------------------------


def test_the_bases_that_are_there() -> None:
    names = base.names()
    assert names == sorted(names, key=lambda name: [int(part) for part in name.split(".")])
    assert names.index("4.4") < names.index("4.14") < names.index("5.10") < names.index("6.12")
    for name in names:
        loaded = base.load(name)
        assert loaded.name == name
        assert loaded.package in (None, f"linux-source-{name}")
    assert base.load("6.12").suites == ()
    assert base.load("5.10").suites == ("bullseye", "bullseye-security")


# A version, and the base that a tree of it is built as; each base is named.
VERSIONS = [
    ("6.18.44", "6.18"), ("6.17.9", "6.12"), ("6.12.117", "6.12"), ("6.12.0", "6.12"),
    ("6.11.9", "6.6"), ("6.8.3", "6.6"), ("6.5.13", "6.1"), ("6.0.0", "5.15"),
    ("5.15.215", "5.15"), ("5.14.21", "5.10"), ("4.4.155", "4.4"), ("4.17.19", "4.14"),
    ("4.19.300", "4.19"), ("5.3.18", "4.19"), ("5.9.16", "5.4"), ("99.1.0", "7.3"),
    ("4.9.115", "4.9"), ("4.18.0", "4.18"), ("2.6.34", "2.6.34"), ("4.14.67", "4.14"),
    ("4.14.336", "4.14.325"), ("4.9.337", "4.9.337"),
]


@pytest.mark.parametrize("version, name", VERSIONS)
def test_the_base_for_a_version(version: str, name: str) -> None:
    assert base.for_version(version).name == name


def test_no_base() -> None:
    for version in ("2.6.33", "2.6.35", "3.10.108", "4.3"):
        with pytest.raises(LabError, match=f"no base for kernel {version}"):
            base.for_version(version)
    assert base.for_version("2.6.34").name == "2.6.34"
    with pytest.raises(LabError, match=r"no base 6\.99: there are .*6\.12"):
        base.load("6.99")
    assert base.for_version("6.1.0-18-amd64").name == "6.1"


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bases"
    folder.mkdir()
    monkeypatch.setattr(base, "BASES", folder)
    return folder


def test_a_base_file(bases: Path) -> None:
    fill(bases, {"6.1.toml": 'package = "p"\nsuites = ["a", "a-security"]\n'
                             'drop = ["CONFIG_A", "CONFIG_B"]\n'
                             'cflags = "-w -Wx"\ncmdline = "nopti 100%"\n'
                             "noise = ['WARNING: .* f\\+', \"x y\"]\n",
                 "6.1.config": "# Why.\n# CONFIG_C is not set\nCONFIG_D=y\n",
                 "notes.toml": "", "6.1.orig": ""})
    assert base.names() == ["6.1"]
    assert base.load("6.1") == base.Base("6.1", "p", ("a", "a-security"),
                                         ("CONFIG_A", "CONFIG_B"),
                                         ("# CONFIG_C is not set", "CONFIG_D=y"),
                                         "-w -Wx", "nopti 100%", ("WARNING: .* f\\+", "x y"))
    fill(bases, {"6.1.toml": ""})
    (bases / "6.1.config").unlink()
    assert base.load("6.1") == base.Base("6.1")


@pytest.mark.parametrize("version, name", [
    ("4.14.67", "4.14"), ("4.14", "4.14"), ("4.14.324", "4.14"), ("4.14.325", "4.14.325"),
    ("4.14.330", "4.14.330"), ("4.14.336", "4.14.330"),
    # Not what is nearest by its number.
    ("4.15.18", "4.14"), ("4.17.19", "4.14"), ("4.18.0", "4.18"), ("4.13.400", "4.9"),
])
def test_the_base_for_a_late_release(bases: Path, version: str, name: str) -> None:
    fill(bases, {f"{one}.toml": "" for one in ("4.14.325", "2.6.34", "4.18", "4.14.330", "4.9",
                                               "4.14")})
    assert base.names() == ["2.6.34", "4.9", "4.14", "4.14.325", "4.14.330", "4.18"]
    assert [one for one in base.names() if base.late(one)] == ["4.14.325", "4.14.330"]
    assert base.for_version(version).name == name


def test_a_late_release_is_built_as_its_branch(bases: Path) -> None:
    fill(bases, {"4.14.toml": 'package = "p"\nsuites = ["a"]\ndrop = ["CONFIG_A"]\n'
                              'cflags = "-w"\ncmdline = "nopti"\nnoise = ["x"]\n',
                 "4.14.config": "CONFIG_D=y\n", "4.14.325.toml": "# 2023.\n"})
    assert base.load("4.14.325") == base.Base("4.14.325", None, (), ("CONFIG_A",),
                                              ("CONFIG_D=y",), "-w", "nopti", ("x",))
    fill(bases, {"4.14.325.toml": 'cflags = "-g"\n', "4.14.325.config": "CONFIG_E=y\n"})
    assert base.load("4.14.325") == base.Base("4.14.325", None, (), ("CONFIG_A",),
                                              ("CONFIG_E=y",), "-g", "nopti", ("x",))
    (bases / "4.14.toml").unlink()
    with pytest.raises(LabError, match="no base 4.14: there are 4.14.325"):
        base.load("4.14.325")


@pytest.mark.parametrize("text, message", [
    ("package = x\n", "6.1.toml cannot be read"),
    ("[base]\n", "6.1.toml: base: there is no such key, only package, suites"),
    ('packages = "x"\n', "6.1.toml: packages: there is no such key"),
    ('suites = ["x"]\n', "6.1.toml: suites without a package"),
    ('package = "x"\nsuites = "x"\n', "6.1.toml: suites must be a list of strings"),
    ('package = ""\n', "6.1.toml: package is empty"),
    ('name = "6.2"\n', "6.1.toml: name: there is no such key"),
    ('drop = ["NUMA"]\n', "6.1.toml: drop: NUMA is not the name"),
    ('drop = ["CONFIG_NUMA=y"]\n', "6.1.toml: drop: CONFIG_NUMA=y is not the name"),
    ('noise = ["("]\n', "6.1.toml: noise: "),
])
def test_a_bad_base_file(bases: Path, text: str, message: str) -> None:
    fill(bases, {"6.1.toml": text})
    with pytest.raises(LabError, match=message) as caught:
        base.load("6.1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text, message", [
    ("CONFIG_NUMA\n", "6.1.config:1: neither an option nor a comment"),
    ("# Nothing.\n", "6.1.config has no option in it"),
])
def test_a_bad_fragment_of_a_base(bases: Path, text: str, message: str) -> None:
    fill(bases, {"6.1.toml": "", "6.1.config": text})
    with pytest.raises(LabError, match=message):
        base.load("6.1")


def test_each_fragment_is_of_a_base() -> None:
    assert {path.stem for path in base.BASES.glob("*.config")} < set(base.names())
    assert {path.suffix for path in base.BASES.iterdir()} == {".toml", ".config"}


# ---- a copy --------------------------------------------------------------------------------


def test_a_tree_without_git(tree: Path) -> None:
    before = everything(tree)
    given = copy(tree)
    assert contents(given.tree) == contents(tree)
    assert os.access(given.tree / "scripts/link-vmlinux.sh", os.X_OK)
    assert everything(tree) == before
    assert (given.version, given.base.name) == ("6.8.3", "6.6")
    assert given.identity["path"] == str(tree)
    assert given.identity["git"] == "no git"
    assert given.identity["tree"].startswith(given.key)


def test_the_base_may_be_named(tree: Path) -> None:
    assert copy(tree, "5.10").base.name == "5.10"


def test_a_second_run_touches_nothing(tree: Path) -> None:
    first = copy(tree)
    times = mtimes(first.tree)
    assert copy(tree) == first
    for path in tree.rglob("*"):
        if not path.is_symlink():
            os.utime(path)
    assert copy(tree) == first, "a touch is no change"
    assert mtimes(first.tree) == times


def test_an_edit_changes_the_key_and_one_file(tree: Path) -> None:
    first = copy(tree)
    times = mtimes(first.tree)
    (tree / "mm/rmap.c").write_text("int rnap;\n")
    second = copy(tree)
    assert second.key != first.key
    assert second.tree == first.tree
    assert contents(second.tree) == contents(tree)
    changed = {name for name, when in mtimes(second.tree).items() if when != times[name]}
    assert changed == {"mm/rmap.c"}
    (tree / "mm/rmap.c").write_text(FILES["mm/rmap.c"])
    assert copy(tree).key == first.key, "the same content has the same key"


def test_an_edit_that_keeps_size_and_time(tree: Path) -> None:
    first = copy(tree)
    path = tree / "mm/rmap.c"
    info = path.stat()
    path.write_text("int rnap;\n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert copy(tree).key != first.key


def test_an_older_file_gets_a_new_time(tree: Path) -> None:
    """Else make would keep an object that is newer than its source and of another one."""
    first = copy(tree)
    built = time.time_ns()
    (tree / "mm/rmap.c").write_text("int old;\n")
    os.utime(tree / "mm/rmap.c", (1, 1))
    copy(tree)
    assert (first.tree / "mm/rmap.c").stat().st_mtime_ns >= built - 20_000_000


def test_files_that_go_and_change_kind(tree: Path) -> None:
    given = copy(tree)
    shutil.rmtree(tree / "tools")
    (tree / "mm/rmap.c").unlink()
    fill(tree, {"mm/rmap.c/inner.c": "int inner;\n"})
    shutil.rmtree(tree / "usr")
    (tree / "usr").write_text("now a file\n")
    (tree / "scripts/link-vmlinux.sh").chmod(0o644)
    copy(tree)
    assert contents(given.tree) == contents(tree)
    assert not (given.tree / "tools").exists()
    assert not os.access(given.tree / "scripts/link-vmlinux.sh", os.X_OK)
    fill(given.tree.parent, {"obj-x86_64/vmlinux": "built"})
    shutil.rmtree(tree / "mm/rmap.c")
    copy(tree)
    assert contents(given.tree) == contents(tree)
    assert (given.tree.parent / "obj-x86_64/vmlinux").exists(), "what lies beside it stays"


def test_what_a_variant_changed_is_made_pristine(tree: Path) -> None:
    given = copy(tree)
    put(given, variant.make("vulnerable", "x", DIFF))
    copy(tree)
    assert "vulnerable" in (given.tree / "mm/rmap.c").read_text(), "an unchanged tree stays"
    (tree / "mm/hugetlb.c").write_text("int edited;\n")
    newer = copy(tree)
    assert contents(given.tree) == contents(tree)
    with pytest.raises(LabError, match="changed and copied anew"):
        put(given, variant.make("vulnerable", "x", DIFF))
    put(newer, variant.make("vulnerable", "x", DIFF))
    (tree / "mm/rmap.c").write_text("int edited_too;\n")
    newest = copy(tree)
    assert contents(given.tree) == contents(tree)
    put(newest, variant.make("fixed", "as it is", ""))
    assert contents(given.tree) == contents(tree)


def test_a_tree_that_nobody_may_write_to(tree: Path) -> None:
    commit(tree)
    (tree / "mm/rmap.c").write_text("int edited;\n")
    paths = [path for path in [tree, *tree.rglob("*")] if not path.is_symlink()]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    before = everything(tree)
    try:
        given = copy(tree)
        (given.tree / "mm/rmap.c").write_text("the lab may")
        assert given.identity["dirty"] == "1 changed file"
        assert everything(tree) == before
    finally:
        for path in paths:
            path.chmod(path.stat().st_mode | 0o200)


def test_bytes_come_out_as_they_went_in(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tree, {".gitattributes": "*.c text eol=crlf ident filter=f working-tree-encoding=UTF-16\n",
                ".gitignore": "*\n", "mm/odd \"name\".c": "int odd;\n"})
    (tree / "mm/crlf.c").write_bytes(b"int a;\r\n/* $Id$ */\r\n\xe9\n")
    (tree / "mm/line\nfeed.c").write_bytes(b"int b;\r\n/* $Id: 0 $ */")
    fill(Path(os.environ["HOME"]), {".gitconfig": "[core]\n\tautocrlf = input\n\tattributesFile = "
                                    "~/attributes\n", "attributes": "* text\n"})
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    given = copy(tree)

    def held(top: Path) -> dict[str, bytes]:
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*")
                if path.is_file()}

    assert held(given.tree) == held(tree)
    diff = "--- a/mm/crlf.c\n+++ b/mm/crlf.c\n@@ -1 +1,2 @@\n int a;\r\n+int more;\r\n"
    # A line that is left has no context after it: git wants all of the file.
    diff = diff.replace("@@ -1 +1,2 @@", "@@ -1,2 +1,3 @@") + " /* $Id$ */\r\n"
    put(given, variant.make("mine", "x", diff))
    assert (given.tree / "mm/crlf.c").read_bytes() == \
        b"int a;\r\nint more;\r\n/* $Id$ */\r\n\xe9\n"
    put(given, variant.make("pristine", "as it is", ""))
    assert held(given.tree) == held(tree)


# ---- git -----------------------------------------------------------------------------------


def test_a_git_tree(tree: Path) -> None:
    commit(tree)
    clean = copy(tree)
    assert clean.identity["dirty"] == "no"
    assert len(clean.identity["git"]) == 40
    assert clean.identity["tree"] == git(tree, "rev-parse", "HEAD^{tree}").strip(), \
        "who has the commit can check what was built"
    (tree / "mm/rmap.c").write_text("int edited;\n")
    (tree / "mm/hugetlb.c").unlink()
    fill(tree, {"mm/new.c": "int new;\n", "mm/rmap.o": "object", ".config": "CONFIG_X=y\n"})
    before = everything(tree)
    dirty = copy(tree)
    assert everything(tree) == before, "not even the index"
    assert dirty.identity["git"] == clean.identity["git"]
    assert dirty.identity["dirty"] == "3 changed files"
    assert dirty.key != clean.key
    have = contents(dirty.tree)
    assert have["mm/new.c"] == "int new;\n"
    assert have["mm/rmap.c"] == "int edited;\n"
    assert {"mm/hugetlb.c", "mm/rmap.o", ".config"}.isdisjoint(have)
    assert not any(name.startswith(".git/") for name in have)


def test_a_stale_index_is_not_refreshed(tree: Path) -> None:
    commit(tree)
    for path in tree.rglob("*.c"):
        os.utime(path, (1, 1))
    before = everything(tree)
    assert copy(tree).identity["dirty"] == "no"
    assert everything(tree) == before


def test_a_configuration_in_git_is_left_out(tree: Path) -> None:
    fill(tree, {".config": "CONFIG_X=y\n", "include/generated/autoconf.h": "x"})
    git(tree, "init", "-q")
    git(tree, "add", "-Af")
    git(tree, "commit", "-qm", "tree")
    have = contents(copy(tree).tree)
    assert ".config" not in have and "include/generated/autoconf.h" not in have


def test_a_worktree_and_a_tree_inside_a_repository(tree: Path, tmp_path: Path) -> None:
    commit(tree)
    git(tree, "worktree", "add", "-q", str(tmp_path / "second"))
    second = copy(tmp_path / "second")
    assert second.identity["dirty"] == "no" and len(second.identity["git"]) == 40
    assert second.key == copy(tree).key

    big = tmp_path / "big"
    shutil.copytree(tree, big / "src/linux", symlinks=True,
                    ignore=shutil.ignore_patterns(".git"))
    fill(big, {"README": "firmware\n"})
    commit(big)
    fill(big, {"src/linux/mm/new.c": "int new;\n", "other.c": "x"})
    nested = copy(big / "src/linux")
    assert nested.identity["dirty"] == "1 changed file"
    assert "mm/new.c" in contents(nested.tree) and "other.c" not in contents(nested.tree)


def test_a_tree_that_lies_in_a_repository_that_ignores_it(tree: Path, tmp_path: Path) -> None:
    fill(tmp_path, {".gitignore": "*\n", "notes": "x"})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-f", "notes")
    git(tmp_path, "commit", "-qm", "home")
    given = copy(tree)
    assert given.identity["git"] == "no git"
    assert contents(given.tree) == contents(tree)


def test_a_work_tree_without_its_repository(tree: Path) -> None:
    (tree / ".git").write_text("gitdir: /nowhere/at/all\n")
    given = copy(tree)
    assert given.identity["git"] == "unreadable"
    assert (given.tree / "mm/rmap.c").exists() and not (given.tree / ".git").exists()


# ---- built in place ------------------------------------------------------------------------


def test_a_tree_built_in_place(tree: Path) -> None:
    clean = contents(tree)
    fill(tree, {
        ".config": "x", ".config.old": "x", "vmlinux": "x", "vmlinux.o": "x", "System.map": "x",
        "include/config/auto.conf": "x", "include/generated/autoconf.h": "x",
        "arch/x86/include/generated/asm/a.h": "x", "mm/rmap.o": "x", "mm/.rmap.o.cmd": "x",
        "mm/built-in.a": "x", "mm/m.mod.c": "x", "mm/modules.order": "x", ".tmp_vmlinux1": "x",
        ".tmp_versions/m.mod": "x", "arch/x86/boot/voffset.h": "x",
        "arch/x86/kernel/vmlinux.lds": "x", "arch/x86/kernel/.vmlinux.lds.cmd": "x",
        "scripts/kconfig/zconf.tab.c": "x", "scripts/kconfig/.zconf.tab.c.cmd": "x",
        "usr/include/linux/mman.h": "x", "tools/objtool/objtool": "\x7fELF",
        "out/.config": "x", "out/source": "x", "out/Makefile": "x", "out/mm/a.c": "x",
    })
    (tree / "tools/objtool/objtool").chmod(0o755)
    given = copy(tree)
    assert contents(given.tree) == clean
    for name in (".config", "include/config", "arch/x86/include/generated"):
        assert not (given.tree / name).exists(), f"make O= would refuse a tree with {name}"


def test_links_that_lead_out_are_followed(tree: Path, tmp_path: Path) -> None:
    """A link would let the lab write through it into what is the user's."""
    fill(tmp_path, {"mine/driver/a.c": "int a;\n", "mine/b.c": "int b;\n"})
    (tree / "drivers").symlink_to(tmp_path / "mine/driver")
    (tree / "mm/b.c").symlink_to("../../mine/b.c")
    (tree / "mm/absolute.c").symlink_to(tree / "mm/rmap.c")
    (tree / "mm/loop").symlink_to(tree)
    (tree / "mm/nowhere.c").symlink_to("gone.c")
    commit(tree)
    given = copy(tree)
    (given.tree / "drivers/a.c").write_text("changed\n")
    (given.tree / "mm/b.c").write_text("changed\n")
    (given.tree / "mm/absolute.c").write_text("changed\n")
    assert (tmp_path / "mine/driver/a.c").read_text() == "int a;\n"
    assert (tmp_path / "mine/b.c").read_text() == "int b;\n"
    assert (tree / "mm/rmap.c").read_text() == FILES["mm/rmap.c"]
    assert os.readlink(given.tree / "mm/nowhere.c") == "gone.c"
    assert (given.tree / "arch/x86/kernel/link.S").is_symlink()


# ---- interrupted, and two at once ----------------------------------------------------------

CHILD = """
import io, os, sys, time
from pathlib import Path
from lab.kernel import source
from lab.progress import Progress
from lab.kernel import tree
source._NEEDED_MIB = 1
step, count = tree.{step}, 0
def slow(*arguments, **named):
    global count
    count += {counts}
    if count == {at}:
        print("half", flush=True)
        time.sleep({sleep})
    return step(*arguments, **named)
tree.{step} = slow
print(source.from_tree(Path({tree!r}), None, Progress(io.StringIO())).key, flush=True)
"""


def child(tree: Path, at: int, sleep: float, step: str = "File.read", counts: str = "1"
          ) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(at=at, sleep=sleep, tree=str(tree), step=step,
                                            counts=counts)], cwd=HOME,
        stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_in_the_first_copy(tree: Path) -> None:
    kill(child(tree, 4, 60))
    (tree / "Makefile").write_text(MAKEFILE + "# edited\n")
    (tree / "arch/x86/boot/.gitignore").unlink()
    assert contents(copy(tree).tree) == contents(tree)


def test_killed_while_a_copy_is_brought_up_to_date(tree: Path) -> None:
    first = copy(tree)
    originals = {name: (tree / name).read_text() for name in ("Makefile", "mm/rmap.c")}
    fill(tree, {"Makefile": MAKEFILE + "# edited\n", "mm/added.c": "int added;\n",
                "mm/rmap.c": "int edited;\n"})
    kill(child(tree, 3, 60))
    assert not (first.tree.parent / "key").exists()
    with pytest.raises(LabError, match="run again"):
        source.check(first)
    # The user goes back, with the old times; the copy must too.
    fill(tree, originals)
    (tree / "mm/added.c").unlink()
    again = copy(tree)
    assert contents(again.tree) == contents(tree)
    assert again.key == first.key
    source.check(again)


@pytest.mark.parametrize("word", ["update-index", "diff-index", "rev-parse", "read-tree"])
@pytest.mark.parametrize("edited", [False, True])
def test_killed_before_git_does_something(tree: Path, word: str, edited: bool) -> None:
    if edited:
        copy(tree)
        fill(tree, {"mm/rmap.c": "int edited;\n", "mm/added.c": "int added;\n"})
        (tree / "mm/hugetlb.c").unlink()
    kill(child(tree, 1, 60, "Tree._run", f"{word!r} in arguments[1]"))
    # And git itself, half way through.
    for left in (tree.parent / "cache").glob("trees/*/git"):
        for name in ("index.lock", "given.lock", "refs/pristine.lock"):
            (left / name).write_text("half")
        fill(left.parent / "tree", {"mm/litter.c": "half"})
        (left.parent / "changing").touch()
    # So that there is something to do.
    fill(tree, {"mm/later.c": "int later;\n"})
    given = copy(tree)
    assert contents(given.tree) == contents(tree)
    source.check(given)
    assert mtimes(given.tree) == mtimes(copy(tree).tree)


def test_a_git_that_outlives_its_run_is_waited_for(tree: Path) -> None:
    given = copy(tree)
    end = tree.parent / "end"
    with given.kept._alone() as hold:
        late = subprocess.Popen(["sh", "-c", f"sleep 0.5; touch {end}"], pass_fds=(hold,))
    (tree / "mm/rmap.c").write_text("int edited;\n")
    copy(tree)
    assert end.exists()
    late.wait()


def test_two_runs_at_once(tree: Path) -> None:
    process = child(tree, 3, 0.5)
    said = io.StringIO()
    given = source.from_tree(tree, None, Progress(said))
    output, _errors = process.communicate()
    assert "another run works on" in said.getvalue()
    assert output.strip() == given.key
    assert contents(given.tree) == contents(tree)


def test_an_edit_between_two_runs_is_seen_by_the_first(tree: Path) -> None:
    first = copy(tree)
    source.check(first)
    (tree / "mm/rmap.c").write_text("int edited;\n")
    copy(tree)
    with pytest.raises(LabError, match="changed and copied anew"):
        source.check(first)


def test_a_file_that_changes_while_it_is_copied(tree: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    read = trees.File.read

    def edit(file: trees.File) -> tuple[str, bytes]:
        (tree / "usr/include/Makefile").write_text("edited meanwhile\n")
        return read(file)

    monkeypatch.setattr(trees.File, "read", edit)
    with pytest.raises(LabError, match="Makefile changed while it was copied: run again"):
        copy(tree)
    monkeypatch.setattr(trees.File, "read", read)
    assert contents(copy(tree).tree) == contents(tree)


def test_a_copy_that_somebody_removed_is_made_anew(tree: Path) -> None:
    given = copy(tree)
    shutil.rmtree(given.tree)
    with pytest.raises(LabError, match="run again"):
        source.check(given)
    assert copy(tree) == given
    assert contents(given.tree) == contents(tree)
    source.check(given)


@pytest.mark.parametrize("part", ["git/given", "git/HEAD", "git/refs/pristine"])
def test_a_repository_that_is_damaged(tree: Path, part: str) -> None:
    given = copy(tree)
    path = given.tree.parent / part
    path.write_bytes(path.read_bytes()[:3] + b"damaged")
    (given.tree / "litter").write_text("x")
    assert copy(tree) == given
    assert contents(given.tree) == contents(tree)


# ---- what cannot be done -------------------------------------------------------------------


def test_no_kernel_tree(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(LabError, match="no such folder"):
        copy(tmp_path / "nowhere")
    with pytest.raises(LabError, match="no such folder"):
        copy(tree / "Makefile")
    fill(tmp_path, {"busybox/Makefile": MAKEFILE, "empty/x": "", "odd/mm/x": "",
                    "odd/Makefile": "VERSION := 1\nall:\n"})
    for name in ("busybox", "empty", "odd"):
        with pytest.raises(LabError, match="is not a kernel tree"):
            copy(tmp_path / name)
    (tree / "Makefile").write_text(MAKEFILE.replace("6", "2"))
    with pytest.raises(LabError, match=r"no base for kernel 2\.8\.3"):
        copy(tree)


def test_a_version_without_sublevel(tree: Path) -> None:
    (tree / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL =\n")
    assert source.kernel_version(tree) == "7.3.0"


def test_the_cache_must_be_elsewhere(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = copy(tree)
    with pytest.raises(LabError, match="the lab's own work tree"):
        copy(given.tree)
    monkeypatch.setenv("LAB_CACHE", str(tree / "cache"))
    with pytest.raises(LabError, match="is inside"):
        copy(tree)


def test_a_file_that_cannot_be_read(tree: Path) -> None:
    (tree / "mm/rmap.c").chmod(0)
    with pytest.raises(AssertionError, match=r"cannot read .*/mm/rmap\.c: Permission denied"):
        assert not as_nobody(tree)
    (tree / "mm/rmap.c").chmod(0o644)
    (tree / "mm").chmod(0)
    with pytest.raises(AssertionError, match=r"cannot read .*/mm.*: Permission denied"):
        assert not as_nobody(tree)
    (tree / "mm").chmod(0o755)
    assert not as_nobody(tree)


def as_nobody(tree: Path) -> str:
    """What is wrong for somebody who may not read what is not theirs, root neither."""
    done = subprocess.run(
        ["setpriv", *(("--bounding-set", "-dac_override,-dac_read_search") if not os.getuid()
                      else ()), sys.executable, "-c",
         "import sys; from pathlib import Path; from lab.kernel import source\n"
         "from lab.errors import LabError; from lab.progress import Progress\n"
         "source._NEEDED_MIB = 1\n"
         f"try: source.from_tree(Path({str(tree)!r}), None, Progress(sys.stdout))\n"
         "except LabError as err: print(err, file=sys.stderr)"],
        cwd=HOME, text=True, capture_output=True, check=True)
    return done.stderr


@pytest.mark.parametrize("word", ["fast-import", "read-tree", "update-index"])
def test_a_full_disk(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
                     ) -> None:
    git_itself = shutil.which("git")
    fill(tmp_path, {"bin/git": f'#!/bin/sh\ncase "$1" in {word})\n'
                               '  echo "fatal: write error: No space left on device" >&2; exit 128\n'
                               f'esac\nexec {git_itself} "$@"\n'})
    (tmp_path / "bin/git").chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{path}")
    with pytest.raises(LabError, match="the disk is full"):
        copy(tree)
    monkeypatch.setenv("PATH", path)
    assert contents(copy(tree).tree) == contents(tree)


@pytest.mark.parametrize("full", ["TMPDIR", "LAB_CACHE"])
def test_it_is_said_which_disk_is_full(tree: Path, cache: Path, tmp_path: Path, full: str,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    given = copy(tree)
    monkeypatch.setattr(trees, "is_full", lambda path: (cache in path.parents) == (
        full == "LAB_CACHE"))
    with pytest.raises(LabError, match=f"the disk is full at .*, or set {full} to a larger disk"):
        given.kept.diff("nothing", "at all")


def test_too_little_space(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_NEEDED_MIB", 1 << 30)
    with pytest.raises(LabError, match="needs 1073741824 MiB"):
        copy(tree)


# ---- packages ------------------------------------------------------------------------------


@pytest.fixture
def tarball(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "linux-source-6.12.tar.xz"
    subprocess.run(["tar", "-cJf", path, "linux"], cwd=tmp_path, check=True)
    monkeypatch.setattr(apt, "source_package", lambda *_: (path, "6.12.9-1"))
    return path


def unpack() -> Source:
    return source.from_base(base.load("6.12"), Progress(io.StringIO()))


def test_a_package(tarball: Path, tree: Path) -> None:
    given = unpack()
    assert contents(given.tree) == contents(tree)
    assert given.identity["package"] == "linux-source-6.12"
    assert given.identity["package_version"] == "6.12.9-1"
    assert len(given.identity["sha256"]) == 64
    assert given.version == "6.8.3"
    source.check(given)
    (given.tree / "mark").write_text("kept")
    assert unpack() == given
    assert (given.tree / "mark").exists(), "unpacked once"
    put(given, variant.make("vulnerable", "x", DIFF))
    shutil.rmtree(given.tree)
    assert unpack() == given
    assert contents(given.tree) == contents(tree)
    put(given, variant.make("fixed", "as it is", ""))
    assert contents(given.tree) == contents(tree)


def test_a_damaged_package(tarball: Path, cache: Path) -> None:
    whole = tarball.read_bytes()
    tarball.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(LabError, match=r"linux-source-6\.12\.tar\.xz cannot be unpacked.*remove"):
        unpack()
    assert not list(cache.glob("trees/*/tree"))
    assert not list(cache.glob("trees/*/.new-*"))
    tarball.write_bytes(whole)
    assert unpack().version == "6.8.3"


def test_another_package_gets_another_tree(tarball: Path, tree: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    first = unpack()
    monkeypatch.setattr(apt, "source_package", lambda *_: (tarball, "6.12.9-2"))
    assert unpack().tree != first.tree
