# SPDX-License-Identifier: GPL-2.0
"""What of a run of the tests is beside what.

With -n 2, what wants the machine to itself runs first, one by one, in the process that was started;
then two workers (pytest-xdist) take a file each of all the others.  It is one run with one end.
"""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

# What takes longest goes first, so that in the end no worker waits long for the other.
LONGEST = ("test_audit.py", "test_testseries.py", "test_mailing.py", "test_model.py",
           "test_mutants.py", "test_adjust_range.py", "test_locks.py", "test_kselftest.py",
           "test_package.py", "test_report.py", "test_variant.py", "test_selftest.py",
           "test_cli.py", "test_helpers.py", "test_run.py")


def alone(item: pytest.Item) -> bool:
    """Whether a test wants the machine to itself.

    Whoever boots or builds kernels does, and is known by its marks or what it asks for; whoever
    measures time, or has what may be there but once, is marked `alone`.
    """
    return "fixed" in getattr(item, "fixturenames", ()) or any(
        item.get_closest_marker(name) for name in ("alone", "first", "proof"))


def in_worker(config: pytest.Config) -> bool:
    """Whether this is one of the workers."""
    return hasattr(config, "workerinput")


def has_workers(config: pytest.Config) -> bool:
    """Whether this hands tests out to workers."""
    return config.pluginmanager.has_plugin("dsession")


class Workers:
    """The plugin that divides a run."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        plugins = session.config.pluginmanager
        if has_workers(session.config):
            # How they are started is not told.
            plugins.get_plugin("dsession").terminal = None
            plugins.unregister(name="terminaldistreporter")

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: list[Any]) -> None:
        for spec in specs:
            spec.dont_write_bytecode = sys.dont_write_bytecode

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config) -> "Files":
        return Files(len(config.option.tx))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        if has_workers(session.config):
            # Else it would know nothing of the tests but their names.
            session.perform_collect()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]
                                      ) -> None:
        if in_worker(config):
            items[:] = [item for item in items if not alone(item)]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        if has_workers(session.config):
            if session.testsfailed:
                raise session.Interrupted(f"{session.testsfailed} errors during collection")
            items = [item for item in session.items if alone(item)]
            for item, following in zip(items, [*items[1:], None]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
        yield
        # The workers count theirs alone.
        session.testscollected = len(session.items)


class Files:
    """Gives each worker a file at a time: a scheduler of pytest-xdist.

    Its own does not end where a worker dies of the last test, and runs again what a worker died of.
    """

    def __init__(self, count: int) -> None:
        self._count = count                         # workers there are to be
        self._ids: list[str] = []
        self._files: list[list[str]] = []           # not given to anybody yet
        self._given: dict[Any, list[str]] = {}      # by worker, in their order, not run yet
        self._begun = False

    @property
    def nodes(self) -> list[Any]:
        """The workers."""
        return list(self._given)

    @property
    def collection_is_completed(self) -> bool:
        """Whether all of them know their tests, so that schedule() may be called."""
        return self._count <= 0

    @property
    def has_pending(self) -> bool:
        """Whether a test has not run yet."""
        return bool(self._files or any(self._given.values()))

    @property
    def tests_finished(self) -> bool:
        """Whether all have."""
        return self._begun and not self.has_pending

    def add_node(self, node: Any) -> None:
        """There is a new worker; one that took the place of another comes late."""
        self._given[node] = []

    def add_node_collection(self, node: Any, collection: list[str]) -> None:
        """It knows its tests."""
        self._ids = self._ids or collection
        if collection != self._ids:
            raise RuntimeError(f"{node} has found other tests than the worker before it")
        self._count -= 1

    def schedule(self) -> None:
        """Begin, or go on with a new worker."""
        if not self._begun:
            files = _by_file(self._ids)
            place = {name: number for number, name in enumerate(LONGEST)}
            self._files = [files[name] for name in sorted(
                files, key=lambda name: place.get(name.rpartition("/")[2], len(place)))]
            self._begun = True
        for least in (1, 2):
            for node in self.nodes:
                self._give(node, least)

    def mark_test_complete(self, node: Any, item_index: int, _duration: float = 0) -> None:
        """A worker has run a test."""
        self._given[node].remove(self._ids[item_index])
        self._give(node)

    def remove_node(self, node: Any) -> str | None:
        """A worker is gone; returns the test that it died of.  What it had not run yet is left to
        others."""
        names = self._given.pop(node)
        self._files[:0] = _by_file(names[1:]).values()
        for other in self.nodes:
            self._give(other)
        return names[0] if names else None

    def _give(self, node: Any, least: int = 2) -> None:
        """See to it that a worker has so many tests: it runs one as soon as it knows the next, or
        that there is none."""
        while len(self._given[node]) < least and not node.shutting_down:
            if not self._files:
                node.shutdown()
                return
            names = self._files.pop(0)
            self._given[node] += names
            node.send_runtest_some([self._ids.index(name) for name in names])


def _by_file(names: list[str]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for name in names:
        files.setdefault(name.partition("::")[0], []).append(name)
    return files
