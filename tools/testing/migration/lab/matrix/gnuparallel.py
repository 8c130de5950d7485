# SPDX-License-Identifier: GPL-2.0
"""How GNU parallel is called: the one thing here that spreads work over machines."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import minder
from lab.errors import LabError
from lab.paths import scratch_dir

# Without questions, and so that a host that is gone is found to be gone.
SSH = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15",
       "-o", "ServerAliveCountMax=4")
# A host that says nothing for so long is not there.
ANSWER = 40
# Nobody's profile, and no notice on the screen: who publishes is asked by it to cite it, and
# Documentation/matrix.rst does.
_COMMAND = ("parallel", "--will-cite", "--plain")


def check() -> None:
    """LabError where there is none, or another program of that name."""
    if not shutil.which("parallel"):
        raise LabError("there is no parallel: install Debian's package parallel")
    done = subprocess.run([*_COMMAND, "--version"], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, check=False)
    if not done.stdout.startswith("GNU parallel "):
        raise LabError(f"{shutil.which('parallel')} is not GNU parallel: install Debian's package "
                       "parallel")


def _environment(home: Path | str) -> dict[str, str]:
    """That of GNU parallel: jobs get a shell that all hosts have, and nothing stays in ~."""
    return {**{name: value for name, value in os.environ.items() if name != "PARALLEL"},
            "PARALLEL_HOME": str(home), "PARALLEL_SSH": shlex.join(["ssh", *SSH]),
            "PARALLEL_SHELL": "/bin/sh", "LC_ALL": "C.UTF-8"}


def minded(words: Sequence[str], cwd: Path, errors: Path, home: Path
           ) -> "subprocess.Popen[str]":
    """Start GNU parallel so that it ends, and all that it started, when its standard input is
    closed, or when this process is gone."""
    with open(errors, "ab") as log:
        return subprocess.Popen([sys.executable, "-B", minder.__file__, *_COMMAND, *words],
                                cwd=cwd, env=_environment(home), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=log, text=True, errors="replace",
                                start_new_session=True)


def on_all(logins: Sequence[str], script: str, limit: int = ANSWER
           ) -> tuple[dict[str, str], dict[str, str]]:
    """Run a script on all hosts at once; what each said, and what came as errors."""
    with scratch_dir("lab-matrix-") as folder:
        file = folder / "hosts"
        file.write_text("".join(f"{login}\n" for login in logins), encoding="utf-8")
        done = subprocess.run(
            [*_COMMAND, "--nonall", "--tag", "-j0", "--timeout", str(limit), "--sshloginfile",
             str(file), script], env=_environment(folder), stdin=subprocess.DEVNULL, text=True,
            errors="replace", capture_output=True, check=False)
    return _by_login(done.stdout, logins), _by_login(done.stderr, logins)


def _by_login(said: str, logins: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in said.splitlines():
        login, tab, text = line.partition("\t")
        if tab and login in logins:
            found[login] = found.get(login, "") + text + "\n"
    return found
