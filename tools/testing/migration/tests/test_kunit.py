# SPDX-License-Identifier: GPL-2.0
"""The KUnit tests pass on Debian's kernels with their queue, and fail when any part is broken.

The functions' own text, out of the patched tree, is compiled in user space with the KUnit file as it is
(hugetlb_pmd_share_main.c).
"""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import FULL, debian_files
from trees import apply, fill, some

from lab.kernel import variant
from lab.paths import HOME, REPO
from lab.verbs import mailing

# Where each function is, in the order in which they need each other.
FUNCTIONS = {
    "range_is_subset": "include/linux/mm.h",
    "range_in_vma": "include/linux/mm.h",
    "uffd_disable_huge_pmd_share": "include/linux/userfaultfd_k.h",
    "page_table_shareable": "mm/hugetlb.c",
    "want_pmd_share": "mm/hugetlb.c",
    "adjust_range_if_pmd_sharing_possible": "mm/hugetlb.c",
}
# How far a page, a PMD and a PUD shift an address: with base pages of 4 KiB, which all architectures
# have, and with those of 16 KiB and 64 KiB, which arm64 has beside.
SHIFTS = {"4K": (12, 21, 30), "16K": (14, 25, 36), "64K": (16, 29, 42)}
# Not in every kernel that there is one of.
OPTIONAL = {"range_is_subset"}
# What the KUnit file includes; hugetlb_pmd_share_main.c has it all.
HEADERS = ("kunit/test.h", "linux/hugetlb.h", "linux/mm.h", "linux/userfaultfd_k.h",
           "mm/internal.h")
MACROS = ("vm_flags_t=unsigned long", "pgoff_t=unsigned long", "IS_ENABLED(option)=option",
          "MODULE_DESCRIPTION(text)=extern int no_module",
          "MODULE_LICENSE(text)=extern int no_module")


@pytest.fixture(scope="session", params=["6.12", "7.3"])
def functions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of all the functions in one of Debian's kernels, with the fixes for it."""
    tree, fixed = debian_files(request.param), tmp_path_factory.mktemp("fixed")
    paths = set(FUNCTIONS.values())
    some(tree, fixed, paths)
    for patch in variant.series(request.param):
        apply(fixed, *(f"--include={name}" for name in paths), patch)
    texts = {name: (fixed / name).read_text(encoding="utf-8") for name in paths}
    return "".join(function(name, texts[path]) for name, path in FUNCTIONS.items())


@pytest.mark.parametrize("base", ["6.12", "7.3"])
def test_they_go_on_top_of_the_form_that_does_not_unshare(base: str, tmp_path: Path) -> None:
    """They apply, and may call all that they call: nobody knows which goes in first."""
    form = [path.read_text(encoding="utf-8") for path in variant.series(base, "series.flush")]
    tests = [text for part in (*mailing.first(base, "kunit"), "kunit")
             for _name, text in mailing.patches(base, part)]
    tree = debian_files(base)
    names = {name for text in (*form, *tests) for name in re.findall(r"(?m)^--- a/(.+)$", text)}
    some(tree, tmp_path / "tree", sorted(names))
    for text in (*form, *tests):
        apply(tmp_path / "tree", "-", diff=text)
    text = (tmp_path / "tree/mm/hugetlb.c").read_text(encoding="utf-8")
    for name in (name for name, path in FUNCTIONS.items() if path == "mm/hugetlb.c"):
        assert re.search(rf"(?m)^\w.*\b{name}\(", text) and not re.search(
            rf"(?m)^static\b[^;{{]*\b{name}\(", text), name


@pytest.fixture
def mutable(request: pytest.FixtureRequest, functions: str) -> str:
    """The same, of the newest: a program is compiled for each part."""
    if not FULL and request.node.callspec.params["functions"] != "7.3":
        pytest.skip("each part of an older kernel's: with FULL=1")
    return functions


def function(name: str, source: str) -> str:
    """Its first definition: of those under an #ifdef, the one that does something."""
    found = re.search(rf"(?ms)^[a-z][a-z ]*\b{name}\([^;{{]*\)\n\{{\n.*?^\}}\n", source)
    if not found:
        assert name in OPTIONAL, f"no {name}"
        return ""
    return found[0] + "\n"


def run(text: str, folder: Path, pages: str = "4K") -> subprocess.CompletedProcess[str]:
    """The KUnit tests on the functions `text`, with base pages of one size."""
    fill(folder, dict.fromkeys(HEADERS, ""))
    (folder / "mm/tests").mkdir(exist_ok=True)
    (folder / "functions.inc").write_text(text, encoding="utf-8")
    program = folder / "tests-in-user-space"
    # The KUnit file asks for ../internal.h: mm/tests/.. of some folder in the list.
    subprocess.run(["gcc", "-O1", "-Wall", "-Wno-unused-function", "-fsanitize=undefined",
                    *(f"-D{macro}" for macro in MACROS),
                    *(f"-D{name}_SHIFT={bits}" for name, bits in
                      zip(("PAGE", "PMD", "PUD"), SHIFTS[pages])),
                    *(["-DHAS_UFFD_RWP"] if "VMA_UFFD_RWP" in text else []),
                    f"-I{folder}", f"-I{folder}/mm/tests", f"-I{REPO}", "-o", program,
                    HOME / "tests" / "hugetlb_pmd_share_main.c"], check=True)
    return subprocess.run([program], text=True, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("pages", SHIFTS)
def test_they_pass(functions: str, pages: str, tmp_path: Path) -> None:
    done = run(functions, tmp_path, pages)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "" and "SKIP" not in done.stdout
    found = re.search(r"(\d+) tests, 0 failed", done.stdout)
    assert found and int(found[1]) > 30


@pytest.mark.parametrize("part, instead", [
    # page_table_shareable()
    ("pmd_index(addr) != pmd_index(saddr) ||", ""),
    ("vm_flags != svm_flags ||", ""),
    ("vm_flags = vma->vm_flags & ~VM_LOCKED_MASK", "vm_flags = vma->vm_flags"),
    ("svm_flags = svma->vm_flags & ~VM_LOCKED_MASK", "svm_flags = svma->vm_flags"),
    ("vma->vm_flags & ~VM_LOCKED_MASK", "vma->vm_flags & ~VM_LOCKED"),
    ("vma->vm_flags & ~VM_LOCKED_MASK", "vma->vm_flags & ~(VM_LOCKED_MASK | VM_WRITE)"),
    ("vma->vm_flags & ~VM_LOCKED_MASK", "vma->vm_flags & ~(VM_LOCKED_MASK | VM_SOFTDIRTY)"),
    ("!range_in_vma(svma, sbase, s_end) ||", ""),
    ("range_in_vma(svma, sbase, s_end)", "range_in_vma(svma, saddr, s_end)"),
    ("range_in_vma(svma, sbase, s_end)", "range_in_vma(svma, sbase, saddr)"),
    ("range_in_vma(svma, sbase, s_end)", "range_in_vma(vma, sbase, s_end)"),
    ("||\n\t    !svma->vm_private_data", ""),
    ("!svma->vm_private_data", "!vma->vm_private_data"),
    ("return saddr;", "return addr;"),
    ("return saddr;", "return sbase;"),
    ("<< PAGE_SHIFT) +\n\t\t\t\tsvma->vm_start", "<< PAGE_SHIFT) +\n\t\t\t\tvma->vm_start"),
    # want_pmd_share()
    ("if (!(vma->vm_flags & VM_MAYSHARE))", "if (0)"),
    ("if (!(vma->vm_flags & VM_MAYSHARE))", "if (!(vma->vm_flags & VM_SHARED))"),
    ("if (!vma->vm_private_data)", "if (0)"),
    ("if (!range_in_vma(vma, start, end))", "if (0)"),
    ("if (!range_in_vma(vma, start, end))", "if (!range_in_vma(vma, addr, end))"),
    ("if (!range_in_vma(vma, start, end))", "if (!range_in_vma(vma, start, addr))"),
    ("unsigned long start = addr & PUD_MASK;", "unsigned long start = addr;"),
    ("if (uffd_disable_huge_pmd_share(vma))", "if (0)"),
    # adjust_range_if_pmd_sharing_possible()
    ("*end = ALIGN(*end, PUD_SIZE);", "{ }"),
    ("*start = ALIGN_DOWN(*start, PUD_SIZE);", "{ }"),
    ("*end = ALIGN(*end, PUD_SIZE)", "*end = ALIGN_DOWN(*end, PUD_SIZE)"),
    ("*start = ALIGN_DOWN(*start, PUD_SIZE)", "*start = ALIGN(*start, PUD_SIZE)"),
    ("*end = ALIGN(*end, PUD_SIZE)", "*end = *start + PUD_SIZE"),
    ("if (*end < v_end)", "if (*end)"),
    ("if (*start > v_start)", "if (*end)"),
    ("(*start >= v_end)", "0"),
    ("(*end <= v_start)", "0"),
    ("!(vma->vm_flags & VM_MAYSHARE) ||", ""),
    ("!(vma->vm_flags & VM_MAYSHARE) ||", "!(vma->vm_flags & VM_SHARED) ||"),
    ("v_start = ALIGN(vma->vm_start, PUD_SIZE)", "v_start = vma->vm_start"),
    ("v_start = ALIGN(vma->vm_start,", "v_start = ALIGN_DOWN(vma->vm_start,"),
    ("v_end = ALIGN_DOWN(vma->vm_end, PUD_SIZE)", "v_end = vma->vm_end"),
    ("v_end = ALIGN_DOWN(vma->vm_end,", "v_end = ALIGN(vma->vm_end,"),
])
def test_each_part_is_needed(mutable: str, part: str, instead: str, tmp_path: Path) -> None:
    assert part in mutable
    assert run(mutable.replace(part, instead), tmp_path).returncode != 0


@pytest.mark.parametrize("part, instead", [
    # page_table_shareable(): 6.12 has the field, 7.3 a function
    (r"idx - (svma->vm_pgoff|vma_start_pgoff\(svma\))", "idx"),
    (r"svma->vm_pgoff|vma_start_pgoff\(svma\)", "vma->vm_pgoff"),
    # uffd_disable_huge_pmd_share()
    (r"\bVMA?_UFFD_WP\b", "0"),
    (r"\bVMA?_UFFD_MINOR\b", "0"),
    (r"(?<=uffd_disable_huge_pmd_share\(struct vm_area_struct \*vma\)\n\{\n)",
     "if (vma->vm_flags & VM_UFFD_MISSING) return true;\n"),
    # range_in_vma(), in 7.3 with range_is_subset()
    (r"(?<=\()vma && |(?s:if \(!vma\).*?;)", ""),
    (r"(?<=start) <= (?=(inner_)?start)", " < "),
    (r"(?<=start) <= (?=(inner_)?start)", " || "),
    (r"(?<=end) <= (?=(vma->vm|outer)_end)", " < "),
    (r"(?<=end) <= (?=(vma->vm|outer)_end)", " || "),
])
def test_each_part_is_needed_by_whatever_name(mutable: str, part: str, instead: str,
                                              tmp_path: Path) -> None:
    text, count = re.subn(part, instead, mutable)
    assert count == 1
    assert run(text, tmp_path).returncode != 0


def test_the_flag_that_came_later_is_needed(functions: str, tmp_path: Path) -> None:
    if "VMA_UFFD_RWP" not in functions:
        pytest.skip("this kernel has no VM_UFFD_RWP")
    mutant = re.sub(r"\bVMA_UFFD_RWP\b", "0", functions)
    assert mutant != functions
    assert run(mutant + "/* VMA_UFFD_RWP */\n", tmp_path).returncode != 0
