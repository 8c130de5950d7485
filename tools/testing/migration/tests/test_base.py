# SPDX-License-Identifier: GPL-2.0
"""A base or a defect that was added is in each table of the tests, and no table has another.

The tests of what these tables say need kernel trees, and are skipped where there are none.  That
something is not in them at all is seen here, in any case.
"""

from pathlib import Path

import pytest
from test_audit import COLUMNS, LETTER, READ
from test_queue import FOLDERS
from test_source import VERSIONS

from lab import base, defect
from lab.kernel import variant


def tables(name: str) -> dict[str, bool]:
    """Whether a base is there, for each table that has to have it."""
    rows = [name, *([f"{name} and queue"] if (variant.QUEUE / name).is_dir() else [])]
    return {**{f"READ of tests/test_audit.py, as \"{row}\"": row in READ for row in rows},
            "VERSIONS of tests/test_source.py": name in {built_as for _version, built_as in VERSIONS}}


def lacking(name: str) -> list[str]:
    """The tables that lack a base."""
    return [f"base {name} is not in {table}" for table, there in tables(name).items() if not there]


@pytest.mark.parametrize("name", base.names())
def test_a_base_is_in_each_table(name: str) -> None:
    assert not lacking(name), "; ".join(lacking(name))


def test_a_base_that_no_table_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacking("9.9") == ['base 9.9 is not in READ of tests/test_audit.py, as "9.9"',
                              "base 9.9 is not in VERSIONS of tests/test_source.py"]
    monkeypatch.setattr(variant, "QUEUE", tmp_path)
    (tmp_path / "9.9").mkdir()
    assert 'base 9.9 is not in READ of tests/test_audit.py, as "9.9 and queue"' in lacking("9.9")


def test_no_table_has_another_base() -> None:
    assert {row.removesuffix(" and queue") for row in READ} == set(base.names())
    queues = {folder.name for folder in FOLDERS}
    assert queues <= set(base.names()), "a queue of no base"
    assert {row.removesuffix(" and queue") for row in READ if row.endswith(" queue")} == queues


def test_a_defect_that_the_audit_finds_has_a_column() -> None:
    audited = {name for name in defect.names() if defect.load(name).audit}
    assert sorted(COLUMNS) == sorted(audited), "COLUMNS of tests/test_audit.py"
    for row, letters in READ.items():
        assert len(letters.split()) == len(COLUMNS), f"READ of tests/test_audit.py, \"{row}\""
        assert set(letters.split()) <= set(LETTER.values()), row
