# SPDX-License-Identifier: GPL-2.0
"""pmd-share-test, as the package has it, in a guest that is a small Debian.

With FULL=1: it makes a Debian of its own, and boots it with the fixed kernel.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import FULL, debian_tree, make

from lab import arch
from lab.defect import Machine
from lab.guest import qemu
from lab.judge import ktap
from lab.trial import Trial

HERE = Path(__file__).resolve().parent
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
/usr/bin/python3 -B /hosttest_guest.py > $tty
sync
echo o > /proc/sysrq-trigger
sleep 60
"""
LIMIT = 900.0


def file_system(folder: Path) -> Path:
    """An initrd of Debian with the package."""
    done = make("package", f"O={folder}/package")
    assert done.returncode == 0, done.stderr
    [package] = (folder / "package").glob("*.deb")
    root = folder / "root"
    made = subprocess.run(["mmdebstrap", "--variant=minbase", "--include=python3,mount", "bookworm",
                           root], text=True, capture_output=True, check=False,
                          stdin=subprocess.DEVNULL)
    if made.returncode != 0:
        pytest.skip(f"mmdebstrap cannot make one here: {made.stderr.strip().splitlines()[-1]}")
    # Coccinelle is for the audit alone.
    shutil.copy(package, root / "one.deb")
    subprocess.run(["chroot", root, "dpkg", "--force-depends", "-i", "/one.deb"], check=True,
                   capture_output=True, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    for name in ("one.deb", *LEFT_OUT):
        shutil.rmtree(root / name) if (root / name).is_dir() else \
            (root / name).unlink(missing_ok=True)
    shutil.copy(HERE / "hosttest_guest.py", root)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    initrd = folder / "initrd"
    subprocess.run("find . -mount | cpio --quiet -o -H newc -R 0:0 | gzip -1 > ../initrd", cwd=root,
                   shell=True, check=True)
    shutil.rmtree(root)
    return initrd


@pytest.mark.slow
def test_the_machine_is_as_it_was_however_it_ends(request: pytest.FixtureRequest, tmp_path: Path
                                                  ) -> None:
    if not FULL:
        pytest.skip("with FULL=1: it makes a Debian of its own, and boots it")
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        pytest.skip("needs root, and mmdebstrap")
    debian_tree("6.12")
    fixed: Trial = request.getfixturevalue("fixed")
    guest = qemu.Guest(arch.load(), "tcg", fixed.kernel.image, file_system(tmp_path), "",
                       Machine(nodes=(1024, 1024), dimms=(0, 0)))
    ended = qemu.boot(guest, tmp_path, LIMIT, lambda _log, _ktap: False)
    said = ktap.read((tmp_path / "ktap.log").read_text("utf-8", "replace"))
    assert not ended.timed_out and said.done, (tmp_path / "ktap.log").read_text()[-2000:]
    assert said.problems() == []
    assert {test.name: test.reason for test in said.tests() if test.outcome != "pass"} == {}
    assert len(said.tests()) == 9
