# SPDX-License-Identifier: GPL-2.0
"""The journal that writers keep in a page: what it must see, and that it sees nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.paths import REPO

SELFTESTS = REPO / "tools/testing/selftests/mm"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The selftests' own code with a main function; the tree's headers give it three names."""
    top = tmp_path_factory.mktemp("journal")
    folder = top / "mm"
    folder.mkdir()
    for name in ("migrate_util.c", "migrate_util.h"):
        shutil.copy(SELFTESTS / name, folder)
    shutil.copy(REPO / "tests" / "journal_main.c", folder)
    (top / "kselftest.h").write_text("#define __noreturn __attribute__((noreturn))\n")
    (folder / "vm_util.h").write_text(
        "#include <stdint.h>\n#include <unistd.h>\n"
        "static inline unsigned int psize(void) { return 4096; }\n"
        "static inline uint64_t pagemap_get_entry(int fd, char *addr) { return 0; }\n"
        "#define PAGEMAP_PRESENT(e) 0\n#define PAGEMAP_PFN(e) 0\n")
    done = subprocess.run(
        ["gcc", "-Wall", "-O1", "-fsanitize=address,undefined", "-o", "journal", "journal_main.c",
         "migrate_util.c", "-lnuma"], cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "journal"


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
    """As the drawing in migrate_util.h says: writes that were lost `age` writes ago."""
    writes = 600_000
    for shift in (0, 1, width // 2, width - 1):
        first = writes - age + shift
        assert losses(program, writes, first, first + width - 1) >= 1


def test_what_was_written_over_is_not_seen(program: Path) -> None:
    """One write, long ago, that is no multiple of 16: only the first ring ever had it."""
    assert losses(program, 1000, 501, 501) == 0
