# SPDX-License-Identifier: GPL-2.0
"""A guest that is a small Debian with Python, in memory, for what busybox cannot run."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import FULL

from lab import arch
from lab.defect import Machine
from lab.guest import qemu
from lab.trial import Trial

# Of the guest's memory, which all of it is unpacked into, nobody needs these.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info",
            "var/lib/apt", "var/cache", "usr/share/i18n", "usr/lib/x86_64-linux-gnu/gconv")
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LC_ALL=C.UTF-8
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t debugfs none /sys/kernel/debug
mount -t tmpfs none /tmp
ln -s /proc/self/fd/1 /dev/stdout
for word in $(cat /proc/cmdline); do
	case $word in
	lab.tty=*) tty=/dev/${word#*=} ;;
	esac
done
stty -F $tty raw
COMMAND > $tty
sync
echo o > /proc/sysrq-trigger
sleep 60
"""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def needed() -> None:
    """Skip the test where no such guest can be made."""
    if not FULL:
        pytest.skip("with FULL=1: it makes a Debian of its own, and boots it")
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        pytest.skip("needs root, and mmdebstrap")


def initrd(folder: Path, add: Callable[[Path], None], command: str,
           packages: Sequence[str] = ()) -> Path:
    """The file system of a guest that runs `command`, its output to the second serial line.

    `add` is called with the folder of Debian, to put there what the command needs; `packages` are
    what it needs of Debian's.
    """
    root, made = folder / "root", folder / "initrd"
    include = ",".join(("python3", "mount", *packages))
    done = subprocess.run(["mmdebstrap", "--variant=minbase", f"--include={include}", "bookworm",
                           root], text=True, capture_output=True, check=False,
                          stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        pytest.skip(f"mmdebstrap cannot make one here: {done.stderr.strip().splitlines()[-1]}")
    add(root)
    for name in LEFT_OUT:
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "init").write_text(INIT.replace("COMMAND", command))
    (root / "init").chmod(0o755)
    subprocess.run(f"find . -mount | cpio --quiet -o -H newc -R 0:0 | gzip -1 > {made}", cwd=root,
                   shell=True, check=True)
    shutil.rmtree(root)
    return made


def chroot(root: Path, *words: str) -> None:
    """Run a command in the folder of a Debian."""
    subprocess.run(["chroot", root, *words], check=True, capture_output=True,
                   env={**os.environ, "PATH": PATH})


def said(kernel: Trial, file_system: Path, folder: Path, limit: float, words: Sequence[str] = ()
         ) -> str:
    """What the command of a guest wrote, on two nodes of 1 GiB."""
    return said_of(kernel.kernel.image, file_system, folder, limit, words)


def said_of(image: Path, file_system: Path, folder: Path, limit: float, words: Sequence[str] = (),
            cpu: str = "") -> str:
    """The same, of a kernel that the lab has not made; `cpu` is QEMU's name of another one."""
    folder.mkdir(exist_ok=True)
    machine = arch.load()
    if cpu:
        machine = dataclasses.replace(machine, cpu_tcg=cpu)
    guest = qemu.Guest(machine, "tcg", image, file_system, " ".join(words),
                       Machine(nodes=(1024, 1024), dimms=(0, 0)))
    ended = qemu.boot(guest, folder, limit, lambda _log, _ktap: False)
    text = (folder / "ktap.log").read_text("utf-8", "replace")
    assert not ended.timed_out, text[-2000:]
    return text
