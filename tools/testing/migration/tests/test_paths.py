# SPDX-License-Identifier: GPL-2.0
"""Folders that are made for a while leave nothing behind."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from lab import paths


@pytest.fixture(params=["scratch_dir", "atomic_dir"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AbstractContextManager[Path]]:
    yield paths.scratch_dir(".new-", tmp_path) if request.param == "scratch_dir" \
        else paths.atomic_dir(tmp_path / "dest")


def test_ctrl_c_right_after_the_folder_is_made(made: AbstractContextManager[Path], tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def interrupted(path: Path, *args: Any, **named: Any) -> None:
        mkdir(path, *args, **named)
        if path.name.startswith(".new-"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), made:
        pass
    assert list(tmp_path.iterdir()) == []


def test_who_has_been_told_to_end_writes_once_more(
        made: AbstractContextManager[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmdir, late = os.rmdir, []

    def write_first(folder: str, **named: Any) -> None:
        if len(late) < 3:
            late.append(new / "late")
            late[-1].touch()
        rmdir(folder, **named)

    with pytest.raises(KeyboardInterrupt), made as new:
        monkeypatch.setattr(os, "rmdir", write_first)
        raise KeyboardInterrupt
    assert len(late) == 3 and list(tmp_path.iterdir()) == []


def test_what_was_made_stays(tmp_path: Path) -> None:
    with paths.atomic_dir(tmp_path / "dest", ["file"]) as folder:
        (folder / "file").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["dest", "file"]


def test_two_at_once_have_one_each(tmp_path: Path) -> None:
    with paths.scratch_dir("a-", tmp_path) as one, paths.scratch_dir("a-", tmp_path) as other:
        assert one != other and len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []
