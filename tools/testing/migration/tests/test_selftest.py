# SPDX-License-Identifier: GPL-2.0
"""What the selftests are built with, and that nothing is kept which is not there.

The trees here are as much of a kernel's selftests as the build looks at.
"""

import io
import os
import re
import shutil
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import make
from trees import fill

from lab import arch, paths
from lab.base import Base
from lab.errors import LabError, NoSource
from lab.guest import selftest
from lab.kernel import source
from lab.kernel.source import Source
from lab.kernel.tree import Tree
from lab.progress import Progress

X86 = arch.load("x86_64")
# lib.mk's rule, which does not apply where a header that the Makefile names is missing.
MAKEFILE = """\
include ../lib.mk
LOCAL_HDRS += $(OUTPUT)/local_config.h
$(OUTPUT)/%: %.c $(LOCAL_HDRS)
	@echo OURS=$(OURS)
	$(CC) $(EXTRA_CFLAGS) $(filter-out $(LOCAL_HDRS),$^) -o $@
"""
TEST = "#include <stdio.h>\nint main(void)\n{\n\tputs(\"%s\");\n\treturn 0;\n}\n"


def tree_at(path: Path, version: str = "6.12.1", harness: str = "FIXTURE_TEARDOWN_PARENT") -> Path:
    mm = path / selftest.FOLDER
    mm.mkdir(parents=True)
    (path / "mm").mkdir()
    numbers = zip(("VERSION", "PATCHLEVEL", "SUBLEVEL"), version.split("."))
    (path / "Makefile").write_text("".join(f"{name} = {value}\n" for name, value in numbers))
    fill(path / selftest.SELFTESTS, {
        "mm/Makefile": MAKEFILE, "mm/vm_util.c": "", "lib.mk": "# here\n",
        "kselftest_harness.h": f"/* {harness} */\n", "run_kselftest.sh": "#!/bin/sh\n",
        "mm/settings": "timeout=180\n", "kselftest/runner.sh": f"# of {version}\n"})
    return path


def source_at(path: Path, version: str) -> Source:
    base = Base(name="6.12", package=None, suites=(), drop=(), add=(), cflags="", cmdline="")
    kept = Tree(path.parent)
    kept.take(path, None, Progress(io.StringIO()))
    return Source(base, version, {}, "k", path, kept.pristine())


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One test, and Debian's tree in debian/tree."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    ours = tmp_path / "one.c"
    ours.write_text(TEST % "one")
    monkeypatch.setattr(selftest, "sources", lambda: [ours])
    debian = tree_at(tmp_path / "debian/tree", "6.12.9")
    monkeypatch.setattr(source, "from_base",
                        lambda _base, _progress: source_at(debian, "6.12.9"))
    return tmp_path


def build(given: Source | None = None, harness: Path | None = None) -> tuple[selftest.Built, str]:
    said = io.StringIO()
    return selftest.build(X86, Progress(said), given, harness), said.getvalue()


def kept(place: Path) -> list[str]:
    return [path.name for path in (place / "cache/selftests").iterdir() if path.name != "lock"]


def test_a_header_that_is_missing_does_not_matter(place: Path) -> None:
    """As mm/local_config.h was on every new machine: make had nothing to be done."""
    built, said = build()
    assert subprocess.run([built.programs["one"]], stdout=subprocess.PIPE, check=True
                          ).stdout == b"one\n"
    assert "1 programs, with the harness of 6.12.9" in said
    assert (built.runner / "kselftest/runner.sh").read_text() == "# of 6.12.9\n"
    assert (built.runner / "mm/settings").exists() and os.access(
        built.runner / "run_kselftest.sh", os.R_OK)
    assert build()[1] == ""
    assert len(kept(place)) == 1


def test_nobody_waits_for_a_kernel_that_is_built_there(place: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """That may take a quarter of an hour, and what is built is a variant."""
    debian = source_at(place / "debian/tree", "6.12.9")
    monkeypatch.setattr(source, "from_base", lambda _base, _progress: debian)
    (debian.tree / selftest.SELFTESTS / "kselftest/runner.sh").write_text("# of a variant\n")
    with ThreadPoolExecutor() as pool:
        with paths.locked(place / "debian/lock"):
            built, said = pool.submit(build).result(timeout=60)
    assert "another run" not in said
    assert (built.runner / "kselftest/runner.sh").read_text() == "# of 6.12.9\n"


def test_links_are_what_they_lead_to(place: Path) -> None:
    """In a tree of the lab's own as in a user's."""
    tree = tree_at(place / "own/tree", "7.1.2")
    fill(tree, {"include/linux/a.h": "/* a */\n", "tools/include/linux/b.h": "/* b */\n"})
    (tree / "tools/include/linux/a.h").symlink_to("../../../include/linux/a.h")
    (tree / "tools/include/linux/c.h").symlink_to("b.h")
    (tree / "tools/include/linux/gone.h").symlink_to("/no/such/file.h")
    of_lab = build(source_at(tree, "7.1.2"))[0].programs["one"]
    assert build(None, tree)[0].programs["one"] == of_lab
    (tree / "include/linux/a.h").write_text("/* another */\n")
    assert build(source_at(tree, "7.1.2"))[0].programs["one"] != of_lab


def test_what_they_share_is_compiled_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for each: there are 27 of them."""
    uses = "const char *shared(void);\n" + TEST.replace('"%s"', "shared()")
    fill(place, {"one.c": uses, "two.c": uses,
                 "shared.c": "const char *shared(void)\n{\n\treturn \"shared\";\n}\n"})
    monkeypatch.setattr(selftest, "sources", lambda: sorted(place.glob("*.c")))
    programs = build()[0].programs
    assert set(programs) == {"one", "two"}
    for program in programs.values():
        assert subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout == b"shared\n"
    assert (place / "cache/logs/selftests.log").read_text().count("/shared.c ") == 1


@pytest.mark.parametrize("recipe", ["true", "touch $@", "cp /bin/true $@", "echo x > $@"])
def test_a_make_that_makes_nothing(place: Path, recipe: str) -> None:
    """An empty file, a text, and a program that is not static are no selftest."""
    (place / "debian/tree" / selftest.FOLDER / "Makefile").write_text(
        f"$(OUTPUT)/%: %.c\n\t{recipe}\n")
    for _ in range(2):
        with pytest.raises(LabError, match="made no static program .*/one"):
            build()
        assert kept(place) == []


@pytest.mark.parametrize("damage", ["unlink", "empty"])
def test_what_was_lost_from_the_cache_is_made_anew(damage: str) -> None:
    program = build()[0].programs["one"]
    size = program.stat().st_size
    program.unlink()
    if damage == "empty":
        program.touch()
    assert build()[0].programs["one"].stat().st_size == size


def test_the_compilers_error(place: Path) -> None:
    (place / "one.c").write_text("int main(void)\n{\n\tbad();\n}\n")
    with pytest.raises(LabError, match="could not be built: .*undefined reference to `bad'") as had:
        build()
    assert had.value.log and "bad" in Path(had.value.log).read_text()
    assert kept(place) == []


def test_a_libnuma_that_is_newer_than_the_c_library(tmp_path: Path) -> None:
    """What it calls by the names of C23 is there, in an older library or not."""
    program = tmp_path / "program"
    (tmp_path / "program.c").write_text(
        "extern unsigned long __isoc23_strtoul(const char *s, char **end, int base);\n"
        "int main(int argc, char **argv)\n"
        "{ return argc != 2 || __isoc23_strtoul(argv[1], 0, 0) != 66; }\n")
    subprocess.run(["gcc", "-static", "-o", program, f"{program}.c", selftest._NAMES], check=True)
    assert [subprocess.run([program, number], check=False).returncode
            for number in ("0x42", "67")] == [0, 1]


def test_what_a_user_built_there_is_left_out(place: Path) -> None:
    tree = place / "debian/tree"
    before = build()[0].programs["one"]
    for name in ("one", "one.o", "local_config.h", "local_config.mk"):
        (tree / selftest.FOLDER / name).write_text("broken")
    assert build()[0].programs["one"] == before


# ---- whose harness ---------------------------------------------------------------------------


def test_that_of_the_tree_under_test(place: Path) -> None:
    tree = tree_at(place / "own/tree", "7.1.2")
    before = sorted((path, path.stat().st_mtime_ns) for path in tree.rglob("*"))
    built, _said = build(source_at(tree, "7.1.2"))
    assert built.harness == "7.1.2"
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tree.rglob("*"))


def test_not_that_of_an_old_tree(place: Path) -> None:
    tree = tree_at(place / "own/tree", "6.1.2", harness="FIXTURE_VARIANT")
    built, said = build(source_at(tree, "6.1.2"))
    assert built.harness == "6.12.9" and "cannot be used" not in said


def test_not_one_that_cannot_build_them(place: Path) -> None:
    tree = tree_at(place / "own/tree", "6.11.0")
    (tree / selftest.FOLDER / "Makefile").write_text("$(OUTPUT)/%: %.c\n\t$(CC) no/such.c\n")
    built, said = build(source_at(tree, "6.11.0"))
    assert built.harness == "6.12.9"
    assert "the harness of 6.11.0 cannot be used (" in said and "no/such.c" in said


def test_that_which_is_named(place: Path) -> None:
    named, given = tree_at(place / "named", "6.18.3"), tree_at(place / "own/tree", "7.1.2")
    assert build(source_at(given, "7.1.2"), named)[0].harness == "6.18.3"


@pytest.mark.parametrize("version, harness, says", [
    ("5.4.0", "TEST_F", "HARNESS=.*/named cannot be used: its kselftest_harness.h is from before 6.10"),
    ("", "", "HARNESS= names a kernel tree"),
])
def test_one_that_is_named_and_will_not_do(place: Path, version: str, harness: str, says: str
                                           ) -> None:
    if version:
        tree_at(place / "named", version, harness)
    with pytest.raises(LabError, match=says):
        build(None, place / "named")
    if version:
        shutil.rmtree(place / "named" / selftest.FOLDER)
        with pytest.raises(LabError, match="cannot be used: it has no .*mm/Makefile"):
            build(None, place / "named")


def test_where_there_is_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> Source:
        raise NoSource("apt-cache is not here, so this is no Debian")

    monkeypatch.setattr(source, "from_base", nothing)
    with pytest.raises(NoSource, match="name such a tree with HARNESS=/path/to/linux .*no Debian"):
        build()
    assert build(source_at(tree_at(place / "own/tree", "7.1.2"), "7.1.2"))[0].harness == "7.1.2"
    assert build(None, tree_at(place / "named"))[0].harness == "6.12.1"


# ---- a machine that is not Debian -------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with all programs of this machine but for apt's and dpkg's, to be a PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/usr/sbin", "/usr/bin"):
        for path in Path(folder).iterdir():
            if not path.name.startswith(("apt", "dpkg")):
                with_name = programs / path.name
                with_name.unlink(missing_ok=True)
                with_name.symlink_to(path)
    return programs


def make_there(elsewhere: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    cache = elsewhere.parent / ("its cache" if "audit" in words else "its-cache")
    return make(*words, PATH=str(elsewhere), LAB_CACHE=str(cache))


def test_elsewhere_with_a_tree(tree612: Path, elsewhere: Path) -> None:
    """The selftests, and the audit, of a tree that is at hand."""
    dest = elsewhere.parent / "dest"
    done = make_there(elsewhere, "selftests", f"HARNESS={tree612}", f"DEST={dest}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (dest / "hugetlb_pmd_migrate").stat().st_size > 0
    done = make_there(elsewhere, "audit", f"KERNEL={tree612}")
    assert "pmd-share-migrate" in done.stdout and "error" not in done.stderr, done.stderr


def test_elsewhere_without_one(elsewhere: Path) -> None:
    done = make_there(elsewhere, "selftests", f"DEST={elsewhere.parent / 'dest'}")
    assert done.returncode != 0
    assert "name such a tree with HARNESS=/path/to/linux" in done.stderr
    assert "so this is no Debian" in done.stderr and "Traceback" not in done.stderr


def test_elsewhere_a_package_is_named(elsewhere: Path) -> None:
    (elsewhere / "spatch").unlink()
    done = make_there(elsewhere, "audit", "KERNEL=/usr/src")
    assert "Debian's coccinelle is missing" in done.stderr


# ---- how long they take --------------------------------------------------------------------

# Seconds: what kselftest gives a program whose collection has no settings.
LONG = 45

# Those whose constants do not say it: they end after so many rounds, or all that they run for long
# harms a kernel that has the defect.  How long they took is in host.toml.
SAY_NO_TIME = {
    "hugetlb_cow_fault", "hugetlb_fault_poison", "hugetlb_flush_pending",
    "hugetlb_mremap_astray", "hugetlb_mremap_large", "hugetlb_mremap_private",
    "hugetlb_pmd_busy", "hugetlb_pmd_churn", "hugetlb_pmd_contig", "hugetlb_pmd_flush",
    "hugetlb_pmd_join", "hugetlb_pmd_migrate", "hugetlb_pmd_move_all", "hugetlb_pmd_mremap",
    "hugetlb_pmd_nolock", "hugetlb_pmd_notifier", "hugetlb_pmd_poison", "hugetlb_pmd_uffd",
    "hugetlb_pmd_unmapped", "hugetlb_pmd_unshare", "hugetlb_poison_read",
    "hugetlb_punch_fault", "hugetlb_punch_migrate", "hugetlb_punch_poison",
    "hugetlb_punch_private", "hugetlb_subpool", "hugetlb_truncate_fault", "migrate_kvm",
    "migrate_lost_write", "migrate_pinned_write", "thp_cow_isolation"}


def longest(text: str) -> int:
    """How long a selftest can take by itself, in seconds, as far as its constants say; 0 if they do
    not.  That is on a machine where it meets what it wants too seldom: two CPUs are such a one.
    """
    # What harms a kernel that has the defect is run by who asks for it.
    if "churn_lacks(" in text:
        return 0
    given = {name: int(value) for name, value in re.findall(
        r"(?m)^#define (SECONDS|MORE_SECONDS|MAX_SECONDS|MORE|ENOUGH_MS)\s+(\d+)", text)}
    one = given.get("SECONDS", 0) * given.get("MORE", 1) + given.get("MORE_SECONDS", 0)
    # Of others it is the most that may be asked for.
    if not re.search(r'env_count\("\w+_SECONDS"', text):
        one = max(one, given.get("MAX_SECONDS", 0))
    if not one:
        one = given.get("ENOUGH_MS", 0) // 1000
    variants = re.findall(r"(?m)^FIXTURE_VARIANT_ADD\((\w+),", text)
    tests = re.findall(r"(?m)^TEST_F(?:_TIMEOUT)?\((\w+),", text)
    return one * sum(max(variants.count(fixture), 1) for fixture in tests)


@pytest.mark.parametrize("name", sorted({*selftest.names(), *SAY_NO_TIME}))
def test_none_takes_long_unless_it_is_told_to(name: str) -> None:
    path = paths.REPO / selftest.FOLDER / f"{name}.c"
    seconds = longest(path.read_text(encoding="utf-8"))
    assert seconds <= LONG
    # Else a constant that has another name takes a program out of this.
    assert (seconds == 0) == (name in SAY_NO_TIME)


@pytest.mark.parametrize("name", selftest.names())
def test_none_was_seen_to_take_long(name: str) -> None:
    """In the guest of `make kselftest`, whose times are what hosttest tells before it runs them."""
    told = tomllib.loads((paths.HOME / "host.toml").read_text(encoding="utf-8"))
    assert told[name]["seconds"] <= LONG


def test_what_constants_say_of_the_time() -> None:
    text = "#define SECONDS\t\t10\n#define MORE_SECONDS\t30\n" \
        "FIXTURE_VARIANT_ADD(a, x) {\nFIXTURE_VARIANT_ADD(a, y) {\nTEST_F_TIMEOUT(a, t, 120)\n"
    assert longest(text) == 80
    assert longest(text + "TEST_F(b, t)\n") == 120
    assert longest(text.replace("MORE_SECONDS", "MAX_SECONDS")) == 60
    assert longest(text.replace("MORE_SECONDS", "MAX_SECONDS") + 'env_count("A_SECONDS", 1)') == 20
    assert longest(text.replace("MORE_SECONDS\t30", "MORE\t4")) == 80
    assert longest("#define ENOUGH_MS 60000\nTEST_F(a, t)\n") == 60
    assert longest("TEST_F(a, t)\n") == longest(text + "churn_lacks(x)") == 0
