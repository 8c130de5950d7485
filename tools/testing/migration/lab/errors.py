# SPDX-License-Identifier: GPL-2.0
"""The exceptions that reach the user."""


class LabError(Exception):
    """Something the user can act on: one line that says what is wrong and what to do.

    `log` names a file with the details, shown on a line of its own.
    """

    def __init__(self, message: str, log: str | None = None) -> None:
        super().__init__(message)
        self.log = log


class NoSource(LabError):
    """A kernel source that is not to be had on this machine, through no fault of the lab's."""


class NotInstalled(LabError):
    """What is missing on this machine, so that no input can be read; apt installs it."""


class NotBuilt(LabError):
    """A kernel whose source does not compile or link."""
