# SPDX-License-Identifier: GPL-2.0
"""With each patch that adds selftests, mm's selftests still build, by the kernel's own Makefile.

After each patch the programs of that step are made, by its Makefile: the new ones, and what a patch
changed of the older ones.  After the last one they are made once more in another folder, as
`make -C tools/testing/selftests TARGETS=mm O=` does.  That makes the kernel's own, too, some of
which want headers and libraries that are not here; it is ours that have to be there in the end.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import FULL, debian_tree, outside_make
from trees import apply, fill, git, released

from lab.guest import selftest
from lab.kernel import testseries
from lab.verbs import mailing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not FULL, reason="builds the selftests of each step: minutes, with FULL=1")]

MM = str(selftest.FOLDER)
# What of a patch is for the programs: theirs, and what they share with the kernel.
OURS = (f"--include={selftest.SELFTESTS}/*", "--include=lib/*_uapi.h")
WARNING = re.compile(r"(?m)^\S+: (?:warning|error): .*")


def wanted(name: str) -> bool:
    """Whether the build reads a file of a tree, or a patch changes it."""
    return name.startswith((f"{selftest.SELFTESTS}/mm/", f"{selftest.SELFTESTS}/kselftest",
                            f"{selftest.SELFTESTS}/x86/", "tools/include/", "tools/arch/",
                            "tools/scripts/")) or \
        bool(re.fullmatch(rf"{selftest.SELFTESTS}/[^/]+|mm/gup_test\.h|scripts/subarch\.include",
                          name))


def parts(base: str) -> list[str]:
    """What is mailed with a selftest in it, in an order in which it applies."""
    return [part for part in testseries.parts() if any(
        f"/{MM}/" in f"/{name}" for path in testseries.files(base, part=part)
        for name in testseries.adds(path))]


def programs(tree: Path) -> list[str]:
    """Those of ours that its Makefile makes."""
    text = (tree / MM / "Makefile").read_text(encoding="utf-8")
    return re.findall(r"(?m)^MIGRATE_TESTS [:+]= (\w+)$", text)


def make(tree: Path, *words: str) -> str:
    """What make says, at the end of which is `exit <status>`."""
    done = subprocess.run(["make", "-j2", *words], cwd=tree, env=outside_make(), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    return f"{done.stdout}exit {done.returncode}"


def step(tree: Path, mail: str) -> str:
    """Apply a patch and make all programs of that step: what is wrong, or ""."""
    apply(tree, *OURS, diff=mail)
    names = programs(tree)
    said = make(tree, "-C", MM, *(str(tree / MM / name) for name in names)) if names else "exit 0"
    if not said.endswith("\nexit 0") and said != "exit 0":
        return said
    # What a patch adds and no Makefile makes is as bad.
    left = {Path(name).stem for name in re.findall(rf"(?m)^\+\+\+ b/({MM}/\w+\.c)$", mail)
            if re.search(r"(?m)^TEST_HARNESS_MAIN\b|^int main\(", (tree / name).read_text("utf-8"))}
    missing = left - set(names) if "\nnew file " in mail else set()
    return "\n".join([*WARNING.findall(said), *(f"{name} is not made" for name in missing)])


def elsewhere(tree: Path, out: Path) -> list[str]:
    """Make all selftests of mm in another folder: those of ours that are missing there."""
    # It only looks whether there are any, and the compiler finds those of this machine.
    fill(out, {"usr/include/linux/version.h": ""})
    make(tree, "-k", "-C", str(selftest.SELFTESTS), "TARGETS=mm", f"O={out}")
    return [name for name in programs(tree) if not (out / "kselftest" / "mm" / name).exists()]


@pytest.fixture(scope="module", params=[base for base in testseries.names() if base == "7.3"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
         ) -> Iterator[tuple[str, Path]]:
    """A base, and as much of its source as released as the selftests are made of."""
    source = debian_tree(request.param)
    folder = tmp_path_factory.mktemp("selftests") / "tree"
    yield request.param, released(source, folder, wanted)


def test_each_patch_builds(tree: tuple[str, Path], tmp_path: Path) -> None:
    base, top = tree
    seen = 0
    assert parts(base)[:2] == ["selftests", "hugetlb"]
    for part in parts(base):
        for name, mail in mailing.patches(base, part):
            said = step(top, mail)
            assert said == "", (part, name, said[-2000:])
            seen += 1
    assert seen > 30 and len(programs(top)) > 30
    # Not what was made in the tree: make would be content with it.
    folder = tmp_path / "tree"
    subprocess.run(["cp", "-r", top, folder], check=True)
    for name in programs(folder):
        (folder / MM / name).unlink()
    assert elsewhere(folder, tmp_path / "out") == []
    assert not any((folder / MM / name).exists() for name in programs(folder))


def test_one_that_does_not_would_be_seen(tree: tuple[str, Path], tmp_path: Path) -> None:
    """The compiler's error, a warning, and a program that nobody makes."""
    _base, top = tree
    folder = tmp_path / "tree"
    subprocess.run(["cp", "-r", top, folder], check=True)
    git(tmp_path, "init", "-q")
    for text, says in (("int main(void) { return no_such; }", "error: "),
                       ("int main(void) { int x; return 0; }", "warning: unused variable"),
                       ("int main(void)\n{ return 0; }", "other is not made")):
        name = "other" if "not made" in says else "hugetlb_pmd_new"
        lines = "".join(f"+{line}\n" for line in text.splitlines())
        mail = (f"diff --git a/{MM}/{name}.c b/{MM}/{name}.c\nnew file mode 100644\n"
                f"--- /dev/null\n+++ b/{MM}/{name}.c\n"
                f"@@ -0,0 +1,{len(text.splitlines())} @@\n{lines}")
        makefile = folder / MM / "Makefile"
        if name != "other" and name not in programs(folder):
            makefile.write_text(makefile.read_text(encoding="utf-8").replace(
                "\ninclude ../lib.mk", f"\nMIGRATE_TESTS += {name}\ninclude ../lib.mk"))
        assert says in step(folder, mail), says
        (folder / MM / f"{name}.c").unlink()
