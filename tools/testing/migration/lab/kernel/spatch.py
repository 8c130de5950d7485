# SPDX-License-Identifier: GPL-2.0
"""Runs coccinelle."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError


def run(rule: Path, folder: Path, files: Sequence[str], timeout: float, *options: str
        ) -> "subprocess.CompletedProcess[str]":
    """Run the rules in `rule` on `files` of `folder`; `timeout` is in seconds.

    No headers are read: the rules need no types, and headers would cost seconds.  LabError where
    there is no spatch; subprocess.TimeoutExpired where it does not come to an end.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    # It dies of a missing HOME, in which it only looks for its settings, and its own diff of a
    # temporary folder with a blank in its name.
    environment.setdefault("HOME", "/")
    if any(blank in environment.get("TMPDIR", "") for blank in " \t"):
        del environment["TMPDIR"]
    try:
        return subprocess.run(
            ["spatch", "--very-quiet", "--no-includes", *options, "--sp-file", str(rule), *files],
            cwd=folder, env=environment, text=True, timeout=timeout, encoding="utf-8",
            errors="surrogateescape", capture_output=True, check=False)
    except FileNotFoundError as err:
        raise LabError("spatch is not installed: apt install coccinelle") from err
