# SPDX-License-Identifier: GPL-2.0
"""Makes the rpm kind of package of a tree that is laid out, with rpmbuild, as any user."""

import os
import shutil
import subprocess
from pathlib import Path

from lab.arch import Arch
from lab.errors import LabError
from lab.pack import manual, stage
from lab.paths import new_log, scratch_dir

_SPEC = """\
Name: {name}
Version: {version}
Release: 1
Summary: {summary}
License: GPL-2.0-only
{requires}{recommends}AutoReqProv: no

%description
{text}

%install
cp -a "{top}/." "%{{buildroot}}/"

%files
%defattr(-, root, root)
{files}
"""

# As deb.RECOMMENDS.
_RECOMMENDS = ("coccinelle", "python3-libs", "zstd", "lz4", "lzop")

# Nothing is done to what is laid out, and nothing of the machine or the hour goes into the package.
_DEFINES = {
    "__os_install_post": "%{nil}", "debug_package": "%{nil}", "_build_id_links": "none",
    "_buildhost": "reproducible", "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1", "source_date_epoch_from_changelog": "0",
    # With one thread, as dpkg-deb; any rpm that is in use can read it.
    "_binary_payload": "w6.xzdio",
}


def there() -> bool:
    """Whether this machine can make such packages."""
    return shutil.which("rpmbuild") is not None


def make(top: Path, release: stage.Release, arch: Arch, requires: tuple[str, ...], folder: Path
         ) -> Path:
    """Pack the tree `top` into a file in `folder`."""
    text = (manual.PAGES / "description").read_text(encoding="utf-8").strip()
    summary, _blank, rest = text.partition("\n\n")
    log = new_log("rpmbuild")
    with scratch_dir("lab-rpm-") as work:
        spec = work / f"{stage.NAME}.spec"
        spec.write_text(_SPEC.format(
            name=stage.NAME, version=release.version, summary=summary, text=rest, top=top,
            requires="".join(f"Requires: {one}\n" for one in requires),
            recommends="".join(f"Recommends: {one}\n" for one in _RECOMMENDS),
            files="\n".join(_listed(top))), encoding="utf-8")
        words = ["rpmbuild", "-bb", "--target", arch.machine_name,
                 "--define", f"_topdir {work}",
                 *(word for name, value in _DEFINES.items()
                   for word in ("--define", f"{name} {value}")), str(spec)]
        with open(log, "w", encoding="utf-8") as output:
            # Its macros in the home folder are the user's own matter, not the package's.
            done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, check=False,
                                  stdin=subprocess.DEVNULL,
                                  env={**os.environ, "LC_ALL": "C", "HOME": str(work),
                                       "SOURCE_DATE_EPOCH": str(release.time)})
        made = sorted(work.glob("RPMS/*/*.rpm"))
        if done.returncode != 0 or len(made) != 1:
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise LabError(
                "rpmbuild failed: " + next((line for line in said if "error:" in line),
                                           "see its log"), str(log))
        dest = folder / made[0].name
        shutil.copyfile(made[0], dest)
    return dest


def _listed(top: Path) -> list[str]:
    """The lines of %files: our own folders, and files in those of others."""
    own = (stage.SHARE, stage.SELFTESTS, stage.DOC)
    return [f"/{path}" for path in own] + [
        f"/{path}" for path in stage.files(top)
        if not any(path.is_relative_to(folder) for folder in own)]
