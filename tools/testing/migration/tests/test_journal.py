# SPDX-License-Identifier: GPL-2.0
"""The journal that writers keep in a page: what it must see, and that it sees nothing else; and
what it can tell, with the times beside it, of how a migration went."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.judge import timeline
from lab.paths import HOME, REPO

# Threads that wait for each other by the clock.
pytestmark = pytest.mark.alone
SELFTESTS = REPO / "tools/testing/selftests/mm"


# What writers and their timeline are made of.
HELPERS = ("crew", "guard", "journal", "page", "timeline", "util", "writers")
# For what the tree's headers give.
STAND_INS = {
    "kselftest.h": "#define __noreturn __attribute__((noreturn))\n"
                   "#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))\n"
                   "int printf(const char *format, ...);\n"
                   "#define ksft_print_msg(...) printf(__VA_ARGS__)\n",
    "mm/vm_util.h": """
#include <stdint.h>
#include <unistd.h>
static inline unsigned int psize(void) { return 4096; }
static inline uint64_t pagemap_get_entry(int fd, char *addr) { return 0; }
#define PAGEMAP_PRESENT(e) 0
#define PAGEMAP_PFN(e) 0
""",
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The selftests' own code with main functions."""
    top = tmp_path_factory.mktemp("journal")
    folder = top / "mm"
    folder.mkdir()
    for path in SELFTESTS.glob("migrate_*.[ch]"):
        shutil.copy(path, folder)
    for name, text in STAND_INS.items():
        (top / name).write_text(text)
    for name, options in (("journal", ["-Wall", "-fsanitize=address,undefined"]),
                          ("samples", ["-Wall", "-fsanitize=address,undefined"]),
                          ("timeline", ["-Wall", "-pthread"]),
                          ("writers", ["-Wall", "-pthread"])):
        shutil.copy(HOME / "tests" / f"{name}_main.c", folder)
        done = subprocess.run(
            ["gcc", "-O1", "-I..", *options, "-o", name, f"{name}_main.c",
             *(f"migrate_{what}.c" for what in HELPERS), "-lnuma"],
            cwd=folder, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def program(programs: Path) -> Path:
    return programs / "journal"


def losses(program: Path, writes: int, first: int = 0, last: int = 0) -> int:
    done = subprocess.run([program, str(writes), str(first or writes + 1), str(last)], text=True,
                          capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("writes", [0, 1, 15, 16, 127, 128, 129, 2047, 2048, 4096, 70000, 600000])
def test_a_journal_with_every_write_is_right(program: Path, writes: int) -> None:
    assert losses(program, writes) == 0


@pytest.mark.parametrize("writes", [1, 100, 128, 5000])
def test_one_lost_write_is_seen_while_its_slot_lasts(program: Path, writes: int) -> None:
    assert losses(program, writes, writes, writes) >= 1
    oldest = max(1, writes - 127)
    assert losses(program, writes, oldest, oldest) >= 1


@pytest.mark.parametrize("age, width", [(1000, 16), (10_000, 256), (400_000, 4096)])
def test_the_longer_ago_the_more_must_be_lost(program: Path, age: int, width: int) -> None:
    """As the drawing in migrate_journal.h says: writes that were lost `age` writes ago."""
    writes = 600_000
    for shift in (0, 1, width // 2, width - 1):
        first = writes - age + shift
        assert losses(program, writes, first, first + width - 1) >= 1


def test_what_was_written_over_is_not_seen(program: Path) -> None:
    """One write, long ago, that is no multiple of 16: only the first ring ever had it."""
    assert losses(program, 1000, 501, 501) == 0


# ---- when writes were made, and whether they are there -------------------------------------


Sample = tuple[int, int, bool]      # time, number, lost


def samples(programs: Path, writes: int, astray: tuple[int, int] = (0, 0), at: int = 0,
            stall: int = 0, first: int = 1, most: int = 384) -> list[Sample]:
    numbers = (writes, *astray, at, stall, first, most)
    done = subprocess.run([programs / "samples", *map(str, numbers)], text=True,
                          capture_output=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(int(time), int(number), fate == "lost") for time, number, fate in rows]


@pytest.mark.parametrize("writes", [0, 15, 16, 127, 2047, 2048, 2049, 4096, 32768, 70000, 600_001])
def test_samples_are_as_dense_as_promised(programs: Path, writes: int) -> None:
    numbers = [number for _, number, _ in samples(programs, writes)]
    assert numbers == sorted(set(numbers)) and len(numbers) <= 384
    late = set(numbers)
    for step, reach in ((16, 2032), (256, 32512), (4096, 520192)):
        oldest = max(step, (writes - reach + step - 1) // step * step)
        assert late >= set(range(oldest, writes + 1, step))
    assert not numbers or numbers[-1] == writes // 16 * 16


@pytest.mark.parametrize("writes, astray", [
    (600_000, (0, 0)), (600_000, (590_000, 600_000)), (600_000, (570_000, 595_000)),
    (600_000, (200_000, 500_000)), (3000, (1500, 1900)), (3000, (1, 3000)), (40, (33, 40))])
def test_each_sample_tells_the_truth(programs: Path, writes: int, astray: tuple[int, int]) -> None:
    at, stall = writes // 2, 77_777
    found = samples(programs, writes, astray, at, stall)
    assert found
    for time, number, lost in found:
        assert time == 10 * number + (stall if number >= at else 0)
        assert lost == (astray[0] <= number <= astray[1])


def test_samples_of_an_earlier_round_are_left_out(programs: Path) -> None:
    whole = samples(programs, 100_000)
    late = samples(programs, 100_000, first=90_001)
    assert late == [sample for sample in whole if sample[1] >= 90_001] and late != whole


@pytest.mark.parametrize("most", [2, 3, 10, 60])
def test_thinned_samples_keep_their_ends(programs: Path, most: int) -> None:
    whole = samples(programs, 600_000)
    thin = samples(programs, 600_000, most=most)
    assert len(thin) == most and set(thin) <= set(whole)
    assert (thin[0], thin[-1]) == (whole[0], whole[-1])


def test_thinned_samples_keep_pauses_and_changes(programs: Path) -> None:
    """What a timeline is looked at for is still there when most of it is gone."""
    arguments = {"astray": (580_000, 590_000), "at": 595_000, "stall": 200_000}
    whole = samples(programs, 600_000, **arguments)     # type: ignore[arg-type]
    thin = samples(programs, 600_000, most=60, **arguments)     # type: ignore[arg-type]

    def edges(all_of_them: list[Sample]) -> set[Sample]:
        pairs = zip(all_of_them, all_of_them[1:])
        return {sample for one, two in pairs for sample in (one, two)
                if one[2] != two[2] or two[0] - one[0] > 200_000}

    assert len(edges(whole)) == 6 and edges(thin) == edges(whole)


def test_changes_go_where_nothing_else_is_left_to_go(programs: Path) -> None:
    whole = samples(programs, 64, (32, 63))
    assert [lost for _, _, lost in whole] == [False, True, True, False]
    assert samples(programs, 64, (32, 63), most=2) == [whole[0], whole[-1]]


# ---- the lines that the lab makes a picture of ---------------------------------------------


def migrate(programs: Path, what: str) -> tuple[timeline.Timeline, tuple[int, int]]:
    """What the selftest prints of a migration that is none, and when the page was copied."""
    done = subprocess.run([programs / "timeline", what], text=True, capture_output=True, check=True)
    *lines, copied = done.stdout.splitlines()
    assert all(line.startswith("# ") for line in lines)
    made = timeline.read("t", [line[2:] for line in lines])
    assert made, done.stdout
    _, begin, end = copied.split()
    return made, (int(begin), int(end))


def test_the_lab_reads_what_the_selftest_prints(programs: Path) -> None:
    made, (begin, end) = migrate(programs, "lose")
    assert (made.page, made.node_before, made.node_after, made.hot) == (0, 1, 0, True)
    assert (made.pfn_before, made.pfn_after) == ("0x178200", "0x138400")
    assert [(one.number, one.cpu) for one in made.writers] == [(1, 5), (2, 6)]
    assert made.call == 3 and made.lost_words > 100 and made.call_us >= 8000
    for writer in made.writers:
        assert 2 <= len(writer.known) <= 60
        assert -made.call_us / 2 - 1 <= writer.known[0].us
        assert writer.writes - writer.known[-1].number < 16
        # The copy takes some time itself.  Between a write and its stamp a writer may have to wait.
        assert all(write.us >= begin - 1 for write in writer.lost)
        assert sum(write.us > end + 1 for write in writer.known if not write.lost) <= 1
    window = made.window()
    assert window and window[1] >= made.call_us


def test_a_timeline_without_loss(programs: Path) -> None:
    made, _ = migrate(programs, "keep")
    assert made.window() is None and made.lost_words == 0 and made.call == 3
    assert all(2 <= len(writer.known) <= 60 for writer in made.writers)


# ---- writers -------------------------------------------------------------------------------


def writers(programs: Path, what: str) -> tuple[int, list[str]]:
    done = subprocess.run([programs / "writers", what], text=True, stdout=subprocess.PIPE,
                          check=False, timeout=120)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("what, said", [
    ("keep", ["wrote 3", "lost 0 in 0 0 0", "then 0"]),
    ("small", ["wrote 3", "lost 0 in 0 0 0", "then 0"]),
    ("threads", ["wrote 3", "lost 0 in 0 0 0", "then 0"]),
    ("begun", ["wrote 1"]),
    ("rest", ["wrote 2", "lost 0 in 0 0 0", "then 0"]),
    ("lose", ["wrote 3", "first: writer 2 page 1", "lost 1 in 0 1 0", "then 0"])])
def test_writers_and_what_they_lose(programs: Path, what: str, said: list[str]) -> None:
    """A loss is found once, and a writer that did not write is not counted."""
    assert writers(programs, what) == (0, said)


def test_a_writer_that_dies_is_told_of(programs: Path) -> None:
    status, said = writers(programs, "die")
    assert status == 3 and said[-1].startswith("# writer 1 (pid ")
    assert said[-1].endswith(" is gone: signal 9")


def test_short_address_space_is_made_do(programs: Path) -> None:
    """110 GiB have no room for three times 1024 mappings of a GiB; 10 GiB are not enough."""
    assert writers(programs, "room") == (0, ["rooms 32", "none: Cannot allocate memory"])
