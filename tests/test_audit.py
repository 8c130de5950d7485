# SPDX-License-Identifier: GPL-2.0
"""make audit: right on every base before and after its queue, and on what the controls make.

Trees are cut down to the files that the audit reads.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import debian_tarball, outside_make
from test_queue import released_tree

from lab import audit, defect, variant
from lab.base import load
from lab.errors import LabError
from lab.paths import REPO
from lab.source import Source

ALL = [defect.load(name) for name in defect.names()]
FILES = sorted({name for one in ALL for name in one.audit_files + one.control_files} | {"Makefile"})
DEBIAN = ["5.10", "6.1", "6.12", "7.3"]
RELEASED = ["2.6.34", "4.4", "4.9", "4.14", "4.18"]


def cut_down(tree: Path, dest: Path, more: set[str]) -> Path:
    """The files of `tree` that matter."""
    for name in [*FILES, *more]:
        if (tree / name).exists():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree / name, dest / name)
    return dest


def unpacked(base: str, dest: Path) -> Path:
    """The same of Debian's source of `base`, as it is packed."""
    top = f"linux-source-{base}"
    # Not all versions have all files: tar says so, and unpacks the others.
    subprocess.run(["tar", "-C", dest, "-xf", debian_tarball(base), "--occurrence=1",
                    *(f"{top}/{name}" for name in FILES)], capture_output=True, check=False)
    assert (dest / top / "mm" / "rmap.c").exists()
    return dest / top


def status(tree: Path) -> dict[str, str]:
    return {one.defect: one.status for one in audit.audit(tree)[1]}


def patched_files(base: str) -> set[str]:
    return {name for patch in variant.series(base)
            for name in re.findall(r"(?m)^--- a/(.+)$", patch.read_text(encoding="utf-8"))}


def variants(tree: Path, base: str, folder: Path) -> list[tuple[str, str, Path]]:
    """Defect, variant and tree, for each that the lab can make of the cut down `tree`."""
    made = []
    for one in ALL:
        source = Source(load(base), "1.2.3", {}, "k", tree)
        try:
            plan = variant.plan(source, one)
        except LabError:
            continue
        for state in plan:
            copy = folder / f"{one.name}-{state.name}"
            shutil.copytree(tree, copy)
            if state.diff:
                subprocess.run(["git", "apply", "-"], input=state.diff, text=True, cwd=copy,
                               check=True, env={"PATH": "/usr/bin:/bin",
                                                "GIT_CEILING_DIRECTORIES": str(folder)})
            made.append((one.name, state.name, copy))
    return made


def check_variants(tree: Path, base: str, folder: Path, at_least: int) -> None:
    made = variants(tree, base, folder)
    assert len(made) >= 2 * at_least
    for name, state, copy in made:
        want = audit.VULNERABLE if state == "vulnerable" else audit.PROTECTED
        assert status(copy)[name] == want, f"{name}, the {state} variant of {base}"


@pytest.mark.parametrize("base", DEBIAN)
def test_debians(base: str, tmp_path: Path) -> None:
    tree = unpacked(base, tmp_path)
    want = {one.name: audit.PROTECTED for one in ALL}
    if base == "5.10":
        want["thp-cow-isolation"] = audit.VULNERABLE
    assert status(tree) == want
    check_variants(tree, base, tmp_path, len(ALL))


@pytest.mark.parametrize("base", RELEASED)
def test_released(base: str, tmp_path: Path) -> None:
    tree = cut_down(released_tree(base), tmp_path / "linux", patched_files(base))
    if base == "2.6.34":
        assert status(tree) == {"pmd-share-migrate": audit.NOT_AFFECTED,
                                "pmd-share-flush": audit.VULNERABLE,
                                "exec-temp-stack": audit.VULNERABLE,
                                "thp-cow-isolation": audit.NOT_AFFECTED}
    else:
        assert status(tree) == {"pmd-share-migrate": audit.VULNERABLE,
                                "pmd-share-flush": audit.VULNERABLE,
                                "exec-temp-stack": audit.PROTECTED,
                                "thp-cow-isolation": audit.NOT_AFFECTED}
    check_variants(tree, base, tmp_path, 1 if base == "2.6.34" else 2)


def small_tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "mm").mkdir(exist_ok=True)
    (folder / "Makefile").write_text("VERSION = 4\nPATCHLEVEL = 14\nSUBLEVEL = 113\n")
    return folder


SHARE = "static pte_t *huge_pmd_share(struct mm_struct *mm)\n{\n\treturn 0;\n}\n"
MOVE = "static int unmap_and_move_huge_page(struct page *page)\n{\n\treturn 0;\n}\n"
WALK = ("static bool try_to_unmap_one(struct page *page, struct vm_area_struct *vma)\n{\n"
        "\thuge_ptep_clear_flush(vma);\n%s\treturn true;\n}\n")


def migrate(tree: Path) -> audit.Finding:
    return next(one for one in audit.audit(tree)[1] if one.defect == "pmd-share-migrate")


def test_what_cannot_be_parsed_is_unknown(tmp_path: Path) -> None:
    broken = WALK % "\tif (page) {{{ ) huge_pmd_unshare(mm, &address, pte);\n"
    tree = small_tree(tmp_path, {"mm/rmap.c": broken, "mm/hugetlb.c": SHARE, "mm/migrate.c": MOVE})
    found = migrate(tree)
    assert found.status == audit.UNKNOWN
    assert "cannot parse try_to_unmap_one()" in found.why
    (tree / "mm/rmap.c").write_text(WALK % "")
    assert migrate(tree).status == audit.VULNERABLE
    (tree / "mm/rmap.c").write_text(WALK % "\thuge_pmd_unshare(mm, &address, pte);\n")
    assert migrate(tree).status == audit.PROTECTED
    (tree / "mm/migrate.c").write_text("static int unmap_and_move_huge_page(int a\n{ {{\n}\n")
    assert migrate(tree).status == audit.UNKNOWN
    (tree / "mm/migrate.c").write_text("static int\nunmap_and_move_huge_page(int a\n{ {{\n}\n")
    assert migrate(tree).status == audit.UNKNOWN
    (tree / "mm/migrate.c").write_text("int f(void)\n{\n\treturn 0;\n}\n")
    assert migrate(tree).status == audit.NOT_AFFECTED


def test_a_tree_without_the_files_is_unknown(tmp_path: Path) -> None:
    found = migrate(small_tree(tmp_path, {}))
    assert (found.status, found.places) == (audit.UNKNOWN, ())


def test_a_call_elsewhere_is_no_protection(tmp_path: Path) -> None:
    other = "\nstatic int f(void)\n{\n\treturn huge_pmd_unshare(mm, &address, pte);\n}\n"
    tree = small_tree(tmp_path, {"mm/rmap.c": WALK % "" + other, "mm/hugetlb.c": SHARE,
                                 "mm/migrate.c": MOVE})
    found = migrate(tree)
    assert found.status == audit.VULNERABLE
    assert found.places == ("mm/rmap.c:1 try_to_unmap_one",)
    # What comes before a patch in its series is needed by it.
    assert [path.split("/")[-1][:4] for path in found.apply] == [
        f"{number:04}" for number in range(1, len(found.apply) + 1)]
    assert any("fix-migration-of-huge-PMD-shared-pages" in path for path in found.apply)


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "--no-print-directory", "audit", *words], cwd=REPO, text=True,
                          env=outside_make(), capture_output=True, check=False)


def test_the_front_door(tmp_path: Path) -> None:
    tree = small_tree(tmp_path, {"mm/rmap.c": WALK % "", "mm/hugetlb.c": SHARE,
                                 "mm/migrate.c": MOVE})
    done = make(f"KERNEL={tree}")
    assert done.returncode != 0
    assert done.stdout.startswith("Linux 4.14.113\n")
    assert re.search(r"(?m)^VULNERABLE +pmd-share-migrate\n +mm/rmap\.c:1 try_to_unmap_one$",
                     done.stdout)
    told = json.loads(make(f"KERNEL={tree}", "AUDIT=json").stdout)
    assert told["version"] == "4.14.113"
    assert {one["defect"] for one in told["defects"]} == {one.name for one in ALL}


@pytest.mark.parametrize("words, reason", [
    ([], "name a kernel tree with KERNEL="),
    (["KERNEL=/nonexistent"], "no such folder: /nonexistent"),
    (["KERNEL=/usr"], "/usr is no kernel tree"),
    (["KERNEL=/usr", "AUDIT=xml"], "AUDIT=xml: json or nothing is wanted"),
])
def test_errors_are_one_line(words: list[str], reason: str) -> None:
    done = make(*words)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and reason in lines[0]
