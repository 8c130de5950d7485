# SPDX-License-Identifier: GPL-2.0
"""Ends what takes too long with an image: one can be made so that each reader has much to do."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lab.errors import LabError

# Of the processor.  A large kernel takes 3 s.
SECONDS = 180


@contextmanager
def time_of(what: str, seconds: float = SECONDS) -> Iterator[None]:
    """LabError that names `what`, if what is done within takes more than `seconds`."""
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise LabError(f"{what} takes more than {seconds:g} s to read: it is damaged, or no kernel")

    # Signals are for the main thread.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, stop)
    # Again and again: who tries several files goes on with the next.
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
