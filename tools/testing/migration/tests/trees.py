# SPDX-License-Identifier: GPL-2.0
"""Trees of files for the tests: made up, or as much of a kernel's as is looked at."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.kernel.source import Source
from lab.paths import copy


def fill(top: Path, files: dict[str, str]) -> Path:
    """Write these texts below `top`."""
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text, encoding="utf-8")
    return top


def some(tree: Path, dest: Path, names: Iterable[str]) -> Path:
    """A copy of these files of `tree`."""
    for name in names:
        copy(tree / name, dest / name)
    return dest


def released(source: Source, dest: Path, wanted: Callable[[str], bool]) -> Path:
    """A copy of those files of a source, as it was given, whose paths are wanted."""
    said = subprocess.run(["git", "ls-tree", "-r", "-z", "--name-only", source.pristine], text=True,
                          env={**os.environ, "GIT_DIR": str(source.kept.store)}, check=True,
                          capture_output=True)
    with source.kept.scratch(source.pristine) as scratch:
        scratch.take_out(filter(wanted, said.stdout.split("\0")[:-1]))
        shutil.move(scratch.files, dest)
        scratch.files.mkdir()
    return dest


def repository(tree: Path, dest: Path, names: Iterable[str]) -> Path:
    """A git repository with those of these files that `tree` has, in one commit.

    In one with all of a kernel's files, git takes seconds for each step.
    """
    dest.mkdir(parents=True, exist_ok=True)
    some(tree, dest, sorted({name for name in names if (tree / name).is_file()}))
    git(dest, "init", "-q")
    git(dest, "add", "-A", "-f")
    git(dest, "commit", "-qm", "released")
    return dest


def git(folder: Path, *words: str | Path) -> str:
    """Run git there, by nobody's configuration."""
    return subprocess.run(["git", "-C", folder, *words], env=nobody(), text=True,
                          capture_output=True, check=True).stdout


def nobody() -> dict[str, str]:
    """An environment in which git has nobody's configuration."""
    return {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@invalid", "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@invalid"}


def apply(folder: Path, *words: str | Path, diff: str = "") -> str:
    """Run git apply in a folder that is in no repository: there, git looks for other paths."""
    done = subprocess.run(["git", "apply", *words], cwd=folder, input=diff, text=True, check=False,
                          env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
                          capture_output=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stderr
