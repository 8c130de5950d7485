# SPDX-License-Identifier: GPL-2.0
"""make kselftest: the kernel's runner and its output, and that nothing is left behind.

Nothing here runs a selftest of the repository as root: the machine may be at work.
"""

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import runs
from conftest import outside_make, refused
from programs import compiled

from lab import arch, base, cli, deps, trial
from lab.errors import LabError
from lab.guest import initramfs, qemu, selftest
from lab.kernel import source as sources, testseries, variant
from lab.kernel.source import Source
from lab.paths import HOME, REPO
from lab.progress import Progress
from lab.verbs import guestrun, kselftest

NOBODY = 65534

# A test that changes something, has a guardian to put it back, and hangs; written with the harness
# and the helpers of the real ones.  Its child is in a group of its own, and has let go of all.
HANGS = r"""
#include "kselftest_harness.h"
#include <fcntl.h>
#include "migrate_guard.h"
#include "migrate_util.h"

FIXTURE(hangs) { };
FIXTURE_SETUP(hangs) { }
FIXTURE_TEARDOWN(hangs) { }

TEST_F_TIMEOUT(hangs, hangs, 600)
{
	const char *path = getenv("CHANGED");

	ASSERT_EQ(0, guard_start());
	ASSERT_EQ(0, guard_undo(path, "before"));
	ASSERT_EQ(0, file_write(path, "during"));
	if (!fork()) {
		setpgid(0, 0);
		if (!fork())
			for (;;)
				pause();
		_exit(0);
	}
	for (;;)
		pause();
}

TEST_HARNESS_MAIN
"""

# Two tests that change the same thing, the setup of which ends before the test begins.  Somebody
# whom the harness does not wait for keeps the guardian from its work for a while.
ENDS_EARLY = r"""
#include "kselftest_harness.h"
#include "migrate_guard.h"
#include "migrate_util.h"

FIXTURE(early) { };
FIXTURE_VARIANT(early) { bool fails; };
FIXTURE_VARIANT_ADD(early, first) { .fails = FAILS };
FIXTURE_VARIANT_ADD(early, second) { .fails = FAILS };

FIXTURE_SETUP(early)
{
	const char *path = getenv("CHANGED");
	char before[32];

	ASSERT_EQ(0, guard_start());
	ASSERT_EQ(0, file_read(path, before, sizeof(before)));
	ASSERT_EQ(0, guard_undo(path, before));
	TH_LOG("there was %s", before);
	ASSERT_EQ(0, file_write(path, "during"));
	if (!fork()) {
		setpgid(0, 0);
		close(1);
		close(2);
		usleep(LEAVES ? 60000000 : 500000);
		_exit(0);
	}
	if (LEAVES)
		guard_leave();
	ASSERT_FALSE(variant->fails);
	SKIP(return, "nothing to be done");
}
FIXTURE_TEARDOWN(early) { }
TEST_F(early, ends) { }

TEST_HARNESS_MAIN
"""

ASKS = r"""
#include "kselftest_harness.h"
#include "migrate_util.h"

TEST(asks)
{
	TH_LOG("got %ld", env_count("NR_CALLS", 5));
}

TEST_HARNESS_MAIN
"""

LACKS = r"""
#include "kselftest_harness.h"
#include "migrate_guard.h"

TEST(lacks)
{
	const char *why = guard_lacks();

	if (why)
		SKIP(return, "%s", why);
	guard_stop();
}

TEST_HARNESS_MAIN
"""

# The kernel's files are in a folder of the test's.
FILLS = r"""
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "migrate_guard.h"
#include "migrate_hugetlb.h"

int __real_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...)
{
	char other[512];

	snprintf(other, sizeof(other), "%s%s", strncmp(path, "/sys/dev", 8) &&
		 strncmp(path, "/sys/kernel/mm/huge", 19) ? "" : getenv("FILES"), path);
	return __real_open(other, flags, 0600);
}

int main(void)
{
	if (guard_start())
		return 1;
	printf("%ld", pool_fill(1, 10));
	fflush(stdout);
	system("cat $FILES/sys/devices/system/node/node1/hugepages/*/nr_hugepages >&2");
	guard_stop();
	return 0;
}
"""

# The test itself, without its processes: what they have counted is given.
BUSY = r"""
#define main harness_main
#include "hugetlb_pmd_busy.c"
#undef main

int main(int argc, char **argv)
{
	static struct __test_results results;
	static struct control control;
	struct __test_metadata m = { .results = &results };
	FIXTURE_DATA(hugetlb_pmd_busy) self = { .control = &control, .fd = -1 };
	FIXTURE_VARIANT(hugetlb_pmd_busy) variant = { .writers = 2 };

	shared = &control;
	control.tries = control.moved = strtol(argv[1], NULL, 0);
	control.writes = strtol(argv[2], NULL, 0);
	control.lost = strtol(argv[3], NULL, 0);
	hugetlb_pmd_busy_moves(&m, &self, &variant);
	return m.exit_code;
}
"""

# A loop of programs, with as much room for their arguments as it is told.
EXECS = r"""
#define main harness_main
#include "exec_temp_stack.c"
#undef main

int main(int argc, char **argv)
{
	struct rlimit limit = { strtoul(argv[1], NULL, 0) << 10 };
	struct shared *sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *strings[NR_ARGS + NR_ENV];
	pid_t parent = getpid();
	int i;

	for (i = 0; i < NR_ARGS + NR_ENV; i++) {
		strings[i] = malloc(STRING_BYTES);
		memset(strings[i], letter(i), STRING_BYTES - 1);
		strings[i][STRING_BYTES - 1] = 0;
	}
	limit.rlim_max = limit.rlim_cur;
	setrlimit(RLIMIT_STACK, &limit);
	if (!fork())
		exec_loop(sh, &sh->loops[0], strings, parent);
	usleep(1000 * 1000);
	sh->stop = 1;
	wait(NULL);
	printf("%d %d %s\n", sh->loops[0].execs > 0, sh->loops[0].wrong,
	       strerror(sh->loops[0].error));
	return 0;
}
"""


def read(text: str) -> tuple[kselftest.Stream, list[str]]:
    stream = kselftest.Stream()
    return stream, [stream.line(line) for line in text.splitlines()]


# ---- the output ----------------------------------------------------------------------------


def test_what_passes_is_passed_on() -> None:
    text = ("TAP version 13\n1..1\n# timeout set to 180\n# selftests: mm: a\n# TAP version 13\n"
            "# 1..2\n# ok 1 x.y\n# ok 2 x.z # SKIP needs more\n# # Totals: pass:1\n"
            "ok 1 selftests: mm: a")
    stream, lines = read(text)
    assert lines == ["KTAP version 1", *text.splitlines()[1:]]
    assert stream.passed == ["a"] and stream.planned == stream.count() == 1


def test_a_program_that_skipped_all_is_skipped() -> None:
    stream, lines = read("1..2\n# ok 1 x # SKIP needs root\n# ok 2 y # SKIP needs two nodes\n"
                         "ok 1 selftests: mm: a\n# ok 1 x\nok 2 selftests: mm: b")
    assert lines[3] == "ok 1 selftests: mm: a # SKIP needs root"
    assert lines[5] == "ok 2 selftests: mm: b"
    assert stream.skipped == {"a": "needs root"} and stream.passed == ["b"]
    assert stream.summary() == "2 of 2 programs: 1 passed, 0 failed, 1 skipped"


def test_a_program_that_ran_nothing_is_skipped() -> None:
    _stream, lines = read("# 1..0\nok 1 selftests: mm: a")
    assert lines[1] == "ok 1 selftests: mm: a # SKIP no test ran"


@pytest.mark.parametrize("end", ["", " # exit=1", " # TIMEOUT 180 seconds"])
def test_a_failure_stays_one(end: str) -> None:
    stream, lines = read(f"# not ok 1 x\nnot ok 1 selftests: mm: a{end}\n"
                         f"# ok 1 x # SKIP y\nnot ok 2 selftests: mm: b{end}")
    assert lines[1] == f"not ok 1 selftests: mm: a{end}"
    assert stream.failed == ["a", "b"] and not stream.skipped


def test_a_program_that_hides_a_failure_has_failed() -> None:
    stream, lines = read("1..1\n# 1..2\n# ok 1 x\n# not ok 2 y\nok 1 selftests: mm: a")
    assert stream.failed == ["a"] and lines[-1] == "ok 1 selftests: mm: a"


VMTESTS = """TAP version 13
1..1
# timeout set to 900
# selftests: mm: ksft_hugetlb.sh
# TAP version 13
# # -----------
# # running ./a
# # TAP version 13
# # ok 1 x.y # SKIP needs lent memory
# # ok 2 x.z # SKIP needs more
# # [SKIP]
# ok 1 a # SKIP
# # ok 1 x.y
# # [PASS]
# ok 2 b
# not ok 3 c # exit=1
# # 1..2
# # ok 1 x.y # SKIP inconclusive
# # ok 2 x.z # SKIP inconclusive, too
# # [PASS]
# ok 4 d
# # SUMMARY: PASS=2 SKIP=1 FAIL=1
# 1..4
"""


def test_what_run_vmtests_ran_is_told_apart() -> None:
    stream, lines = read(VMTESTS + "not ok 1 selftests: mm: ksft_hugetlb.sh # exit=1")
    assert lines[1:] == (VMTESTS + "not ok 1 selftests: mm: ksft_hugetlb.sh # exit=1"
                         ).splitlines()[1:]
    assert stream.passed == ["b"] and stream.failed == ["c"]
    assert stream.skipped == {"a": "needs lent memory", "d": "inconclusive"}
    stream.check(0)
    # The runner's own lines follow, of which the plan is no news.
    stream.line("# Totals: pass:0 fail:1 xfail:0 xpass:0 skip:0 error:0")
    stream.check(0)


def test_run_vmtests_is_not_skipped_with_one_of_its_programs() -> None:
    stream, _lines = read(VMTESTS.replace("# not ok 3 c # exit=1", "# ok 3 c")
                          + "ok 1 selftests: mm: ksft_hugetlb.sh # SKIP")
    assert stream.summary() == "4 of 4 programs: 2 passed, 0 failed, 2 skipped"


def test_run_vmtests_of_two_categories() -> None:
    first = VMTESTS.replace("hugetlb", "migration").replace("\n1..1\n", "\n1..2\n")
    text = first + "not ok 1 selftests: mm: ksft_migration.sh # exit=1\n" \
        "# selftests: mm: ksft_hugetlb.sh\n# ok 1 e # SKIP\n# ok 2 f\n# 1..2\n"
    stream, _lines = read(text + "ok 2 selftests: mm: ksft_hugetlb.sh # SKIP")
    assert stream.summary() == "6 of 6 programs: 2 passed, 1 failed, 3 skipped"
    stream.check(0)
    # One that ends in the middle.
    stream, _lines = read(text)
    assert stream.summary() == "4 of 5 programs: 1 passed, 1 failed, 2 skipped"
    with pytest.raises(LabError, match="ended early"):
        stream.check(1)


def test_what_lies_beside_run_vmtests() -> None:
    script = 'CATEGORY="hugetlb" run_test ./a-b\n\tCATEGORY="migration" run_test ./c.sh -x\n' \
        'CATEGORY="thp" run_test ./d\nCATEGORY="hugetlb" run_test ./$test\n' \
        'CATEGORY="migration" run_test ./migration\n'
    found = kselftest._beside_script(script, ("migration",))
    assert set(found) == {"ksft_migration.sh", "ksft_hugetlb.sh", "a-b", "c.sh"}
    assert found["ksft_hugetlb.sh"].endswith("./run_vmtests.sh -d -t hugetlb\n")


@pytest.mark.parametrize("ran", [True, False])
def test_run_vmtests_may_fail_as_a_whole(ran: bool) -> None:
    stream, _lines = read("1..1\n" + "# ok 1 a\n" * ran
                          + "not ok 1 selftests: mm: ksft_hugetlb.sh # TIMEOUT 900 seconds")
    assert stream.failed == ["ksft_hugetlb.sh"] and stream.passed == ["a"] * ran
    stream.check(0)


def test_arguments_go_by_the_runners_variables() -> None:
    assert kselftest.arguments(("hugetlb_pmd_flush", "a-b"), ("-t", "x")) == {
        "KSELFTEST_HUGETLB_PMD_FLUSH_ARGS": "-t x", "KSELFTEST_A_B_ARGS": "-t x"}
    assert kselftest.arguments(("a",), ()) == {}


def test_lines_of_a_guest_are_told_as_they_come_whole() -> None:
    told: list[str] = []
    reader = guestrun._Reader(told.append)
    text = "TAP version 13\n1..1\n# ok 1 x\nok 1 selftests: mm: a\nlab: done\n"
    for end in range(len(text) + 1):
        reader.more(text[:end])
    assert told == ["KTAP version 1", "1..1", "# ok 1 x", "ok 1 selftests: mm: a"]
    reader.stream.check(0)
    assert reader.stream.passed == ["a"]


def test_a_guest_that_falls_silent_is_an_error() -> None:
    reader = guestrun._Reader(lambda _line: None)
    reader.more("TAP version 13\n1..2\n# ok 1 x\nok 1 selftests: mm: a\nok 2 selft")
    with pytest.raises(LabError, match="results of 1 of 2 programs"):
        reader.stream.check(0)


# ---- the guest's memory --------------------------------------------------------------------


def nodes_of(how: str, folder: Path, debug: bool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """MiB of the nodes of the guest that a verb boots."""
    monkeypatch.setattr(deps, "ensure", lambda *_args: None)
    asked: list[qemu.Guest] = []

    def show(guest: qemu.Guest, *_rest: object) -> list[str]:
        asked.append(guest)
        raise LabError("seen")

    made = runs.trial(folder, "fixed", debug=debug)
    monkeypatch.setattr(trial, "prepare", lambda *_args, **_words: [made])
    monkeypatch.setattr(kselftest, "install", lambda *_args: folder)
    monkeypatch.setattr(initramfs, "initramfs", lambda *_args, **_words: folder)
    monkeypatch.setattr(qemu, "choose_accel", lambda *_args: "tcg")
    for name in ("boot", "command"):
        monkeypatch.setattr(qemu, name, show)
    monkeypatch.chdir(folder)           # a shell goes elsewhere
    words = [f"DEBUG={int(debug)}", "DEFECT=pmd-share-migrate", "BASE=6.12",
             *([f"OUT={folder}/out"] if how == "kselftest" else [])]
    if how == "prove":
        with pytest.raises(LabError, match="seen"):
            made.boot(folder / "fixed", 1, Progress())
    else:
        assert cli.main([how, *words]) != 0
    [guest] = asked
    return list(guest.machine.nodes)


@pytest.mark.parametrize("how", ["prove", "kselftest", "shell"])
def test_a_debug_kernel_has_the_memory_that_it_takes(
        how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, debug = (tmp_path / name for name in ("usual", "debug"))
    for folder in (usual, debug):
        folder.mkdir()
    before = nodes_of(how, usual, False, monkeypatch)
    assert nodes_of(how, debug, True, monkeypatch) == [
        node + trial.DEBUG_MIB for node in before]


@pytest.mark.parametrize("name", ["fixed", "series"])
def test_the_guest_of_the_series_has_a_dimm_to_eject(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a proof stays as it is."""
    asked: list[qemu.Guest] = []

    def boot(guest: qemu.Guest, *_rest: object) -> qemu.Outcome:
        asked.append(guest)
        raise LabError("seen")

    made = runs.trial(tmp_path, "fixed")
    monkeypatch.setattr(guestrun, "_kernel",
                        lambda *_args: (made.source, made.variant, made.kernel))
    monkeypatch.setattr(variant, "text_of", lambda *_args: "")
    monkeypatch.setattr(kselftest, "install", lambda *_args: tmp_path)
    monkeypatch.setattr(initramfs, "initramfs", lambda *_args, **_words: tmp_path)
    monkeypatch.setattr(qemu, "choose_accel", lambda *_args: "tcg")
    monkeypatch.setattr(qemu, "boot", boot)
    for row in (arch.load("x86_64"), arch.load("arm64")):
        with pytest.raises(LabError, match="seen"):
            guestrun.run(made.wanted, name, (), row, Progress(), lambda _line: None)
    has, other = ("MIGRATE_EJECT_QMP=/dev/ttyS2" in guest.append for guest in asked)
    assert (has, other) == (name == "series", False)
    assert (asked[0].machine.eject > 0) is has


# ---- runs ----------------------------------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that anybody can enter."""
    folder = Path(tempfile.mkdtemp(prefix="lab-kselftest-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def installed(tree612: Path) -> Path:
    assert tree612.is_dir()
    return kselftest.install(arch.load(), Progress(sys.stderr))


@pytest.fixture
def runner(installed: Path, public: Path) -> Path:
    """The installed folder, with the kernel's runner and our programs."""
    copy = shutil.copytree(installed, public / "installed")
    copy.chmod(0o755)
    return Path(copy)


def driver(call: str) -> list[str]:
    """Python that does `call` with lab.kselftest and prints what comes of it."""
    return [sys.executable, "-B", "-c",
            f"import sys; sys.path.insert(0, {str(HOME)!r})\n"
            "from pathlib import Path\nfrom lab.verbs import kselftest\n"
            "kselftest.die_with_parent()\n" + call]


def as_nobody() -> list[str]:
    if os.geteuid():
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def test_the_folder_is_laid_out_as_an_installed_one(runner: Path) -> None:
    names = sorted(str(path.relative_to(runner)) for path in runner.rglob("*") if path.is_file())
    assert {"run_kselftest.sh", "kselftest/runner.sh", "kselftest/prefix.pl", "mm/settings",
            "kselftest-list.txt"} < set(names)
    listed = (runner / "kselftest-list.txt").read_text().split()
    assert listed == [f"mm:{name}" for name in selftest.names()]
    for name in selftest.names():
        assert os.access(runner / "mm" / name, os.X_OK)


@pytest.mark.skipif(not os.access(REPO, os.X_OK) or
                    any(not path.stat().st_mode & 1 for path in [REPO, *REPO.parents]),
                    reason="an ordinary user cannot read this repository")
def test_an_ordinary_user_is_told_what_is_missing(runner: Path) -> None:
    """And the output is one well-formed stream."""
    done = subprocess.run(
        [*as_nobody(), *driver(
            f"words = kselftest.command(Path({str(runner)!r}), ())\n"
            "stream = kselftest.run(words, {}, print)\n"
            "print(stream.summary(), file=sys.stderr)\n")],
        text=True, capture_output=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    count = len(selftest.names())
    assert lines[:2] == ["KTAP version 1", f"1..{count}"]
    results = [line for line in lines[2:] if not line.startswith("#")]
    assert len(results) == count
    for number, (line, name) in enumerate(zip(results, selftest.names()), 1):
        assert re.fullmatch(rf"ok {number} selftests: mm: {name} # SKIP needs root.*", line)
    assert done.stderr == f"{count} of {count} programs: 0 passed, 0 failed, {count} skipped\n"


def test_only_what_is_asked_for(runner: Path) -> None:
    (runner / "mm" / "hugetlb_pmd_flush").write_text("#!/bin/sh\necho \"# got $*\"\necho ok 1 x\n")
    done = subprocess.run(driver(
        f"words = kselftest.command(Path({str(runner)!r}), ('hugetlb_pmd_flush',))\n"
        "more = kselftest.arguments(('hugetlb_pmd_flush',), ('-t', 'munmap_first'))\n"
        "kselftest.run(words, more, print)\n"), text=True, capture_output=True, check=True)
    assert "# # got -t munmap_first\n" in done.stdout
    assert done.stdout.endswith("\nok 1 selftests: mm: hugetlb_pmd_flush\n")
    assert "1..1\n" in done.stdout


def test_a_runner_that_gives_up_is_an_error(runner: Path) -> None:
    (runner / "kselftest-list.txt").write_text("")
    done = subprocess.run(driver(
        f"kselftest.run(kselftest.command(Path({str(runner)!r}), ()), {{}}, print)\n"),
        text=True, capture_output=True, check=False)
    assert "LabError: run_kselftest.sh ended early, with exit status 1" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for chroot")
def test_busybox_is_enough_for_it(installed: Path, public: Path) -> None:
    """As in the guest, whose file system has nothing else; as nobody, so that all is skipped."""
    initrd = gzip.decompress(initramfs.initramfs(
        {}, arch.load(), Progress(sys.stderr), installed).read_bytes())
    root = public / "root"
    root.mkdir()
    subprocess.run(["cpio", "-id", "--quiet"], input=initrd, cwd=root, check=True)
    # In a mount namespace of its own, so that nothing is left mounted.
    script = ("mount -t proc none proc && mount -t tmpfs none dev && mknod -m 666 dev/null c 1 3 "
              "&& ln -s /proc/self/fd/1 dev/stdout && chroot . /bin/busybox --install -s /bin "
              f"&& exec chroot --userspec={NOBODY}:{NOBODY} . /bin/busybox env -i PATH=/bin "
              "/bin/sh -c '/kselftest/run_kselftest.sh -c mm 2>&1 | cat'")
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script],
                          cwd=root, text=True, capture_output=True, check=False,
                          env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})
    stream, _lines = read(done.stdout)
    assert stream.planned == stream.count() == len(selftest.names()), done.stderr
    assert set(stream.skipped) == set(selftest.names())


@pytest.mark.skipif(any(not path.stat().st_mode & 1 for path in [REPO, *REPO.parents]),
                    reason="an ordinary user cannot read this repository")
def test_run_vmtests_of_the_series(tree612: Path, public: Path) -> None:
    """With the kernel's own runner; as nobody, whom it tells that it wants root."""
    home = sources.from_base(base.load("6.12"), Progress(sys.stderr))
    texts = {name: variant.text_of(home, testseries.applied(home), str(selftest.FOLDER / name))
             for name in kselftest.SCRIPT_FILES}
    assert home.tree == tree612 and "hugetlb_pmd_migrate" in texts[kselftest.SCRIPT]
    assert texts["settings"] == "timeout=1500\n"
    copy = shutil.copytree(kselftest.install(arch.load(), Progress(sys.stderr), texts),
                           public / "installed")
    listed = (copy / "kselftest-list.txt").read_text()
    assert listed == "mm:ksft_migration.sh\nmm:ksft_hugetlb.sh\n"
    assert all(os.access(copy / "mm" / name, os.X_OK) for name in (*selftest.names(), "migration"))
    done = subprocess.run(
        [*as_nobody(), *driver(
            f"words = kselftest.command(Path({str(copy)!r}), kselftest.script_programs())\n"
            "kselftest.run(words, {}, print)\n")],
        text=True, capture_output=True, check=False, cwd="/")
    stream, _lines = read(done.stdout)
    assert "# Please run this test as root\n" in done.stdout, done.stdout + done.stderr
    assert stream.skipped == dict.fromkeys(kselftest.script_programs(), "no test ran")
    # The kernel's own tests of hugetlb are not built: each says so, and is skipped.
    for name in ("hugetlb-madvise", "thuge-gen", "hugetlb-read-hwpoison"):
        said = subprocess.run([copy / "mm" / name], capture_output=True, text=True, check=False)
        assert said.returncode == 4 and said.stdout.startswith(f"{name}: not built here")


# ---- what is left behind -------------------------------------------------------------------


@pytest.mark.parametrize("how, programs", [
    ("-DFAILS=0 -DLEAVES=0", 1), ("-DFAILS=1 -DLEAVES=0", 1), ("-DFAILS=0 -DLEAVES=1", 1),
    ("-DFAILS=0 -DLEAVES=0", 2)])
def test_the_next_test_finds_what_was_there(tree612: Path, public: Path, how: str,
                                            programs: int) -> None:
    """Though the harness ends a test whose setup ends early, and does not wait for its guardian."""
    changed = public / "changed"
    changed.write_text("before")
    program = compiled(tree612, ENDS_EARLY, public / "early", *how.split())
    running = [subprocess.Popen([program], env={**os.environ, "CHANGED": str(changed)}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
               for _ in range(programs)]
    for one in running:
        said = one.communicate(timeout=60)[0]
        assert said.count("there was before") == 2, said
        assert ("not ok 1" in said) == ("FAILS=1" in how)
    # All is as it was when the last program ends, and not some time later.
    assert changed.read_text() == "before"
    for pid in alive(f"CHANGED={changed}"):
        os.kill(pid, signal.SIGKILL)


def test_a_test_that_would_do_nothing_is_refused(tree612: Path, public: Path) -> None:
    program = compiled(tree612, ASKS, public / "asks")
    for value, got in (("", "got 5"), ("7", "got 7"), ("0x10", "got 16"),
                       ("0", "NR_CALLS=0: a number from 1 to 1000000 is wanted"),
                       ("-3", "NR_CALLS=-3: a number from 1"), ("1000001", "a number from 1"),
                       ("3x", "NR_CALLS=3x: a number is wanted"), ("x", "NR_CALLS=x: a number"),
                       ("99999999999999999999", "a number is wanted")):
        done = subprocess.run([program], env={**os.environ, "NR_CALLS": value}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert f"{got}" in done.stdout
        assert (done.returncode == 0) == ("got" in got) == ("not ok" not in done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have less than that")
@pytest.mark.parametrize("words, why", [
    (["setpriv", "--bounding-set=-sys_admin"], "needs root with CAP_SYS_ADMIN"),
    (["setpriv", "--bounding-set=-sys_nice"], "needs root with CAP_SYS_NICE"),
    (["unshare", "--pid", "--fork"], "settings would be lost with the PID namespace"),
])
def test_what_is_less_than_root_is_told_by_name(tree612: Path, public: Path, words: list[str],
                                                why: str) -> None:
    program = compiled(tree612, LACKS, public / "lacks")
    done = subprocess.run([*words, program], text=True, stdout=subprocess.PIPE, check=True)
    assert f"ok 1 global.lacks # SKIP {why}" in done.stdout


@pytest.mark.parametrize("free, reserved, asked, has", [
    (12, 0, 20, 12), (12, 2, 20, 10), (12, 7, 25, 5), (3, 0, 27, 3), (3, 8, 35, 0)])
def test_pages_that_others_reserved_are_not_there(tree612: Path, public: Path, free: int,
                                                  reserved: int, asked: int, has: int) -> None:
    """Of 20 in the pool; a kernel that obeys would have as many more free as it was asked for."""
    node = public / "sys/devices/system/node/node1/hugepages/hugepages-2048kB"
    every = public / "sys/kernel/mm/hugepages/hugepages-2048kB"
    for folder, numbers in ((node, {"nr": 20, "free": free, "surplus": 0}),
                            (every, {"resv": reserved})):
        folder.mkdir(parents=True)
        for name, number in numbers.items():
            (folder / f"{name}_hugepages").write_text(f"{number}\n")
    program = compiled(tree612, FILLS, public / "fills", "-Wl,--wrap=open",
                       "-Wno-unused-result")
    done = subprocess.run([program], env={**os.environ, "FILES": str(public)}, text=True,
                          capture_output=True, check=True)
    assert (int(done.stderr), int(done.stdout)) == (asked, has)
    # And back again.
    assert (node / "nr_hugepages").read_text().strip() == "20"


PASS, FAIL, SKIP = 0, 1, 4


@pytest.mark.parametrize("tries, writes, lost, result", [
    (1000, 1000, 0, PASS), (1000, 1000, 1, FAIL), (10, 1000, 0, SKIP), (10, 1000, 1, FAIL),
    (1000, 0, 0, SKIP)])
def test_a_loss_is_not_hidden_by_a_skip(tree612: Path, public: Path, tries: int, writes: int,
                                        lost: int, result: int) -> None:
    program = compiled(tree612, BUSY, public / "busy")
    done = subprocess.run([program, *map(str, (tries, writes, lost))], text=True,
                          env={**os.environ, "HUGETLB_PMD_BUSY_SECONDS": "1"}, check=False,
                          capture_output=True)
    assert done.returncode == result, done.stdout + done.stderr


@pytest.mark.parametrize("kib, said", [("16384", "1 0 Success\n"),
                                       ("4096", "0 0 Argument list too long\n")])
def test_what_cannot_be_started_has_not_failed(tree612: Path, public: Path, kib: str,
                                               said: str) -> None:
    program = compiled(tree612, EXECS, public / "execs")
    done = subprocess.run([program, kib], text=True, check=True, capture_output=True)
    assert done.stdout == said


@pytest.fixture
def hanging(runner: Path, tree612: Path) -> Iterator[Path]:
    """The folder with one program that hangs; what of it is left in the end is killed."""
    compiled(tree612, HANGS, runner / "mm/hangs").with_suffix(".c").unlink()
    (runner / "kselftest-list.txt").write_text("mm:hangs\n")
    yield runner
    for pid in alive(f"CHANGED={runner}"):
        os.kill(pid, signal.SIGKILL)


def alive(mark: str) -> dict[int, str]:
    """The command lines of all processes that have `mark` in their environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    line = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
                    found[int(entry.name)] = line.strip()
            except OSError:
                pass
    return found


def wait_for(what: str, path: Path, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while path.read_text() != what:
        assert time.monotonic() < end, f"{path.read_text()} instead of {what}"
        time.sleep(0.05)


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.parametrize("how", ["ctrl-c", "term make", "kill make", "kill lab", "kill the group",
                                 "close the output"])
def test_nothing_is_left_behind(hanging: Path, how: str) -> None:
    changed = hanging / "changed"
    changed.write_text("before")
    mark = f"CHANGED={changed}"
    code = driver("try:\n"
                  f"    kselftest.run(kselftest.command(Path({str(hanging)!r}), ()), {{}}, print)\n"
                  "except KeyboardInterrupt:\n    sys.exit(130)\n")[-1]
    (hanging / "code.py").write_text(code)
    (hanging / "Makefile").write_text(f"all:\n\t@{sys.executable} -B -u code.py\n")
    with subprocess.Popen(["make"], cwd=hanging, env={**outside_make(), "CHANGED": str(changed)},
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          start_new_session=True) as make:
        assert make.stdout
        wait_for("during", changed)
        assert len(alive(mark)) > 6, "the test is of no use"
        if how == "ctrl-c":
            os.killpg(make.pid, signal.SIGINT)
        elif how == "term make":
            make.terminate()
        elif how == "kill make":
            make.kill()
        elif how == "kill lab":
            os.kill(child_of(make.pid), signal.SIGKILL)
        elif how == "kill the group":
            os.killpg(make.pid, signal.SIGKILL)
        else:
            make.stdout.close()
            # It is noticed at the next line, as by any program.
            os.kill(min(pid for pid, line in alive(mark).items() if line == "./hangs"),
                    signal.SIGKILL)
        make.wait(30)
        if how == "ctrl-c":
            # It waits until all is done.
            assert changed.read_text() == "before"
            assert not alive(mark)
        wait_for("before", changed)
    end = time.monotonic() + 20
    while left := alive(mark):
        assert time.monotonic() < end, left
        time.sleep(0.1)


# ---- the front door ------------------------------------------------------------------------


@pytest.mark.parametrize("words, reason", [
    (["TESTS=-t x"], "name what it is to show with DEFECT="),
    (["DEFECT=pmd-share-arm64-flush"], "no selftest shows pmd-share-arm64-flush"),
    (["DEFECT=nothing"], "no defect nothing"),
    (["TIMEOUT=2"], "TIMEOUT= is for a guest: name its kernel with BASE= or KERNEL="),
    (["BOOTS=2"], "BOOTS= means nothing to kselftest: each test runs once"),
    (["VARIANT=fixed"], "VARIANT= is for a guest"),
    (["BASE=6.12", "VARIANT=x"], "VARIANT=x: vulnerable, fixed or series is wanted"),
    (["BASE=0.1"], "no base 0.1"),
])
def test_errors_are_one_line(words: list[str], reason: str) -> None:
    assert reason in refused("kselftest", *words)


def test_only_the_variants_that_are_about_a_defect_are_run(monkeypatch: pytest.MonkeyPatch
                                                          ) -> None:
    asked: list[dict[str, str]] = []

    def run(_words: list[str], environment: dict[str, str], _tell: object) -> kselftest.Stream:
        asked.append(environment)
        return kselftest.Stream()

    monkeypatch.setattr(deps, "ensure", lambda *_args: None)
    monkeypatch.setattr(kselftest, "install", lambda *_args, **_named: Path("/nonexistent"))
    monkeypatch.setattr(kselftest, "die_with_parent", lambda: None)
    monkeypatch.setattr(kselftest, "run", run)
    for more in ([], ["--tests=-t stays"]):
        assert cli.main(["kselftest", "--defect=pmd-share-move-pages", *more]) == 0
    name = "KSELFTEST_HUGETLB_PMD_MOVE_ALL_ARGS"
    assert asked == [{name: "-v move_pages_shared -v move_pages_own_tables -v move_pages_alone"},
                     {name: "-t stays"}]


@pytest.mark.parametrize(("said", "status", "told"), [
    ("[16:10:49] Testing complete. Ran 37 tests: passed: 36, skipped: 1\n", 0,
     "KUnit: Ran 37 tests: passed: 36, skipped: 1"),
    ("[16:10:49] Testing complete. Ran 2 tests: passed: 1, failed: 1\n", 1, None),
    ("[16:10:49] [ERROR] Test: <missing>: Could not find any KTAP output.\n", 1, None),
    ("", 0, None),
])
def test_kunit_must_have_run_and_passed(tmp_path: Path, said: str, status: int,
                                        told: str | None) -> None:
    parser = tmp_path / "tools" / "testing" / "kunit" / "kunit.py"
    parser.parent.mkdir(parents=True)
    parser.write_text(f"import sys\nassert sys.argv[1:] == ['parse', 'log']\n"
                      f"print({said!r}, end='')\nsys.exit({status})\n")
    if told:
        assert guestrun._kunit(tmp_path, Path("log")) == told
    else:
        with pytest.raises(LabError, match="^KUnit: "):
            guestrun._kunit(tmp_path, Path("log"))


def test_a_base_without_a_series_is_named() -> None:
    source = Source(base.load("4.14"), "4.14.1", {}, "k", Path("/none"))
    with pytest.raises(LabError, match="no series for 4.14.1 .*there are 6.12, 7.3"):
        testseries.applied(source)
