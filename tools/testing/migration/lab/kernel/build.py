# SPDX-License-Identifier: GPL-2.0
"""Builds a kernel image, once: images are kept by everything that goes into them.

Where the cache has no image, the source's work tree is put into the variant and make builds in a
folder beside it, one per architecture and configuration, so that the second variant of a source
costs only what differs.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.arch import Arch
from lab.errors import LabError, NotBuilt
from lab.kernel import kconfig, variant as variants
from lab.kernel.source import Source
from lab.kernel.variant import Variant
from lab.paths import atomic_dir, cache_dir, disk_full, have, is_full, need_space, new_log
from lab.progress import Progress

# Objects of a kernel with base.config, for the first build of a base on a machine: 989 in 6.12.
_FIRST_GUESS = 990
# Work folder, ccache and image of one configuration take 0.3 GiB, with KASAN 0.6 GiB.
_NEEDED_MIB = 1024
# What a folder of the cache has for each image.
_HOLDS = ("image", "config", "identity.json")
# How long make may take to remove half-made files after it was told to stop, in seconds.
_STOP_SECONDS = 15

_OBJECT = re.compile(r"\s+(?:CC|AS)\s")
_FAILURES = (
    re.compile(r"No space left on device"),
    re.compile(r"(?:fatal )?error:|undefined reference"),
    re.compile(r"\*\*\*.*\w"),
)


@dataclass(frozen=True)
class Kernel:
    """A kernel image in the cache."""

    image: Path
    config: Path
    identity: dict[str, str]    # what it was built from, and hashes of what came out
    cached: bool                # it was there before
    seconds: float              # what it cost this time


def kernel(source: Source, variant: Variant, arch: Arch, debug: bool,
           progress: Progress, options: tuple[str, ...] = ()) -> Kernel:
    """The image of `variant` of `source`, from the cache or built now.

    `options` are .config lines beyond those that all kernels have.
    LabError with the compiler's first error and the path of the log where it cannot be built.
    """
    began = time.monotonic()
    what = f"the {variant.name} kernel {source.version}" + (" (debug)" if debug else "")
    progress.step(f"building {what}")
    compiler = _compiler(arch)
    asked = kconfig.request(source.base, arch, source.tree, debug, options)
    key = _hash(source.key, variant.key, asked.text, arch.name, str(debug), compiler,
                source.base.cflags, kconfig.WRAPPER)
    folder = cache_dir() / "images" / key

    if not have(folder, _HOLDS):
        with source.kept.lock(progress):
            if not have(folder, _HOLDS):
                # A folder for each configuration: to and fro in one would build it anew each time.
                suffix = arch.name + ("-debug" if debug else "") \
                    + (f"-{_hash(*options)[:8]}" if options else "")
                _build(source, variant, arch, debug, asked, compiler, suffix, folder, progress)
                progress.done()
                return _kernel(folder, False, began)
    progress.done("from the cache")
    return _kernel(folder, True, began)


def _kernel(folder: Path, cached: bool, began: float) -> Kernel:
    identity: dict[str, str] = json.loads((folder / "identity.json").read_text("utf-8"))
    return Kernel(folder / "image", folder / "config", identity, cached,
                  time.monotonic() - began)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:20]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compiler(arch: Arch) -> str:
    """The compiler's own version line; LabError where there is none."""
    try:
        done = subprocess.run([arch.compiler, "--version"], env=kconfig.environment(), text=True,
                              capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as err:
        raise LabError(f"no compiler {arch.compiler} for {arch.name}: install it") from err
    return done.stdout.splitlines()[0]


def _build(source: Source, variant: Variant, arch: Arch, debug: bool, asked: kconfig.Request,
           compiler: str, suffix: str, folder: Path, progress: Progress) -> None:
    """Build into the cache folder `folder`.  Call it under the lock of the work tree.

    `suffix` names the build folder beside the tree, and the log.
    """
    need_space(source.tree.parent, _NEEDED_MIB, "building a kernel")
    obj = source.tree.parent / f"obj-{suffix}"
    log = new_log(f"build-{source.version}-{variant.name}-{suffix}")

    with _trusted(obj) as lock:
        variants.put(source, variant)
        progress.update("configuring")
        kconfig.make(source, obj, asked, arch, log)
        whole = not (obj / "vmlinux").exists()
        counts = cache_dir() / "objects" / f"{source.base.name}-{suffix}"
        made = _make(source, arch, obj, log, lock,
                     _expected(counts) if whole else None, progress)
        if whole:
            counts.parent.mkdir(exist_ok=True)
            counts.write_text(f"{made}\n", encoding="ascii")

    config = obj / ".config"
    if not have(obj, (arch.image,)):
        raise LabError(f"make ended with success and made no {obj / arch.image}", str(log))
    with atomic_dir(folder, _HOLDS) as new:
        shutil.copyfile(obj / arch.image, new / "image")
        shutil.copyfile(config, new / "config")
        identity = {
            **source.identity,
            "variant": variant.name,
            "how": variant.how,
            "places": "; ".join(variant.places),
            "diff_sha256": hashlib.sha256(
                variant.diff.encode("utf-8", "surrogateescape")).hexdigest(),
            "arch": arch.name,
            "debug": "yes" if debug else "no",
            "options_left_out": " ".join(asked.unknown),
            "compiler": compiler,
            "cflags": source.base.cflags,
            "config_sha256": _sha256(new / "config"),
            "image_sha256": _sha256(new / "image"),
        }
        (new / "identity.json").write_text(json.dumps(identity, indent=2) + "\n", "utf-8")


@contextlib.contextmanager
def _trusted(obj: Path) -> Iterator[int]:
    """A build folder whose objects can be trusted, and the file that says who is at work in it.

    Two things can go wrong when a run is killed with no chance to stop its make.  A compiler may
    live on, and finish an object of the old variant after the new one was put into the tree: so
    make and all its children hold a lock, through a file that they inherit, and the next run waits
    for the last of them.  And an object may be half written: so a mark stays behind, and the next
    run begins with an empty folder (ccache has most of it).
    """
    obj.parent.mkdir(parents=True, exist_ok=True)
    mark = obj.parent / f"{obj.name}.unfinished"
    with open(obj.parent / f"{obj.name}.lock", "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists():
            shutil.rmtree(obj, ignore_errors=True)
        mark.touch()
        try:
            yield lock.fileno()
        except BaseException:
            # make has come to an end, and removed what was half made.
            mark.unlink()
            raise
        finally:
            shutil.rmtree(obj / kconfig.TEMPORARY, ignore_errors=True)
        mark.unlink()


def _expected(counts: Path) -> str:
    """How many objects a build from nothing makes, as words."""
    try:
        return str(int(counts.read_text("ascii")))
    except (FileNotFoundError, ValueError):
        return f"about {_FIRST_GUESS}"


def _make(source: Source, arch: Arch, obj: Path, log: Path, lock: int, expected: str | None,
          progress: Progress) -> int:
    """Run make to its end and count the objects it makes.

    `expected` is None for an incremental build, of which nobody knows how many objects it needs.
    """
    command = [*kconfig.make_command(source, arch, obj), f"-j{os.cpu_count() or 1}", arch.target]
    made = 0
    with open(log, "a", encoding="utf-8") as output:
        output.write(f"+ {' '.join(command)}\n")
        # A process group of its own, so that all of it can be stopped; and should this process be
        # killed, setpriv has the kernel tell make.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command], cwd=obj, env=kconfig.environment(obj),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace", process_group=0, pass_fds=(lock,))
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.write(line)
                if _OBJECT.match(line):
                    made += 1
                    progress.update(f"{made} of {expected} objects" if expected
                                    else f"{made} objects")
            status = process.wait()
        except BaseException:
            _stop(process, obj)
            raise
    if status != 0:
        if is_full(obj):
            raise disk_full(obj.parent)
        raise NotBuilt(f"the kernel could not be built: {first_error(log)}", str(log))
    return made


def _stop(process: subprocess.Popen[str], obj: Path) -> None:
    """End make and its children; returns when make is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        # Read on: a make that waits for room in the pipe never ends.
        process.communicate(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(obj, ignore_errors=True)      # it had no chance to clean up


def first_error(log: Path) -> str:
    """The line of a build log that says what went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for pattern in _FAILURES:
        for line in lines:
            if pattern.search(line):
                return line.strip()
    return lines[-1].strip() if lines else "make said nothing"
