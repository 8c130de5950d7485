# SPDX-License-Identifier: GPL-2.0
"""Finds the kernel that runs, and what livepatch has put in place of its functions.

A file in /boot is that kernel only if its build id is the running one's (or its banner is, where
one of the two has no build id): after an update /boot has a newer one under the same name.  Where
no file is, it is read out of memory, which takes root.
"""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.binary import core, elf
from lab.binary.image import Image
from lab.binary.load import load
from lab.errors import LabError


@dataclass(frozen=True)
class Livepatch:
    """A function that a livepatch module replaces."""

    module: str
    object: str         # "vmlinux", or the module whose function it is
    function: str
    enabled: bool


@dataclass(frozen=True)
class Running:
    """The kernel that runs."""

    banner: str
    build_id: str       # "" where the kernel does not say


def running(root: Path = Path("/")) -> Running:
    """What the running kernel says of itself; `root` is where /proc and /sys are."""
    try:
        banner = (root / "proc/version").read_text(encoding="latin-1").strip()
    except OSError as err:
        raise LabError(f"/proc/version cannot be read ({err.strerror}): mount /proc") from err
    if not re.match(r"Linux version \S+ ", banner):
        raise LabError("/proc/version does not say which Linux runs: name the image with IMAGE=")
    try:
        notes = (root / "sys/kernel/notes").read_bytes()
    except OSError:
        notes = b""
    return Running(banner, elf.build_id(notes))


def image(root: Path = Path("/")) -> Image:
    """The image that was booted, or what is in memory.

    LabError where neither can be read: it says what each of the files looked at is.
    """
    now = running(root)
    others = []
    for path in _candidates(root, now.banner.split()[2]):
        try:
            one = load(path)
        except LabError as err:
            others.append(str(err))
            continue
        if why := differs(one, now):
            others.append(why)
        else:
            return one
    said = "; ".join(others) if others else "no file of it is in /boot or /lib/modules"
    why = f"no image of the kernel that runs ({now.banner.split()[2]}) was found: {said}; " \
          "name it with IMAGE="
    try:
        return core.read(root, now.banner, now.build_id, why)
    except LabError as err:
        raise LabError(f"{why}; and {err}") from err


def differs(one: Image, now: Running) -> str:
    """Why an image is not the kernel that runs; "" where it is."""
    if is_of(now, one.banner, one.build_id):
        return ""
    if one.build_id and now.build_id:
        return (f"{one.path} is not the kernel that runs: its build id is {one.build_id[:12]}, "
                f"and that of the running one {now.build_id[:12]}")
    return (f"{one.path} is not the kernel that runs: it is {one.banner!r}, and what runs is "
            f"{now.banner!r}")


def is_of(now: Running, banner: str, build_id: str) -> bool:
    """Whether what says this of itself is the kernel that runs."""
    return build_id == now.build_id if build_id and now.build_id else banner == now.banner


def _candidates(root: Path, release: str) -> Iterator[Path]:
    try:
        command_line = (root / "proc/cmdline").read_text(encoding="latin-1")
    except OSError:
        command_line = ""
    names = []
    if named := re.search(r"(?:^|\s)BOOT_IMAGE=(\S+)", command_line):
        # GRUB names the disk before it, and the path on the file system that /boot may be.
        booted = re.sub(r"^\([^)]*\)", "", named[1]).lstrip("/")
        names += [booted, f"boot/{booted}"]
    names += [f"boot/vmlinuz-{release}", f"boot/vmlinux-{release}", f"boot/Image-{release}",
              f"boot/kernel-{release}", f"lib/modules/{release}/vmlinuz",
              f"usr/lib/modules/{release}/vmlinuz", f"lib/modules/{release}/build/vmlinux",
              f"usr/lib/debug/boot/vmlinux-{release}", "boot/vmlinuz", "boot/bzImage", "boot/Image"]
    # A kernel in an EFI program may have any name.
    paths = [root / name for name in names]
    paths += sorted(Path(path) for folder in ("efi", "boot/efi", "boot")
                    for path in glob.glob(f"{root / folder}/EFI/Linux/*.efi"))
    seen = set()
    for path in paths:
        real = os.path.realpath(path)
        # Where a folder may not be entered, what is in it is no file.
        if os.path.isfile(path) and real not in seen:
            seen.add(real)
            yield path


def livepatches(root: Path = Path("/")) -> list[Livepatch]:
    """The functions that livepatch modules replace: what an image says of them does not count."""
    found = []
    for patch in sorted((root / "sys/kernel/livepatch").glob("*")):
        try:
            enabled = (patch / "enabled").read_text(encoding="ascii").strip() != "0"
        except OSError:
            # Gone in the meantime, or not to be read: then it is taken to be there.
            enabled = True
        for function in sorted(patch.glob("*/*,*")):
            found.append(Livepatch(patch.name, function.parent.name,
                                   function.name.rpartition(",")[0], enabled))
    return found
