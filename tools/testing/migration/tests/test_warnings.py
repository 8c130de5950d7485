# SPDX-License-Identifier: GPL-2.0
"""Each patch of what is mailed compiles under allmodconfig and tinyconfig, without a new warning.

Under the lab's own configuration it is compiled by test_steps.py.  Gcc warns as W=1 has it, which
has kernel-doc look, too, and sparse reads what is compiled.  What they say of the source as it was
released does not count.

A whole allmodconfig takes two cores hours.  So only the objects are made whose source a patch
changes or adds; of tinyconfig, all that is in their folders.  Programs are built by other tests.
Debian 12 has no smatch.
"""

import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import FULL, debian_tree
from trees import apply, released

from lab import arch
from lab.kernel import kconfig, testseries
from lab.kernel.source import Source
from lab.verbs import mailing

# Compilers for hours, where it is not skipped.
pytestmark = pytest.mark.alone
compiles = pytest.mark.skipif(not FULL, reason="configures kernels: many minutes, with FULL=1")

# Of allmodconfig: the KUnit tests cannot be a module, and a warning is to be read, not to end a
# build.
MORE = "CONFIG_KUNIT=y\n# CONFIG_WERROR is not set\n"
CONFIGS = ("tinyconfig", "allmodconfig")
# As small as that, but PMD tables are shared.
SHARES = "".join(f"CONFIG_{line}\n" for line in (
    "64BIT=y", "SMP=y", "NR_CPUS=8", "NUMA=y", "MIGRATION=y", "MEMORY_FAILURE=y", "HUGETLBFS=y",
    "USERFAULTFD=y"))
# What is left out: with all that configures a kernel, a third of a tree is enough.
_CODE = re.compile(r"(?!arch/x86/)(?:arch|block|crypto|drivers|net|rust|samples|sound)/.*"
                   r"\.(?:c|S|dtsi?|dtso|rs|json)$|drivers/gpu/.*\.h$|"
                   r"Documentation/(?!mm/index\.rst)")
# 7.3 asks whether sparse knows this, and that of Debian 12 does not.
SPARSE = "sparse -D__typeof_unqual__=__typeof__"
_SAYS = re.compile(
    r"(?m)^(?:[Ww]arning: )?(?P<file>[\w./+-]+\.[chS]):(?P<line>\d+)(?::\d+)?:? (?P<text>.*)$")
# 7.3 asserts __builtin_strlen() of each MODULE_LICENSE(), which sparse 0.6.4 does not count.
_NO_CONSTANT = "error: bad constant expression"


def wanted(path: str) -> bool:
    """Whether a file is needed to configure a kernel, and to compile what the patches change."""
    return "/Kconfig" in path or not _CODE.match(path)


def warnings(said: str, top: Path) -> Counter[str]:
    """What a build says of files, by file: not where, as other lines move that."""
    found: Counter[str] = Counter()
    for one in _SAYS.finditer(said.replace(f"{top}/", "")):
        # Not what explains the line before.
        if not one["text"].startswith((" ", "note: ")) and not _of_module(one, top):
            found[f"{one['file']}: {one['text']}"] += 1
    return found


def _of_module(one: re.Match[str], top: Path) -> bool:
    """Whether sparse says it of each module."""
    if one["text"] != _NO_CONSTANT:
        return False
    line = (top / one["file"]).read_text(encoding="utf-8").splitlines()[int(one["line"]) - 1]
    return line.startswith("MODULE_")


def sources(mail: str) -> list[str]:
    """The kernel's C files that a patch changes or adds."""
    return [name for name in re.findall(r"(?m)^\+\+\+ b/(\S+\.c)$", mail)
            if not name.startswith("tools/")]


def headers(mail: str) -> list[str]:
    return [name for name in re.findall(r"(?m)^\+\+\+ b/(\S+\.h)$", mail)
            if not name.startswith("tools/")]


@dataclass
class Kernel:
    """Files of a released source, patched step by step, and what is built of them."""

    source: Source
    top: Path
    obj: Path
    config: str

    def __post_init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.more = MORE if self.config == "allmodconfig" else ""

    def make(self, *words: str) -> str:
        """What make says; no error."""
        command = [*kconfig.make_command(self.source, arch.load("x86_64"), self.obj), "-s", "-j2",
                   "--output-sync=line", *words]
        command[command.index("-C") + 1] = str(self.top)
        environment = kconfig.environment(self.obj) | {"KCONFIG_ALLCONFIG": str(self.obj / "more")}
        done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False,
                              stdin=subprocess.DEVNULL)
        said = done.stdout + done.stderr
        if done.returncode:
            # Not by assert, which pytest puts in short.
            pytest.fail(f"make {shlex.join(words)}: {said[-3000:]}")
        return said

    def configure(self) -> None:
        self.obj.mkdir(exist_ok=True)
        (self.obj / "more").write_text(self.more)
        self.make(self.config)

    def names(self, files: list[str], mails: list[str]) -> list[str]:
        """What to make of these files, that this configuration has anything of."""
        if self.config != "tinyconfig":
            return sorted({f"{name[:-2]}.o" for name in files if (self.top / name).exists()})
        changed = [*files, *(["mm/mmap.c"] if any(map(headers, mails)) else [])]
        return sorted({self.folder(name) for name in changed})

    def folder(self, name: str) -> str:
        """The folder whose Makefile has a file."""
        return next(f"{path}/" for path in Path(name).parents
                    if (self.top / path / "Makefile").exists())

    def warned(self, names: list[str]) -> Counter[str]:
        return warnings(self.make("W=1", "C=1", f"CHECK={SPARSE}", *names), self.top)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The files of each base, for all configurations; not for longer than it takes."""
    made: dict[str, Path] = {}
    for base in testseries.names():
        made[base] = tmp_path_factory.mktemp(f"warnings-{base}")
    yield made
    for folder in made.values():
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=[
    (base, config) for base in testseries.names() for config in CONFIGS],
    ids=lambda one: f"{one[0]}-{one[1]}")
def kernel(request: pytest.FixtureRequest, trees: dict[str, Path]) -> Kernel:
    """A source as released, and what is said of all that any patch changes."""
    base, config = request.param
    source, work = debian_tree(base), trees[base]
    if not (work / "tree").exists():
        released(source, work / "tree", wanted)
    one = Kernel(source, work / "tree", work / config, config)
    one.configure()
    mails = [mail for part in mailing.parts(base) for _name, mail in mailing.patches(base, part)]
    one.seen = one.warned(one.names(sorted({name for mail in mails for name in sources(mail)}),
                                    mails))
    return one


def put(one: Kernel, mail: str) -> None:
    apply(one.top, "--whitespace=nowarn", "-", diff=mail)
    if configures(mail):
        one.configure()


def build(one: Kernel, mail: str) -> tuple[list[str], Counter[str]]:
    """What a patch has make do, and what is said more than of the source as released."""
    if not sources(mail) and not headers(mail):
        return [], Counter()
    names = one.names(sources(mail), [mail])
    return names, one.warned(names) - one.seen


def back(one: Kernel, mails: list[str]) -> None:
    for mail in reversed(mails):
        apply(one.top, "-R", "--whitespace=nowarn", "-", diff=mail)
    if any(map(configures, mails)):
        one.configure()


def configures(mail: str) -> bool:
    return bool(re.search(r"(?m)^\+\+\+ b/\S*Kconfig", mail))


SAID = """\
In file included from /x/linux/include/linux/mm.h:7,
                 from /x/linux/mm/rmap.c:54:
/x/linux/mm/rmap.c: In function 'f':
/x/linux/mm/rmap.c:90:13: warning: variable 'c' set but not used [-Wunused-but-set-variable]
   90 |         int c = 0;
/x/linux/mm/rmap.c:91:13: note: declared here
/x/linux/mm/rmap.c:88:27: warning: incorrect type in initializer (different address spaces)
/x/linux/mm/rmap.c:88:27:    expected int [noderef] __user *b
Warning: /x/linux/mm/rmap.c:84 function parameter 'a' not described in 'f'
/x/linux/mm/rmap.c:84: warning: Function parameter or struct member 'a' not described in 'f'
/x/linux/mm/rmap.c:190:13: warning: variable 'c' set but not used [-Wunused-but-set-variable]
"""


def test_what_they_say_is_read() -> None:
    """Gcc, sparse, and kernel-doc of 7.3 and of 6.12."""
    assert warnings(SAID, Path("/x/linux")) == {
        "mm/rmap.c: warning: variable 'c' set but not used [-Wunused-but-set-variable]": 2,
        "mm/rmap.c: warning: incorrect type in initializer (different address spaces)": 1,
        "mm/rmap.c: function parameter 'a' not described in 'f'": 1,
        "mm/rmap.c: warning: Function parameter or struct member 'a' not described in 'f'": 1}


def test_what_sparse_says_of_each_module_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text('MODULE_LICENSE("GPL");\nchar a[sizeof(int[size()])];\n')
    said = "".join(f"{tmp_path}/a.c:{line}:1: error: bad constant expression\n" for line in (1, 2))
    assert warnings(said, tmp_path) == {"a.c: error: bad constant expression": 1}


@pytest.mark.slow
@compiles
def test_each_patch_compiles_and_warns_of_nothing_new(kernel: Kernel) -> None:
    built: set[str] = set()
    base = kernel.source.base.name
    for part in mailing.parts(base):
        done: list[str] = []
        try:
            for need in mailing.first(base, part):
                for _name, mail in mailing.patches(base, need):
                    apply(kernel.top, "--whitespace=nowarn", "-", diff=mail)
                    done.append(mail)
            for number, (_name, mail) in enumerate(mailing.patches(base, part), 1):
                put(kernel, mail)
                done.append(mail)
                names, new = build(kernel, mail)
                assert not new, (part, number, new)
                built.update(names)
        finally:
            back(kernel, done)
    if kernel.config != "tinyconfig":
        assert {"mm/hugetlb.o", "mm/rmap.o", "mm/migrate.o", "mm/mprotect.o",
                "fs/hugetlbfs/inode.o", "lib/test_mmu_notifier.o",
                "mm/tests/hugetlb_pmd_share_kunit.o"} <= built
    else:
        assert {"mm/", "fs/hugetlbfs/", "lib/"} <= built


WRONG = """\

/**
 * warned_of - what W=1 and sparse complain of
 */
int warned_of(int a)
{
	int __user *b = (int *)0 + a;
	int c = 0;

	c = a;
	return b != NULL;
}
"""


def adding(kernel: Kernel, text: str) -> str:
    """A patch that adds these lines at the end of a file."""
    path = "mm/mmap.c" if kernel.config == "tinyconfig" else "mm/rmap.c"
    lines = (kernel.top / path).read_text(encoding="utf-8").splitlines()
    more = text.splitlines()
    return (f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
            f"@@ -{len(lines)} +{len(lines)},{len(more) + 1} @@\n {lines[-1]}\n"
            + "".join(f"+{line}\n" for line in more))


@pytest.mark.slow
@compiles
def test_what_is_new_would_be_seen(kernel: Kernel) -> None:
    mail = adding(kernel, WRONG)
    put(kernel, mail)
    try:
        new = " ".join(build(kernel, mail)[1])
    finally:
        back(kernel, [mail])
    # Gcc by W=1, kernel-doc, sparse.
    for word in ("set but not used", "not described in 'warned_of'", "different address spaces",
                 "Should it be static?"):
        assert word in new, new


@pytest.mark.slow
@compiles
def test_one_that_does_not_compile_would_be_seen(kernel: Kernel) -> None:
    mail = adding(kernel, "no_such_type x;\n")
    put(kernel, mail)
    try:
        with pytest.raises(pytest.fail.Exception, match="error: unknown type name .no_such_type"):
            build(kernel, mail)
    finally:
        back(kernel, [mail])


def code(path: Path) -> str:
    """The machine code of an object, and what it refers to."""
    done = subprocess.run(["objdump", "-dr", "--no-show-raw-insn", path], text=True, check=True,
                          capture_output=True)
    return done.stdout.partition("Disassembly of section")[2]


@pytest.mark.slow
@compiles
@pytest.mark.parametrize("base", testseries.names())
def test_tracepoints_add_no_code_where_there_are_none(base: str, trees: dict[str, Path]) -> None:
    """As their letter says of mm/rmap.c.  In mm/hugetlb.c a function is told the reason."""
    source, work = debian_tree(base), trees[base]
    if not (work / "tree").exists():
        released(source, work / "tree", wanted)
    one = Kernel(source, work / "tree", work / "shares", "allnoconfig")
    one.more = SHARES
    one.configure()
    config = (one.obj / ".config").read_text(encoding="utf-8")
    assert "\nCONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING=y\n" in config
    assert "CONFIG_TRACEPOINTS" not in config
    [(_name, mail)] = mailing.patches(base, "tracepoints")
    wrong = adding(one, "void more_code(void);\nvoid more_code(void)\n{\n}\n")
    one.make("mm/rmap.o")
    before = code(one.obj / "mm/rmap.o")
    assert "<try_to_migrate_one" in before
    for patch, same in ((mail, True), (wrong, False)):
        put(one, patch)
        try:
            one.make("mm/rmap.o")
            assert (code(one.obj / "mm/rmap.o") == before) is same
        finally:
            back(one, [patch])
