# SPDX-License-Identifier: GPL-2.0
"""What the host must have to build and boot kernels; on Debian, installs what is missing."""

import contextlib
import glob
import os
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.arch import Arch
from lab.errors import LabError, NotInstalled
from lab.paths import INSTALLED, new_log
from lab.progress import Progress

OS_RELEASE = Path("/etc/os-release")
LISTS = Path("/var/lib/apt/lists")

# Where programs are that an ordinary user's PATH may lack.
# What apt-get says where dpkg was ended in the middle of something.
_HALF_WAY = "dpkg was interrupted"
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Need:
    """A Debian package, and how to see that what it brings is there."""

    package: str
    commands: tuple[str, ...] = ()  # all of them in PATH
    files: tuple[str, ...] = ()     # each a glob pattern that must match something
    static: str = ""                # a program that must be linked statically


# To build the selftests.
SELFTESTS = (
    Need("gcc", ("gcc", "ld")),
    # Also libc.a: the selftests are static.  Only a recommendation of gcc, so not installed by it.
    Need("libc6-dev", files=("/usr/include/stdio.h", "/usr/lib*/**/libc.a")),
    Need("make", ("make",)),
    Need("xz-utils", ("xz",)),
    Need("util-linux", ("setpriv",)),
    Need("libnuma-dev", files=("/usr/include/numa.h", "/usr/lib*/**/libnuma.a")),
)

# Beyond that to make, boot and judge kernels, of any architecture.
# spatch looks for the library of Python when it comes to a rule in that language, and no package
# that it depends on has it.
_PYTHON = f"libpython3.{sys.version_info.minor}"
COCCINELLE = (Need("coccinelle", ("spatch",)),
              Need(_PYTHON, files=(f"/usr/lib*/**/{_PYTHON}.so*",)))
BUILD = (
    *SELFTESTS,
    Need("flex", ("flex",)),
    Need("bison", ("bison",)),
    Need("bc", ("bc",)),
    Need("perl", ("perl",)),
    Need("libelf-dev", files=("/usr/include/gelf.h",)),
    Need("libssl-dev", files=("/usr/include/openssl/ssl.h",)),
    Need("ccache", ("ccache",)),
    *COCCINELLE,
    Need("git", ("git",)),
    Need("patch", ("patch",)),
    Need("rsync", ("rsync",)),      # the kernel's headers_install
    Need("cpio", ("cpio",)),
    # The guest's shell: the dynamic one of package busybox would need a libc there.
    Need("busybox-static", static="busybox"),
)

# To read the code of a kernel image.
IMAGE = (
    Need("python3-capstone", files=("/usr/lib/python3*/dist-packages/capstone/__init__.py",)),
    Need("python3-pyelftools", files=("/usr/lib/python3*/dist-packages/elftools/__init__.py",)),
    Need("zstd", ("zstd",)),
    Need("lz4", ("lz4",)),
    Need("lzop", ("lzop",)),
)

# To build tests with LTP's build system.
LTP = (
    *SELFTESTS,
    Need("autoconf", ("autoconf", "autoheader")),
    Need("automake", ("automake", "aclocal")),
    Need("m4", ("m4",)),
    Need("pkgconf", ("pkg-config",), ("/usr/share/aclocal/pkg.m4",)),
    Need("git", ("git",)),
)

# To compose the patches of queue/tests/.
SERIES = (Need("unifdef", ("unifdef",)),)

# To spread the matrix over machines; these need rsync, too.
MATRIX = (
    Need("parallel", ("parallel",)),
    Need("openssh-client", ("ssh",)),
    Need("rsync", ("rsync",)),
    Need("git", ("git",)),
)

# Beyond that for the project's own tests.
CHECK = (
    *SERIES,
    *IMAGE,
    # Its tests also want an sshd, and skip without: installed, one would listen on the network.
    *MATRIX,
    Need("spin", ("spin",)),
    Need("python3-pytest", files=("/usr/lib/python3*/dist-packages/pytest",)),
    # Runs them in two processes.
    Need("python3-pytest-xdist", files=("/usr/lib/python3*/dist-packages/xdist",)),
    Need("mypy", ("mypy",)),
    Need("pyflakes3", ("pyflakes3",)),
    # Signs the small archives that the tests of lab/kernel/apt.py read.
    Need("gnupg", ("gpg", "gpgconf")),
    # Looks at the page of make report.
    Need("chromium", ("chromium",)),
    # What make package makes: read, and installed where nothing else is.
    Need("lintian", ("lintian",)),
    Need("man-db", ("man",)),
    Need("rpm", ("rpmbuild",)),
    Need("mmdebstrap", ("mmdebstrap",)),
    # Reads what CI systems are given.
    Need("yamllint", ("yamllint",)),
    # Reads what the patches of a series compile to.
    Need("sparse", ("sparse",)),
    # Looks at a series before it is mailed.  Its --check is in a newer one, which needs no more
    # libraries than these.
    Need("b4", ("b4",)),
    # Reads the plan in the job array of Documentation/matrix.rst.
    Need("jq", ("jq",)),
    # checkpatch.pl loads Term::ANSIColor, which perl-base has not.
    Need("perl", files=("/usr/share/perl/*/Term/ANSIColor.pm",)),
)


# For a guest with that series: also the shell of run_vmtests.sh.
SERIES_GUEST = (*SERIES, Need("bash-static", static="bash-static"))

# To search the model, and to render the documents: nothing else needs these.
MODEL = (Need("spin", ("spin",)), Need("gcc", ("gcc",)))
DOCS = (Need("python3-sphinx", ("sphinx-build",)),)


# What of this is in the guest: of another architecture it is not to be installed here, and is
# unpacked in the cache (lab/kernel/apt.py).
_IN_GUEST = ("libnuma-dev", "busybox-static", "bash-static")


def of(arch: Arch, needs: Sequence[Need]) -> tuple[Need, ...]:
    """What `needs` comes to for `arch`: for another than this machine's, also its compiler."""
    if arch.native:
        return tuple(needs)
    library = f"/usr/{arch.triplet}"
    return (
        *(need for need in needs if need.package not in _IN_GUEST),
        Need(f"gcc-{arch.triplet.replace('_', '-')}", (arch.compiler,)),
        # With libc.a, as the selftests are static.
        Need(f"libc6-dev-{arch.debian}-cross",
             files=(f"{library}/include/stdio.h", f"{library}/lib/libc.a")),
    )


def boot(arch: Arch, more: Sequence[Need] = ()) -> tuple[Need, ...]:
    """What it takes to make kernels of `arch`, and to boot and to judge them, with `more`."""
    return (
        *of(arch, (*BUILD, *more)),
        Need(arch.qemu_package, (arch.qemu,)),
        *([Need(arch.firmware_package, files=(arch.firmware,))] if arch.firmware else []),
    )


def ensure(progress: Progress, needs: Sequence[Need]) -> None:
    """Install what is missing of `needs`; returns at once where nothing is.

    LabError that names what is missing where it cannot be installed: on another distribution than
    Debian and its children, with neither root nor sudo, and where apt-get fails.
    """
    packages = missing(needs)
    if not packages:
        return
    names = " ".join(packages)
    if INSTALLED:
        # Who runs a check on a machine in use does not ask for it to be changed.
        raise NotInstalled(f"not installed: {names}. Install it, on Debian with apt install {names}")
    if not _debian():
        raise LabError(f"this is not Debian, so the lab installs nothing: Debian's {names} "
                       "is missing; install it and run again")
    install = ["install", "-y", "--no-install-recommends", *packages]
    progress.step(f"installing {names}")
    log = new_log("apt-install")
    fresh = not _have_lists()
    if fresh:
        progress.update("package lists")
        _apt_get(["update"], log, progress)
    progress.update("packages")
    if not _apt_get(install, log, progress):
        if _HALF_WAY in log.read_text("utf-8", "replace"):
            raise LabError("a package was installed half-way before: run `dpkg --configure -a` as "
                           "root, and then this again", str(log))
        # Lists that are out of date name packages that the mirror has no longer.
        if fresh or not _apt_get(["update"], log, progress) \
                or not _apt_get(install, log, progress):
            raise LabError(f"apt-get could not install {names}: see its log, or run "
                           f"`{_command(install)}` by hand", str(log))
    if left := missing(needs):
        raise LabError(f"apt-get installed {names}, but this is still missing: {' '.join(left)}",
                       str(log))
    progress.done()


def update_lists(progress: Progress) -> bool:
    """Bring the machine's package lists up to date with apt-get update; False where it fails.

    LabError with the command to run where there is neither root nor sudo.
    """
    progress.step("updating the package lists (apt-get update)")
    good = _apt_get(["update"], new_log("apt-update"), progress)
    progress.done("done" if good else "failed")
    return good


def missing(needs: Sequence[Need]) -> list[str]:
    """The packages of `needs` that are not there."""
    path = os.environ.get("PATH", os.defpath) + ":" + _SBIN
    return list(dict.fromkeys(need.package for need in needs if not _has(need, path)))


def _has(need: Need, path: str) -> bool:
    if not all(shutil.which(command, path=path) for command in need.commands):
        return False
    if not all(_matches(pattern) for pattern in need.files):
        return False
    if need.static:
        program = shutil.which(need.static, path=path)
        return program is not None and is_static(Path(program))
    return True


def _matches(pattern: str) -> bool:
    # "**": directly in the library folder or in one below it, as Debian's multiarch has it.
    if "/**/" in pattern:
        return _matches(pattern.replace("/**/", "/")) or _matches(pattern.replace("**", "*"))
    return next(glob.iglob(pattern), None) is not None


def is_static(program: Path) -> bool:
    """Whether an ELF program needs no loader (has no PT_INTERP among its program headers)."""
    try:
        with open(program, "rb") as handle:
            head = handle.read(64)
            if len(head) < 64 or head[:4] != b"\x7fELF":
                return False
            order = "<" if head[5] == 1 else ">"
            if head[4] == 2:
                start, = struct.unpack_from(f"{order}Q", head, 32)
                size, count = struct.unpack_from(f"{order}HH", head, 54)
            else:
                start, = struct.unpack_from(f"{order}I", head, 28)
                size, count = struct.unpack_from(f"{order}HH", head, 42)
            handle.seek(start)
            table = handle.read(size * count)
        types = [struct.unpack_from(f"{order}I", table, number * size)[0]
                 for number in range(count)]
    except (OSError, struct.error):
        return False
    return 3 not in types


def _debian() -> bool:
    """Debian or a distribution made from it, with apt-get."""
    if not shutil.which("apt-get"):
        return False
    fields = os_release()
    kinds = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split()
    return "debian" in kinds or "ubuntu" in kinds


def os_release() -> dict[str, str]:
    """What the distribution says of itself; nothing where it says nothing."""
    try:
        lines = OS_RELEASE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name: value.strip('"') for name, _equals, value in
            (line.partition("=") for line in lines)}


def _have_lists() -> bool:
    return any(LISTS.glob("*Packages*"))


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["apt-get", *arguments])


def _apt_get(arguments: Sequence[str], log: Path, progress: Progress) -> bool:
    """Run apt-get as root, what it says added to `log`; False where it fails.

    To end dpkg half-way leaves a machine on which no package can be installed any more until
    `dpkg --configure -a` was run.  So a Ctrl-C does not get there, and comes when apt-get is
    through.  Who is told to end by lab/minder.py is let alone if it ignores that.
    """
    # sudo drops the environment, so env comes after it.
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get",
               "-o", "DPkg::Lock::Timeout=300", *arguments]
    rights: list[str] = []
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            raise LabError("apt-get needs root, and there is no sudo: as root, run "
                           f"`{_command(arguments)}`")
        # It asks for the password on the terminal itself, not on the output kept here.
        rights = ["sudo"]
    with open(log, "a", encoding="utf-8") as output:
        output.write(f"+ {shlex.join([*rights, *command])}\n")
        output.flush()
        with subprocess.Popen(
                ["sh", "-c", "trap '' TERM HUP; exec \"$@\"", "sh", *rights, "setsid", "--wait",
                 *command], stdin=None if os.isatty(0) else subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT) as process:
            try:
                return process.wait() == 0
            except KeyboardInterrupt:
                progress.note("ending as soon as apt-get is through: half-way it would leave no "
                              "package system that works")
                _wait(process)
                raise


def _wait(process: "subprocess.Popen[bytes]") -> None:
    """Wait for its end, however often somebody asks to end."""
    while process.returncode is None:
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
