# SPDX-License-Identifier: GPL-2.0
"""`make prove` as a new user has it: from an empty cache, and with all that goes wrong there.

An ordinary user without sudo, in a clone whose path has blanks, with no HOME and a umask of 077.
The runs share one cache: each but the last is ended in another step, and must leave nothing that is
half made, so that the last one, which is the proof on 6.12, shows that they did not.

These come first in a run.  They take the cache that LAB_CACHE names where that is empty, and what
they built is then used by all tests after them; else they make one of their own.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import FAST, NOT_FAST, debian_tarball
from test_proof import check_proof

from lab.paths import REPO, cache_dir

pytestmark = pytest.mark.first

NOBODY = 65534
ROOT = os.geteuid() == 0
# As of the lab's own limits, and a machine that has other things to do.
PATIENCE = 60


class Newcomer:
    """A user with a clone and a cache, and the calls of apt-get and sudo that were made."""

    def __init__(self, top: Path, cache: Path) -> None:
        self.top, self.cache = top, cache
        self.clone, self.tmp, self.calls = top / "a new clone", top / "tmp", top / "calls"
        self.out = self.clone / "out"
        files = subprocess.run(["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=REPO,
                               capture_output=True, check=True).stdout.decode().split("\0")
        for name in filter(None, files):
            if (REPO / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPO / name, self.clone / name)
        self.tmp.mkdir()
        (top / "bin").mkdir()
        self._program("apt-get", f'echo "$*" >> {self.calls}\nexec /usr/bin/apt-get "$@"')
        self._program("sudo", f'echo "sudo $*" >> {self.calls}\nexit 1')
        self.calls.touch()
        if ROOT:
            for path in (top, cache):
                subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", path], check=True)

    def _program(self, name: str, text: str) -> None:
        (self.top / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.top / "bin" / name).chmod(0o755)

    def start(self, *words: str, enter: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        """Start make with these words, in a process group of its own."""
        user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if ROOT else ()
        return subprocess.Popen(
            [*enter, *user, "make", "--no-print-directory", *words], cwd=self.clone, text=True,
            env={"PATH": f"{self.top}/bin:/usr/bin:/bin", "TMPDIR": str(self.tmp),
                 "LAB_CACHE": str(self.cache), "LANG": "C.UTF-8"},
            umask=0o077, process_group=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)

    def alive(self) -> list[str]:
        """The processes that came of it and are still there."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and f"TMPDIR={self.tmp}\0".encode() in \
                        (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def half_made(self, cache: Path | None = None) -> list[str]:
        """What is left of a run that did not come to its end."""
        cache = cache or self.cache
        left = [str(path) for path in [*cache.iterdir(), *cache.glob("*/*"), *cache.glob("*/*/*")]
                if path.name.startswith((".new-", ".download-")) or path.name == "stage"
                or path.suffix == ".unfinished"]
        # An empty image, program or archive would be taken for a whole one for ever.
        for folder in ("sources", "images", "selftests", "initramfs"):
            left += [f"{path} is empty" for path in (cache / folder).rglob("*")
                     if path.is_file() and not path.stat().st_size and path.name != "lock"]
        left += [str(path) for path in self.tmp.iterdir()]
        if self.out.exists():
            left += [str(path) for path in self.out.iterdir()]
        return left


def usable(cache: Path) -> bool:
    """Whether a cache has nothing but logs in it, and an ordinary user can come to it."""
    return not [path for path in cache.iterdir() if path.name != "logs"] \
        and all(path.stat().st_mode & 1 for path in cache.parents)


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Newcomer]:
    if FAST:
        pytest.skip(NOT_FAST)
    debian_tarball_or_skip()
    top = Path(tempfile.mkdtemp(prefix="lab-newcomer-"))
    top.chmod(0o755)
    try:
        cache = cache_dir()
        if not usable(cache):
            cache = top / "cache"
            cache.mkdir()
        yield Newcomer(top, cache)
    finally:
        shutil.rmtree(top)


def debian_tarball_or_skip() -> None:
    """Skip where 6.12 is not to be had here; the cache is not to know what was found out."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_CACHE", folder)
        debian_tarball("6.12")


def wait_for(process: "subprocess.Popen[str]", text: str, seconds: float = 900) -> str:
    """Read what it says up to a line with `text`; returns that."""
    assert process.stdout
    said, end = "", time.monotonic() + seconds
    for line in process.stdout:
        said += line
        if text in line:
            return said
        assert time.monotonic() < end, said
    assert process.stderr
    pytest.fail(f"no {text!r} in\n{said}{process.stderr.read()}")


def errors_of(process: "subprocess.Popen[str]") -> list[str]:
    """Wait for its end; returns its error messages, less what make itself has to say."""
    _out, errors = process.communicate(timeout=PATIENCE)
    return [line for line in errors.splitlines() if not line.startswith("make:")]


def quiet(newcomer: Newcomer) -> None:
    end = time.monotonic() + 10
    while left := newcomer.alive():
        assert time.monotonic() < end, left
        time.sleep(0.1)


@pytest.mark.parametrize("step", [
    "downloading linux-source-6.12", "unpacking linux-source-6.12", "making the variants",
    "building the selftests", "building the vulnerable kernel", "objects"])
def test_ctrl_c_leaves_nothing_half_made(newcomer: Newcomer, step: str) -> None:
    process = newcomer.start("prove")
    wait_for(process, step)
    os.killpg(process.pid, signal.SIGINT)
    assert errors_of(process) == ["interrupted"]
    assert process.returncode != 0
    quiet(newcomer)
    assert newcomer.half_made() == []


@pytest.mark.parametrize("step", ["building the fixed kernel", "booting the vulnerable kernel"])
def test_ctrl_c_later_on(newcomer: Newcomer, step: str) -> None:
    """After the first kernel, which takes minutes."""
    test_ctrl_c_leaves_nothing_half_made(newcomer, step)


@pytest.mark.proof(2)
def test_612_is_proved_from_nothing(newcomer: Newcomer) -> None:
    process = newcomer.start("prove")
    said, errors = process.communicate(timeout=1800)
    print(said, errors)
    assert (newcomer.out / "verdict.json").is_file(), errors
    check_proof(newcomer.out, process.returncode,
                json.loads((newcomer.out / "verdict.json").read_text()))
    quiet(newcomer)
    assert list(newcomer.tmp.iterdir()) == []
    calls = newcomer.calls.read_text()
    # Nothing is to be installed where all is there, and nobody asked for a password.
    assert "download linux-source-6.12" in calls
    assert "install" not in calls and "sudo" not in calls


@pytest.mark.parametrize(("home", "says"), [
    ("/nowhere/at/all", "set LAB_CACHE to a folder you can write to"),
    ("/tmp/John Doe", "has a blank or a colon"),
])
def test_a_home_that_will_not_do(newcomer: Newcomer, home: str, says: str) -> None:
    process = newcomer.start("prove", f"LAB_CACHE={home}")
    errors = errors_of(process)
    assert len(errors) == 1 and errors[0].startswith("error: ") and says in errors[0]
    assert not Path(home).exists()


# ---- a disk that fills up --------------------------------------------------------------------


class Disk:
    """A file system in memory at the cache's place, for the runs of one user, of any size.

    `made` is a cache where all that is built is there already.
    """

    def __init__(self, cache: Path, made: Path) -> None:
        self.cache, self.made = cache, made
        self.holder = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c",
             f"mount -t tmpfs -o size=64M,mode=777 none {cache} && echo ready && exec sleep 3600"],
            text=True, stdout=subprocess.PIPE)
        assert self.holder.stdout and self.holder.stdout.readline() == "ready\n"
        self.enter = ("nsenter", "-t", str(self.holder.pid), "-m",
                      f"--wd={cache.parent / 'a new clone'}", "--")
        self.inside = Path(f"/proc/{self.holder.pid}/root{cache}")

    def resize(self, mib: int) -> None:
        subprocess.run([*self.enter, "mount", "-o", f"remount,size={mib}M", self.cache], check=True)

    def take(self, folder: str) -> None:
        """Have what is made in a step that was tried: a tree less its kernels, or selftests."""
        for path in self.made.glob(f"{folder}/*/*"):
            dest = self.inside / path.relative_to(self.made)
            if not path.name.startswith("obj-") and not dest.exists():
                subprocess.run(["install", "-d", "-o", str(NOBODY), "-g", str(NOBODY),
                                *reversed(dest.parents[:2])], check=True)
                subprocess.run(["cp", "-a", path, dest], check=True)

    def fill(self) -> None:
        """Leave no more than two MiB."""
        space = os.statvfs(self.inside)
        self.resize(((space.f_blocks - space.f_bfree) * space.f_frsize >> 20) + 2)

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


@pytest.fixture(scope="module")
def disk(newcomer: Newcomer) -> Iterator[tuple[Newcomer, Disk]]:
    if not ROOT:
        pytest.skip("needs root, to mount a small file system")
    top = newcomer.top / "small"
    (top / "cache").mkdir(parents=True)
    other = Newcomer(top, top / "cache")
    made = Disk(other.cache, newcomer.cache)
    yield other, made
    made.close()


def check_full(newcomer: Newcomer, small: Disk, process: "subprocess.Popen[str]") -> None:
    errors = errors_of(process)
    assert process.returncode != 0
    # A second line names the log, where there is one.
    assert errors[0].startswith("error: ") and len(errors) <= 2, errors
    assert "free some space, or set LAB_CACHE" in errors[0], errors
    quiet(newcomer)
    assert newcomer.half_made(small.inside) == []


def test_a_disk_that_is_too_small(disk: tuple[Newcomer, Disk]) -> None:
    newcomer, small = disk
    check_full(newcomer, small, newcomer.start("prove", enter=small.enter))


# The step, and what is there before it, as that was tried or is made in other tests.
@pytest.mark.parametrize("step, before", [
    ("downloading linux-source-6.12", ""), ("unpacking linux-source-6.12", ""),
    ("building the selftests", "trees"), ("building the vulnerable kernel", "selftests"),
    ("objects", "")])
def test_a_disk_that_fills_up(disk: tuple[Newcomer, Disk], step: str, before: str) -> None:
    newcomer, small = disk
    small.resize(8192)
    if before:
        small.take(before)
    process = newcomer.start("prove", enter=small.enter)
    wait_for(process, step)
    small.fill()
    check_full(newcomer, small, process)
