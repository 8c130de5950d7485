# SPDX-License-Identifier: GPL-2.0
"""A base or a defect that was added is in each table of the tests, and no table has another; and
each base has a record.

The tests of what these tables say need kernel trees, and are skipped where there are none.  That
something is not in them at all is seen here, in any case.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pytest
from test_queue import FOLDERS
from test_source import VERSIONS

from lab import arch, base, defect, readings
from lab.errors import LabError
from lab.judge.summary import Summary
from lab.kernel import variant
from lab.tell import cells, record
from lab.wanted import DEFECT

# Bases of which there is no record of the first defect, and why.  Whose proof is recorded goes.
NOT_PROVED = {
    "4.9.337": "no tree of it was there to prove it with",
    "4.14.325": "no tree of it was there to prove it with",
    "4.19": "hugetlb-punch-migrate alone was proved",
    "5.4": "hugetlb-punch-migrate alone was proved",
}


READ = readings.load()


def tables(name: str) -> dict[str, bool]:
    """Whether a base is there, for each table that has to have it."""
    read = READ.get(name)
    there = {f"bases/{readings.FILE}": read is not None,
             "VERSIONS of tests/test_source.py": name in {built_as for _version, built_as in VERSIONS}}
    if read and (variant.QUEUE / name).is_dir():
        there[f"bases/{readings.FILE}, with its queue"] = bool(read.queue)
    return there


def lacking(name: str) -> list[str]:
    """The tables that lack a base."""
    return [f"base {name} is not in {table}" for table, there in tables(name).items() if not there]


@pytest.mark.parametrize("name", base.names())
def test_a_base_is_in_each_table(name: str) -> None:
    assert not lacking(name), "; ".join(lacking(name))


def test_a_base_that_no_table_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacking("9.9") == ["base 9.9 is not in bases/read.toml",
                              "base 9.9 is not in VERSIONS of tests/test_source.py"]
    monkeypatch.setitem(READ, "6.12", dataclasses.replace(READ["6.12"], queue={}))
    assert lacking("6.12") == ["base 6.12 is not in bases/read.toml, with its queue"]


def unproved(names: Iterable[str], records: Iterable[Summary]) -> list[str]:
    """The bases that can have the first defect, and have no record of it."""
    there = {cells.base_of(run) for run in records
             if run.defect == DEFECT and run.arch == arch.FIRST and cells.counts(run)}
    return [name for name in names
            if name not in there and not cells.nothing(defect.load(DEFECT), name, arch.FIRST)]


def test_a_base_has_a_record() -> None:
    """make prove BASE=..., make record: then it is one that the lab can prove something of."""
    lacks = unproved(base.names(), record.proofs())
    assert sorted(lacks) == sorted(NOT_PROVED), f"no record of {DEFECT}, or NOT_PROVED is wrong"
    assert all(NOT_PROVED.values())


def test_a_base_without_a_record() -> None:
    proved = record.proofs()
    some = [run for run in proved if cells.base_of(run) == "6.12"]
    assert "6.12" not in unproved(base.names(), proved)
    assert "6.12" in unproved(base.names(), [run for run in proved if run not in some])
    # Of another architecture, or of another defect, is not enough.
    assert unproved(["6.12"], [run for run in some if run.arch != arch.FIRST]) == ["6.12"]
    assert unproved(["6.12"], [run for run in some if run.defect != DEFECT]) == ["6.12"]
    # It is built by no compiler, and its file says so.
    assert unproved(["2.6.34"], []) == []


def test_no_table_has_another_base() -> None:
    assert set(READ) == set(base.names())
    queues = {folder.name for folder in FOLDERS}
    assert queues <= set(base.names()), "a queue of no base"
    assert {name for name, read in READ.items() if read.queue} == queues


def test_a_defect_that_the_audit_finds_has_a_column() -> None:
    audited = {name for name in defect.names() if defect.load(name).audit}
    for read in READ.values():
        assert set(read.released) == audited, f"bases/{readings.FILE}"


def test_the_release_that_was_read_is_the_one_that_is_proved() -> None:
    """Another tree of a base was proved, and nobody has said what is in it."""
    for run in record.proofs():
        if name := cells.base_of(run):
            assert run.source["version"].removesuffix(".0") == READ[name].release
    for name, read in READ.items():
        assert base.for_version(read.release).name == name


@pytest.mark.parametrize("text, says", [
    ('["6.1"]\nrelease = "6.1.2"\nreleased = "V"\n', "must have one of V p - for each of 2 defects"),
    ('["6.1"]\nrelease = "6.1.2"\nreleased = "V x"\n', "must have one of V p - for each of 2"),
    ('["6.1"]\nrelease = "6.1.2"\nreleased = "V p"\nqueue = "p"\n', r"\[6.1\] queue must have one"),
    ('["6.1"]\nreleased = "V p"\n', "release is missing"),
])
def test_what_was_read_is_whole(text: str, says: str, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BASES", tmp_path)
    (tmp_path / readings.FILE).write_text(f'defects = ["a", "b"]\n{text}')
    with pytest.raises(LabError, match=says):
        readings.load()
