#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Fetches kernels that Debian has built, for binary_truth.py --debian.

    LAB_CACHE=... tests/debian_images.py DIR [SUITE...]

Of each suite, each architecture and each flavour (also those for clouds and for real time) the
newest package is downloaded, as an ordinary user and with signatures checked.  DIR gets its image
and its .config; of the rest, which is 500 MB a package, nothing is kept.
"""

import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab import arch, base                  # noqa: E402
from lab.errors import LabError             # noqa: E402
from lab.kernel import apt                  # noqa: E402
from lab.progress import Progress           # noqa: E402

SUITES = ("bullseye-security", "bookworm-security", "trixie", "trixie-backports")
FLAVOURS = ("{}", "cloud-{}", "rt-{}")


def newest(meta: str, suite: str, architecture: str, progress: Progress) -> str | None:
    """The package that a meta package depends on, as linux-image-6.1.0-56-amd64."""
    row = base.Base(f"{suite}-{architecture}", suites=(suite,))
    options = apt._private(row, progress, architecture)
    said = apt._run(["apt-cache", *options, "show", "--no-all-versions", meta]).stdout
    match = re.search(r"(?m)^Depends: (linux-image-\d\S+)", said)
    return match[1] if match else None


def fetch(folder: Path, suite: str, one: arch.Arch, flavour: str, progress: Progress) -> str:
    """What came of one of them, in words."""
    meta = f"linux-image-{flavour.format(one.debian)}"
    package = newest(meta, suite, one.debian, progress)
    if package is None:
        return f"{suite} has no {meta}"
    if any(folder.glob(f"vmlinu*-{package.removeprefix('linux-image-')}")):
        return f"{package} is there"
    files = apt.unpacked(package, one, progress, suite)
    try:
        for name in ("vmlinu?-*", "config-*"):
            for file in (files / "boot").glob(name):
                shutil.copyfile(file, folder / file.name)
    finally:
        shutil.rmtree(files)
    return f"{package} of {suite}"


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__.split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    progress, failed = Progress(), False
    for suite in sys.argv[2:] or SUITES:
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
