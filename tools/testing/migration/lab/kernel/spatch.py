# SPDX-License-Identifier: GPL-2.0
"""Runs coccinelle: rules that change copies of files, and rules that say what they find."""

import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

# Seconds of a processor for files of mm/: one takes less than one.  A clock on the wall would make
# answers of how busy a machine is; it is for what does not even run.
_PATCH_TIMEOUT, _FIND_TIMEOUT = 300, 60
_WALL = 20
# spatch comes from packages, and so does the library of Python that it loads.  It is told which
# Python that is: to ask a python3 that is a script, as pyenv's is, takes longer than all else.
_PYTHON = Path("/usr/bin/python3")


class Failed(LabError):
    """What coccinelle did instead of its work, and on what."""

    def __init__(self, did: str, rule: Path, files: Sequence[str]) -> None:
        super().__init__(f"coccinelle {did}, with {rule} on {' '.join(files)}")
        self.did = did


def patch(rule: Path, folder: Path, files: Sequence[str]) -> None:
    """Change `files` of `folder`, which are copies, as the rules in `rule` say."""
    _run(rule, folder, files, _PATCH_TIMEOUT, "--in-place")


def find(rule: Path, folder: Path, files: Sequence[str], seconds: int = _FIND_TIMEOUT
         ) -> list[str]:
    """The lines that the rules in `rule` print of `files` of `folder`."""
    return _run(rule, folder, files, seconds).splitlines()


def _run(rule: Path, folder: Path, files: Sequence[str], timeout: int, *options: str) -> str:
    """What spatch says.

    No headers are read: the rules need no types, and headers would cost seconds.  LabError where
    there is no spatch; Failed where it fails or does not come to an end.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    # It dies of a missing HOME, in which it only looks for its settings, and its own diff of a
    # temporary folder with a blank in its name.
    environment.setdefault("HOME", "/")
    if any(blank in environment.get("TMPDIR", "") for blank in " \t"):
        del environment["TMPDIR"]
    command = ["spatch", "--very-quiet", "--no-includes", *options, "--sp-file", str(rule), *files]
    try:
        done = _bounded([*command, *(("--python", str(_PYTHON)) if _PYTHON.is_file() else ())],
                        folder, environment, timeout)
        if done.returncode > 0 and "python" in done.stderr.lower() and _PYTHON.is_file():
            # Its library may be that of another Python, which spatch finds by itself.
            done = _bounded(command, folder, environment, timeout)
    except FileNotFoundError as err:
        raise LabError("spatch is not installed: apt install coccinelle") from err
    except subprocess.TimeoutExpired as err:
        raise Failed(f"does not come to an end in {timeout * _WALL} s", rule, files) from err
    if done.returncode == -signal.SIGXCPU:
        raise Failed(f"does not come to an end in {timeout} s", rule, files)
    if done.returncode != 0:
        said = (line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip())
        raise Failed(f"failed: {next(said, 'it said nothing')}", rule, files)
    return done.stdout


def _bounded(command: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: int
             ) -> "subprocess.CompletedProcess[str]":
    """Run a command with so much time of a processor."""
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, encoding="utf-8",
                          errors="surrogateescape", stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        try:
            # Before it has used any.
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds + 1))
            stdout, stderr = process.communicate(timeout=seconds * _WALL)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
