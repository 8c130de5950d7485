# SPDX-License-Identifier: GPL-2.0
"""Makes Debian's kind of package of a tree that is laid out, with dpkg-deb, as any user."""

import email.utils
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from lab.arch import Arch
from lab.binary import objdump
from lab.errors import LabError
from lab.pack import manual, stage
from lab.paths import REPO

_OVERRIDES = Path("usr/share/lintian/overrides") / stage.NAME

# For a source: spatch, which needs the library of Python and does not depend on it.  And for images
# that are packed so.
RECOMMENDS = "coccinelle, libpython3.11 | libpython3-dev, zstd, lz4, lzop"
# Those of an architecture that Capstone does not know.
SUGGESTS = objdump.PACKAGE

_CONTROL = """\
Package: {name}
Version: {version}
Architecture: {arch}
Maintainer: {maintainer}
Installed-Size: {size}
Depends: {depends}
Recommends: {recommends}
Suggests: {suggests}
{built}Section: kernel
Priority: optional
Description: {description}
"""


def there() -> bool:
    """Whether this machine can make such packages."""
    return shutil.which("dpkg-deb") is not None


def make(top: Path, release: stage.Release, arch: Arch, depends: str, folder: Path) -> Path:
    """Pack the tree `top`, which gets a few files more, into a file in `folder`."""
    overrides = top / _OVERRIDES
    overrides.parent.mkdir(parents=True, exist_ok=True)
    overrides.write_text((manual.PAGES / "lintian-overrides").read_text(encoding="utf-8"),
                         encoding="utf-8")
    stage.compress(top / stage.DOC / "changelog.gz", _changelog(release))
    paths = stage.files(top)
    control = top / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(_CONTROL.format(
        name=stage.NAME, version=release.version, arch=arch.debian, maintainer=maintainer(),
        size=stage.size(top, paths), depends=depends,
        recommends=RECOMMENDS, suggests=SUGGESTS, built=_built_using(arch),
        description=_description()), encoding="utf-8")
    (control / "md5sums").write_text("".join(
        f"{hashlib.md5((top / path).read_bytes(), usedforsecurity=False).hexdigest()}  {path}\n"
        for path in paths), encoding="utf-8")
    for path in (*control.iterdir(), control, overrides, overrides.parent, top / stage.DOC,
                 top / stage.DOC / "changelog.gz", top / "usr/share/lintian", top / "usr/share",
                 top):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (release.time, release.time))
    dest = folder / f"{stage.NAME}_{release.version}_{arch.debian}.deb"
    # How xz cuts a file into blocks depends on the number of its threads.
    words = ["dpkg-deb", "--root-owner-group", "--threads-max=1", "--build", str(top), str(dest)]
    done = subprocess.run(words, text=True, capture_output=True, check=False,
                          env={**os.environ, "SOURCE_DATE_EPOCH": str(release.time)})
    shutil.rmtree(control)
    if done.returncode != 0:
        raise LabError(f"dpkg-deb failed: {(done.stderr.strip().splitlines() or ['?'])[0]}")
    return dest


def maintainer() -> str:
    """Whom MAINTAINERS names for the lab: a list."""
    text = (REPO / "MAINTAINERS").read_text(encoding="utf-8")
    entry = text.partition("\nLAB\n")[2]
    return f"Page migration lab <{entry.partition('L:')[2].split()[0]}>"


def _description() -> str:
    text = (manual.PAGES / "description").read_text(encoding="utf-8").strip()
    first, _blank, rest = text.partition("\n\n")
    return "\n".join([first, *(f" {line or '.'}" for line in rest.splitlines())])


def _changelog(release: stage.Release) -> str:
    what = f"Commit {release.commit}." if release.commit else "From a tree without git."
    return (f"{stage.NAME} ({release.version}) unstable; urgency=medium\n\n  * {what}\n\n"
            f" -- {maintainer()}  {email.utils.formatdate(release.time)}\n")


def _built_using(arch: Arch) -> str:
    """The field that says whose code the static programs hold; "" where that is not known."""
    # libnuma of another architecture is not installed, but unpacked from its package.
    static = ("libc6-dev", "libnuma-dev") if arch.native else (f"libc6-dev-{arch.debian}-cross",)
    said = [subprocess.run(["dpkg-query", "-W", "-f", "${source:Package} (= ${source:Version})",
                            package], text=True, capture_output=True, check=False)
            for package in static] if shutil.which("dpkg-query") else []
    sources = [one.stdout for one in said if one.returncode == 0 and one.stdout]
    return f"Built-Using: {', '.join(sources)}\n" if sources else ""
