# SPDX-License-Identifier: GPL-2.0
"""Gets Debian's kernel source packages, and packages of other architectures, as any user.

A base's suites are either the machine's own, or others, for which the lab has an apt configuration
of its own in the cache: own sources, lists and pins, Debian's keyring, nothing of the machine's
changed.  So it is for an architecture that is not the machine's, of which nothing is installed: a
package is unpacked in the cache.  The mirror is the one that the machine uses.  Signatures are always checked: apt compares
a package with the signed list, and what is in the cache was put there whole by a rename.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cmp_to_key
from pathlib import Path

from lab import deps
from lab.arch import Arch
from lab.base import Base
from lab.errors import LabError, NoSource
from lab.paths import cache_dir, disk_full, is_full, locked, need_space, scratch_dir
from lab.progress import Progress

USR_SRC = Path("/usr/src")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# A package, what is unpacked of it, and room to spare.
_NEEDED_MIB = 600
# How old the private lists may be, in seconds: point releases come every few weeks.
_LISTS_AGE = 24 * 3600
# Suites that any Debian machine may name instead of its release's code name.
_ALIASES = {"stable", "oldstable", "oldoldstable", "testing", "unstable", "sid"}
# Whatever the machine's own configuration says.
_SAFE = ("-o", "APT::Get::AllowUnauthenticated=false", "-o",
         "Acquire::AllowInsecureRepositories=false", "-o",
         "Acquire::AllowWeakRepositories=false")


@dataclass(frozen=True)
class Mirror:
    """An address in the machine's apt sources that has a suite of Debian itself."""

    uri: str
    security: bool


def source_package(base: Base, progress: Progress) -> tuple[Path, str]:
    """linux-source-X.Y.tar.xz of `base`, and the exact version of its Debian package.

    Taken from /usr/src or the cache where the version that apt would install is there, downloaded
    else.  Where apt has no answer, the newest that is there is used, and a note says so.
    NoSource where there is none at all.
    """
    if base.package is None:
        raise NoSource(f"Debian has no source package for {base.name}: name a kernel tree with "
                       "KERNEL=/path/to/tree")
    folder = cache_dir() / "sources"
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock", lambda: progress.note("another run gets sources: waiting")):
        return _source_package(base, base.package, folder, progress)


def _source_package(base: Base, package: str, folder: Path,
                    progress: Progress) -> tuple[Path, str]:
    have = _cached(package, folder) | _installed(package)
    try:
        options = _private(base, progress) if base.suites else []
        version = _candidate(package, options)
        fresh = False
        if version is None and not have:
            # As on a new machine, whose lists are empty.
            fresh = _refresh(base, progress)
            version = _candidate(package, options)
        if version is None:
            raise NoSource(f"apt knows no package {package}: add a suite that has it to the apt "
                           "sources and run `apt-get update`, or name a kernel tree with "
                           "KERNEL=/path/to/tree")
        if version in have:
            return have[version], version
        failed = _download(package, version, options, folder, progress)
        if failed and not fresh and _refresh(base, progress):
            # The lists named a package that a newer one has taken the place of.
            version = _candidate(package, options) or version
            failed = _download(package, version, options, folder, progress)
        if "No space left" in failed or "enough free space" in failed:
            raise disk_full(folder)
        if failed:
            raise NoSource(f"{package} {version} could not be downloaded: {failed}")
        return _tarball(package, version, folder), version
    except LabError as err:
        if not have:
            raise
        newest = max(have, key=cmp_to_key(_compare))
        progress.note(f"{err}; using {package} {newest}, which is here already")
        return have[newest], newest


def _refresh(base: Base, progress: Progress) -> bool:
    """Read the lists of `base`'s suites anew; False where that fails."""
    if not base.suites:
        return deps.update_lists(progress)
    _stamp(base).unlink(missing_ok=True)
    _private(base, progress)
    return True


def unpacked(package: str, arch: Arch, progress: Progress, suite: str = "") -> Path:
    """The folder that holds the files of a binary package of another architecture, or of another
    release, `suite`: from the cache, or downloaded and unpacked now.

    NoSource where there is no such package, and where this machine is no Debian.
    """
    architecture = arch.debian
    home = cache_dir() / "foreign" / (f"{suite}-{architecture}" if suite else architecture)
    dest = home / package
    with locked(home / "lock", lambda: progress.note("another run gets packages: waiting")):
        if dest.is_dir():
            return dest
        release = deps.os_release().get("VERSION_CODENAME", "")
        if not release:
            raise NoSource(f"this is no Debian, so Debian's {package} of {architecture} cannot be "
                           "had here")
        release = suite or arch.suite or release
        options = _private(Base(f"{release}-{architecture}", suites=(release,)), progress,
                           architecture)
        version = _candidate(package, options)
        if version is None:
            raise NoSource(f"{release} has no package {package} for {architecture}")
        progress.step(f"downloading {package} {version} for {architecture}")
        need_space(home, _NEEDED_MIB, f"downloading {package}")
        with _scratch(home) as new:
            command = ["apt-get", *options, *_SAFE, "download", f"{package}={version}"]
            if failed := _watched(command, new, _size(package, version, options), progress):
                progress.done("failed")
                raise NoSource(f"{package} of {architecture} could not be downloaded: {failed}")
            files = new / "files"
            for found in new.glob("*.deb"):
                said = _run(["dpkg-deb", "-x", str(found), str(files)])
                if said.returncode != 0:
                    raise LabError(f"{found.name} could not be unpacked ({_error(said.stderr)}): "
                                   "run again")
            if not files.is_dir():
                raise LabError(f"apt-get download {package}={version} left no package")
            files.rename(dest)
        progress.done()
    return dest


def dependencies(package: str, architecture: str, suite: str, progress: Progress) -> list[str]:
    """What the newest `package` of a suite depends on, without versions; [] where there is none.

    `architecture` is Debian's name.  NoSource where this machine is no Debian.
    """
    options = _private(Base(f"{suite}-{architecture}", suites=(suite,)), progress, architecture)
    said = _run(["apt-cache", *options, "show", "--no-all-versions", package])
    found = re.search(r"(?m)^Depends: (.*)$", said.stdout)
    return [part.split()[0] for group in (found[1].split(",") if found else ())
            for part in group.split("|")]


# ---- what is there already -----------------------------------------------------------------


def _cached(package: str, folder: Path) -> dict[str, Path]:
    """The tarballs in the cache by version."""
    return {path.name.removeprefix(f"{package}_").removesuffix(".tar.xz"): path
            for path in folder.glob(f"{package}_*.tar.xz")}


def _tarball(package: str, version: str, folder: Path) -> Path:
    """The place of a tarball in the cache."""
    return folder / f"{package}_{version}.tar.xz"


def _installed(package: str) -> dict[str, Path]:
    """The tarball of the installed package, where there is one."""
    path = USR_SRC / f"{package}.tar.xz"
    said = _run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package])
    status, _space, version = said.stdout.partition(" ")
    if said.returncode != 0 or status != "installed" or not path.is_file():
        return {}
    return {version: path}


def _compare(one: str, other: str) -> int:
    if one == other:
        return 0
    return 1 if _run(["dpkg", "--compare-versions", one, "gt", other]).returncode == 0 else -1


# ---- apt -----------------------------------------------------------------------------------


def _run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, capture_output=True,
                              check=False)
    except FileNotFoundError as err:
        raise NoSource(f"{command[0]} is not here, so this is no Debian: name a kernel tree with "
                       "KERNEL=/path/to/tree") from err


def _error(said: str) -> str:
    """The first line of what apt said that tells why it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for mark in ("E: ", "Err:", "W: ") for line in lines
                 if line.startswith(mark)), lines[-1] if lines else "it said nothing")


def _candidate(package: str, options: list[str]) -> str | None:
    """The version of `package` that apt would install; None where it knows none."""
    said = _run(["apt-cache", *options, "policy", package])
    found = re.search(r"^\s*Candidate:\s*(\S+)", said.stdout, re.M)
    return found[1] if found and found[1] != "(none)" else None


def _size(package: str, version: str, options: list[str]) -> int:
    """The bytes of a package's .deb; 0 where apt does not say."""
    said = _run(["apt-cache", *options, "show", f"{package}={version}"])
    found = re.search(r"^Size:\s*(\d+)", said.stdout, re.M)
    return int(found[1]) if found else 0


def _download(package: str, version: str, options: list[str], folder: Path,
              progress: Progress) -> str:
    """Put the tarball of package=version into the cache; returns why apt failed, or ""."""
    need_space(folder, _NEEDED_MIB, f"downloading {package}")
    progress.step(f"downloading {package} {version}")
    with _scratch(folder) as new:
        command = ["apt-get", *options, *_SAFE, "download", f"{package}={version}"]
        failed = _watched(command, new, _size(package, version, options), progress)
        if failed:
            progress.done("failed")
            return failed
        packages = list(new.glob("*.deb"))
        if len(packages) != 1:
            raise LabError(f"apt-get download {package}={version} left {len(packages)} packages")
        progress.update("unpacking")
        tarball = new / "tarball"
        _extract(packages[0], f"./usr/src/{package}.tar.xz", tarball)
        tarball.rename(_tarball(package, version, folder))
    progress.done()
    return ""


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for one download; what a killed run left of its own is removed first."""
    for stale in folder.glob(".download-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with scratch_dir(".download-", folder) as new:
        yield new


def _watched(command: list[str], folder: Path, size: int, progress: Progress) -> str:
    """Run apt-get in `folder` and tell how much has come; returns why it failed, or ""."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        # The kernel ends apt-get when this process is killed.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=said, stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"})
        try:
            while True:
                try:
                    status = process.wait(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    came = sum(path.stat().st_size for path in folder.glob("*.deb*"))
                    progress.update(f"{came >> 20} of {size >> 20} MiB")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        said.seek(0)
        return _error(said.read()) if status != 0 else ""


def _extract(package: Path, name: str, dest: Path) -> None:
    """Write the file `name` of a .deb to `dest`, on disk before it returns."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package],
                          stdout=subprocess.PIPE) as archive, open(dest, "wb") as output:
        done = subprocess.run(["tar", "-xO", name], stdin=archive.stdout, stdout=output,
                              stderr=subprocess.PIPE, text=True, check=False)
        if archive.stdout is not None:
            archive.stdout.close()
        if done.returncode == 0 and dest.stat().st_size == 0:
            raise LabError(f"{package.name} has an empty {name}: run again, or take another mirror")
        if done.returncode == 0:
            # Else a rename may outlive a power cut that the content does not.
            os.fsync(output.fileno())
    if (done.returncode != 0 or archive.returncode != 0) and is_full(dest.parent):
        raise disk_full(dest.parent.parent)
    if done.returncode != 0 or archive.returncode != 0:
        raise LabError(f"{package.name} could not be unpacked ({_error(done.stderr)}): run "
                       "again")


# ---- the private configuration -------------------------------------------------------------


def _private(base: Base, progress: Progress, architecture: str = "") -> list[str]:
    """The apt options for `base`'s suites, their lists brought up to date where they are old.

    They are those of `architecture`, of the machine's own for none.

    LabError where no mirror that carries them answers with a good signature.
    """
    if not KEYRING.is_file():
        raise NoSource(f"{KEYRING} is not here, and without it no signature can be checked: "
                       "install the package debian-archive-keyring")
    folder = cache_dir() / "apt" / base.name
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config = folder / "apt.conf"
    config.write_text(_configuration(folder, architecture), encoding="utf-8")
    options = ["-c", str(config)]

    stamp = _stamp(base)
    if stamp.exists() and 0 <= time.time() - stamp.stat().st_mtime < _LISTS_AGE:
        return options
    progress.step(f"reading the package lists of {' '.join(base.suites)}")
    failed = ""
    for sources in _sources(base.suites, mirrors()):
        (folder / "debian.sources").write_text(sources, encoding="utf-8")
        # Without Error-Mode apt calls an unreachable mirror a warning.
        said = _run(["apt-get", *options, *_SAFE, "-o", "APT::Update::Error-Mode=any", "update"])
        if said.returncode == 0:
            stamp.touch()
            progress.done()
            return options
        failed = failed or _error(said.stdout + said.stderr)
    progress.done("failed")
    raise NoSource(f"the package lists of {' '.join(base.suites)} could not be read: {failed}")


def _stamp(base: Base) -> Path:
    """A file whose time says when the private lists were read."""
    return cache_dir() / "apt" / base.name / f"updated {' '.join(base.suites)}"


def _configuration(folder: Path, architecture: str) -> str:
    """An apt.conf, given with -c and so read after the machine's own, whose proxies stay."""
    def quoted(value: Path | str) -> str:
        return f'"{value}"'

    settings: dict[str, Path | str] = {
        "Dir::Etc::sourcelist": folder / "debian.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        # The release that the machine prefers is not among these suites: apt calls that an error.
        "APT::Default-Release": "",
        # An archived suite's lists say that they have expired.
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        # For root apt would work as a user who cannot enter a cache in root's home.
        "APT::Sandbox::User": "root",
    }
    clear: tuple[str, ...] = ()
    if architecture:
        clear = ("APT::Architectures",)
        # Nothing of it is installed.
        (folder / "status").touch()
        settings |= {"APT::Architecture": architecture, "APT::Architectures": architecture,
                     "Dir::State::status": folder / "status"}
    # Hooks that work on the machine's own lists and packages.
    clear += ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke",
             "APT::Update::Post-Invoke-Success")
    return "".join([*(f"#clear {name};\n" for name in clear),
                    *(f"{name} {quoted(value)};\n" for name, value in settings.items())])


def _sources(suites: tuple[str, ...], found: list[Mirror]) -> Iterator[str]:
    """Sources files (deb822) for `suites`, one for each mirror that may be tried."""
    archives = [mirror.uri for mirror in found if not mirror.security]
    security = [mirror.uri for mirror in found if mirror.security]
    # The usual layout: the two beside each other.
    security += [f"{uri}-security" for uri in archives
                 if uri.endswith("/debian") and f"{uri}-security" not in security]
    of_security = [suite.endswith("-security") for suite in suites]
    if not archives and not all(of_security) or not security and any(of_security):
        raise NoSource(f"no Debian mirror with {' and '.join(suites)} in apt's sources: the lab "
                       "takes the mirror's address from there")
    for number in range(max(len(archives), len(security))):
        yield "\n".join(
            "Types: deb\n"
            f"URIs: {uris[min(number, len(uris) - 1)]}\n"
            f"Suites: {suite}\n"
            "Components: main\n"
            f"Signed-By: {KEYRING}\n"
            for suite, secure in zip(suites, of_security)
            for uris in [security if secure else archives])


def mirrors() -> list[Mirror]:
    """The mirrors of Debian itself in the machine's apt sources, in the order of trying them.

    That an entry's suite is the machine's release does not make it Debian's archive: others name
    theirs so too.  Whose it is stands in the signed lists.  Where these have been read, others'
    archives are left out, and Debian's come before those of which nothing is known yet.  apt
    checks the signature in any case.
    """
    debian = _ALIASES | {deps.os_release().get("VERSION_CODENAME")}
    known = {(suite, uri): origin.startswith("Debian")
             for suite, uri, origin in _targets("--release-info")}
    ranked: list[tuple[bool, Mirror]] = []
    for suite, uri, _origin in _targets("--no-release-info"):
        name, _dash, kind = re.sub(r"/updates$", "-security", suite).partition("-")
        # A disc has no other suites.
        if name in debian and not uri.startswith("cdrom:") and known.get((suite, uri), True):
            ranked.append(((suite, uri) not in known,
                           Mirror(uri.rstrip("/"), kind == "security")))
    ranked.sort(key=lambda pair: pair[0])
    return list(dict.fromkeys(mirror for _rank, mirror in ranked))


def _targets(which: str) -> list[list[str]]:
    """Suite, address and origin of each list with packages of main in the machine's apt sources.

    With "--release-info" those that apt has read, else all, without an origin.
    """
    said = _run(["apt-get", "indextargets", which, "--format",
                 "$(RELEASE)\t$(REPO_URI)\t$(ORIGIN)", "Created-By: Packages", "Component: main"])
    if said.returncode != 0:
        raise NoSource(f"apt cannot read its own sources: {_error(said.stderr)}")
    return [line.split("\t") for line in said.stdout.splitlines()]
