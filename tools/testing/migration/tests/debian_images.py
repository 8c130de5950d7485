#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Fetches kernels that Debian has built, for binary_truth.py --debian.

    LAB_CACHE=... tests/debian_images.py DIR [SUITE...]

Of each suite, each architecture and each flavour (also those for clouds and for real time) the
newest package is downloaded, as an ordinary user and with signatures checked.  DIR gets its image
and its .config; of the rest, which is 500 MB a package, nothing is kept.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab import arch                        # noqa: E402
from lab.errors import LabError             # noqa: E402
from lab.kernel import apt                  # noqa: E402
from lab.progress import Progress           # noqa: E402

SUITES = ("bullseye-security", "bookworm-security", "trixie", "trixie-backports")
FLAVOURS = ("{}", "cloud-{}", "rt-{}")


def fetch(folder: Path, suite: str, one: arch.Arch, flavour: str, progress: Progress) -> str:
    """What came of one of them, in words."""
    meta = f"linux-image-{flavour.format(one.debian)}"
    # Such a package depends on the newest kernel: linux-image-6.1.0-56-amd64.
    package = next((name for name in apt.dependencies(meta, one.debian, suite, progress)
                    if re.match(r"linux-image-\d", name)), None)
    if package is None:
        return f"{suite} has no {meta}"
    if any(folder.glob(f"vmlinu?-{package.removeprefix('linux-image-')}")):
        return f"{package} is there"
    # Since 7.0 image and .config are in packages of their own, and not in /boot.
    parts = [name for name in apt.dependencies(package, one.debian, suite, progress)
             if re.match(r"linux-(binary|base)-\d", name)]
    version = package.removeprefix("linux-image-")
    for part in [package, *parts]:
        files = apt.unpacked(part, one, progress, suite)
        try:
            for file in (*(files / "boot").glob("*"), *files.glob("usr/lib/modules/*/*")):
                name = file.name.removesuffix(f"-{version}")
                if name in ("vmlinux", "vmlinuz", "config"):
                    shutil.copyfile(file, folder / f"{name}-{version}")
        finally:
            shutil.rmtree(files)
    if not any(folder.glob(f"vmlinu?-{version}")):
        raise LabError(f"{package} of {suite} has no image")
    return f"{package} of {suite}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to keep them")
    parser.add_argument("suites", metavar="SUITE", nargs="*", help="of Debian; default: "
                        + " ".join(SUITES))
    args = parser.parse_args()
    folder: Path = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    progress, failed = Progress(), False
    for suite in args.suites or SUITES:
        for one in map(arch.load, arch.names()):
            for flavour in FLAVOURS:
                try:
                    print(fetch(folder, suite, one, flavour, progress), flush=True)
                except LabError as err:
                    failed = True
                    print(f"not had: {err}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
