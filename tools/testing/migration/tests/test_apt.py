# SPDX-License-Identifier: GPL-2.0
"""Source packages from a small Debian archive on disk, with the real apt."""

import dataclasses
import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from trees import fill

from lab import arch, deps
from lab.base import Base
from lab.errors import LabError, NoSource
from lab.kernel import apt
from lab.paths import HOME
from lab.progress import Progress

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("apt-get", "dpkg-deb", "gpg")),
    reason="no apt-get, dpkg-deb or gpg: apt install gnupg")

PACKAGE = "linux-source-5.10"
BASE = Base("5.10", PACKAGE, ("bullseye", "bullseye-security"), (), (), "", "")
OWN = Base("5.10", PACKAGE, (), (), (), "", "")


def get(base: Base = BASE) -> tuple[Path, str]:
    return apt.source_package(base, Progress(io.StringIO()))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two key rings, debian and other, each with its own private key."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    for name in ("debian", "other"):
        run(["gpg", "--homedir", str(home), "--batch", "--passphrase", "", "--quick-gen-key",
             f"{name}@test", "ed25519", "sign", "never"])
        (home / f"{name}.gpg").write_bytes(
            run(["gpg", "--homedir", str(home), "--export", f"{name}@test"]))
    yield home  # type: ignore[misc]
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def run(command: list[str], folder: Path | None = None) -> bytes:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout


def configure(top: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Make `text` the machine's apt configuration."""
    (top / "parts").mkdir(exist_ok=True)
    # Compressed, because apt makes plain lists of a mirror on disk links into the mirror.
    (top / "machine.conf").write_text(
        f'Dir::Etc::parts "{top}/parts";\nDir::Etc::sourcelist "{top}/etc/sources.list";\n'
        f'Dir::Etc::sourceparts "{top}/etc/sources.list.d";\nDir::State::lists "{top}/lists";\n'
        f'Dir::Cache "{top}/apt-cache";\nAcquire::GzipIndexes "true";\n{text}')
    monkeypatch.setenv("APT_CONFIG", str(top / "machine.conf"))


class Archive:
    """A mirror: debian/ and debian-security/, with suites made from lists of versions."""

    def __init__(self, top: Path, keys: Path) -> None:
        self.top, self.keys = top, keys

    def publish(self, suite: str, versions: list[str], key: str = "debian",
                expired: bool = False, origin: str = "Debian", architecture: str = "",
                depends: str = "") -> None:
        """Of another origin than Debian it is in a folder of that name; of this machine's
        architecture if none is named."""
        root = self.top / (origin.lower() + "-security" * suite.endswith("-security"))
        packages = []
        for version in versions:
            deb = root / "pool" / f"{PACKAGE}_{version}_all.deb"
            if not deb.exists():
                self.build(deb, version)
            data = deb.read_bytes()
            packages.append(f"Package: {PACKAGE}\nVersion: {version}\nArchitecture: all\n"
                            f"Maintainer: t <t@t>\nDescription: t\n"
                            + (f"Depends: {depends}\n" if depends else "") +
                            f"Filename: pool/{deb.name}\n"
                            f"Size: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n")
        index = "\n".join(packages).encode()
        architecture = architecture or run(["dpkg", "--print-architecture"]).decode().strip()
        folder = root / "dists" / suite
        name = f"main/binary-{architecture}/Packages"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(index)
        release = (f"Origin: {origin}\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\n"
                   "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
                   + ("Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n" if expired else "")
                   + f"Architectures: all {architecture}\nComponents: main\nSHA256:\n"
                   f" {hashlib.sha256(index).hexdigest()} {len(index)} {name}\n")
        (folder / "InRelease").unlink(missing_ok=True)
        (folder / "Release").write_text(release)
        if key:
            run(["gpg", "--homedir", str(self.keys), "--batch", "-u", f"{key}@test",
                 "--clearsign", "-o", str(folder / "InRelease"), str(folder / "Release")])

    def build(self, deb: Path, version: str) -> None:
        tree = self.top / f"build-{version}"
        (tree / "usr/src").mkdir(parents=True)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: {PACKAGE}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: t <t@t>\nDescription: t\n")
        (tree / f"usr/src/{PACKAGE}.tar.xz").write_text(f"source {version}")
        deb.parent.mkdir(parents=True, exist_ok=True)
        run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(deb)])


@pytest.fixture
def archive(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The archive, with a machine whose apt sources name it."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "a cache"))
    monkeypatch.setattr(apt, "USR_SRC", tmp_path / "src")
    monkeypatch.setattr(apt, "KEYRING", keys / "debian.gpg")
    monkeypatch.setattr(deps, "OS_RELEASE", tmp_path / "os-release")
    (tmp_path / "os-release").write_text("VERSION_CODENAME=bookworm\n")
    (tmp_path / "etc").mkdir()
    # Not the configuration of the machine that runs the tests.
    configure(tmp_path, monkeypatch, "")
    made = Archive(tmp_path, keys)
    (tmp_path / "etc/sources.list").write_text(
        f"deb file:{tmp_path}/debian bookworm main\n")
    made.publish("bullseye", ["5.10.218-1"])
    made.publish("bullseye-security", ["5.10.262-1"], expired=True)
    return made


def refuse_update(_progress: Progress) -> bool:
    raise AssertionError("the machine's own lists are none of a private configuration's business")


# ---- packages of another architecture ------------------------------------------------------


def unpacked(package: str = PACKAGE, architecture: str = "riscv64", suite: str = "") -> Path:
    row = dataclasses.replace(arch.load("arm64"), debian=architecture, suite=suite)
    return apt.unpacked(package, row, Progress(io.StringIO()))


def test_a_package_of_another_architecture_is_unpacked_once(
        archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deps, "update_lists", refuse_update)
    archive.publish("bookworm", ["5.10.218-1"], architecture="riscv64")
    files = unpacked()
    assert (files / f"usr/src/{PACKAGE}.tar.xz").read_text() == "source 5.10.218-1"
    assert files.is_relative_to(os.environ["LAB_CACHE"])
    shutil.rmtree(archive.top / "debian")
    assert unpacked() == files
    # What is there of one architecture is of no use to another.
    with pytest.raises(NoSource, match="the package lists of bookworm could not be read"):
        unpacked(architecture="arm64")


def test_a_package_of_another_release_is_unpacked(archive: Archive) -> None:
    """Beside that of this one, and of the machine's own architecture, too."""
    machine = run(["dpkg", "--print-architecture"]).decode().strip()
    archive.publish("trixie", ["6.1-1"], architecture=machine)
    archive.publish("bookworm", ["5.10.218-1"], architecture=machine)
    row, quiet = dataclasses.replace(arch.load("x86_64"), debian=machine), Progress(io.StringIO())
    files = apt.unpacked(PACKAGE, row, quiet, "trixie")
    assert (files / f"usr/src/{PACKAGE}.tar.xz").read_text() == "source 6.1-1"
    other = apt.unpacked(PACKAGE, row, quiet)
    assert (other / f"usr/src/{PACKAGE}.tar.xz").read_text() == "source 5.10.218-1"


def test_what_a_package_depends_on(archive: Archive) -> None:
    """The newest of a suite, as packages that only name another do."""
    archive.publish("trixie", ["6.1-1"], architecture="riscv64", depends="linux-image-6.1.0-1")
    archive.publish("trixie", ["6.1-1", "6.1-2"], architecture="riscv64",
                    depends="linux-image-6.1.0-2-riscv64 (= 6.1-2), a | b (>= 1)")
    quiet = Progress(io.StringIO())
    assert apt.dependencies(PACKAGE, "riscv64", "trixie", quiet) == [
        "linux-image-6.1.0-2-riscv64", "a", "b"]
    assert apt.dependencies("nothing", "riscv64", "trixie", quiet) == []


def test_the_machines_architecture_has_no_part_in_it(archive: Archive) -> None:
    """Neither its own packages, nor what is installed of them."""
    archive.publish("bookworm", ["5.10.300-1"])
    with pytest.raises(NoSource, match="could not be read|bookworm has no package"):
        unpacked()
    assert not list(Path(os.environ["LAB_CACHE"]).glob("foreign/*/*/usr"))


def test_a_package_that_the_architecture_does_not_have(archive: Archive) -> None:
    archive.publish("bookworm", ["5.10.218-1"], architecture="riscv64")
    with pytest.raises(NoSource, match="bookworm has no package nothing for riscv64"):
        unpacked("nothing")


def test_an_architecture_that_came_with_a_later_release(archive: Archive) -> None:
    archive.publish("bookworm", ["5.10.300-1"])
    archive.publish("trixie", ["5.10.218-1"], architecture="riscv64")
    with pytest.raises(NoSource, match="bookworm could not be read|bookworm has no package"):
        unpacked()
    files = unpacked(suite="trixie")
    assert (files / f"usr/src/{PACKAGE}.tar.xz").read_text() == "source 5.10.218-1"


def test_another_architecture_on_what_is_no_debian(archive: Archive) -> None:
    deps.OS_RELEASE.write_text("ID=gentoo\n")
    with pytest.raises(NoSource, match="this is no Debian, so Debian's .* of riscv64 cannot"):
        unpacked()


# ---- the private configuration -------------------------------------------------------------


def test_the_newest_of_the_suites(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deps, "update_lists", refuse_update)
    machine = [(path, path.stat().st_mtime_ns) for place in ("/var/lib/apt", "/etc/apt")
               for path in sorted(Path(place).rglob("*"))]
    path, version = get()
    assert version == "5.10.262-1"
    assert path.read_text() == "source 5.10.262-1"
    assert path.is_relative_to(os.environ["LAB_CACHE"])
    assert machine == [(path, path.stat().st_mtime_ns) for path, _time in machine]


def test_a_second_run_downloads_nothing(archive: Archive,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    first = get()
    monkeypatch.setattr(apt, "_watched", None)
    shutil.rmtree(archive.top / "debian")
    assert get() == first


def test_a_newer_version_takes_its_place(archive: Archive) -> None:
    get()
    archive.publish("bullseye-security", ["5.10.263-1", "5.10.262-1"])
    assert get()[1] == "5.10.262-1", "the lists are read once a day"
    apt._stamp(BASE).unlink()
    assert get()[1] == "5.10.263-1"
    os.utime(apt._stamp(BASE), (1, 1))
    archive.publish("bullseye-security", ["5.10.264-1"])
    assert get()[1] == "5.10.264-1"


def test_a_package_that_went_since_the_lists_were_read(archive: Archive) -> None:
    apt._private(BASE, Progress(io.StringIO()))
    (archive.top / f"debian-security/pool/{PACKAGE}_5.10.262-1_all.deb").unlink()
    archive.publish("bullseye-security", ["5.10.263-1"])
    assert get()[1] == "5.10.263-1"


def test_without_an_answer_the_cache_serves(archive: Archive) -> None:
    get()
    archive.publish("bullseye-security", ["5.10.300-1"])
    apt._stamp(BASE).unlink()
    get()
    apt._stamp(BASE).unlink()
    shutil.rmtree(archive.top / "debian")
    said = io.StringIO()
    path, version = apt.source_package(BASE, Progress(said))
    assert (version, path.read_text()) == ("5.10.300-1", "source 5.10.300-1")
    assert "could not be read" in said.getvalue()
    assert "5.10.300-1, which is here already" in said.getvalue()


def test_no_answer_and_nothing_here(archive: Archive) -> None:
    shutil.rmtree(archive.top / "debian")
    with pytest.raises(LabError, match="package lists of bullseye bullseye-security could not"):
        get()


@pytest.mark.parametrize("key", ["", "other"])
def test_a_signature_that_is_not_debians(archive: Archive, key: str,
                                         monkeypatch: pytest.MonkeyPatch,
                                         tmp_path: Path) -> None:
    """Whatever the machine's own configuration allows."""
    configure(tmp_path, monkeypatch, 'Acquire::AllowInsecureRepositories "true";\n'
                                     'APT::Get::AllowUnauthenticated "true";\n')
    archive.publish("bullseye-security", ["5.10.666-1"], key=key)
    with pytest.raises(LabError, match="could not be read"):
        get()
    assert not list(Path(os.environ["LAB_CACHE"]).glob("sources/*.tar.xz"))


def test_a_package_that_is_not_the_listed_one(archive: Archive) -> None:
    deb = archive.top / f"debian-security/pool/{PACKAGE}_5.10.262-1_all.deb"
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(data)
    with pytest.raises(LabError, match="could not be downloaded"):
        get()
    assert not list(Path(os.environ["LAB_CACHE"]).glob("sources/*.tar.xz"))


def test_no_keyring(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "KEYRING", Path("/nowhere.gpg"))
    with pytest.raises(LabError, match="install the package debian-archive-keyring"):
        get()


def test_the_machines_hooks_and_release_do_not_matter(archive: Archive, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, monkeypatch,
              f'APT::Update::Post-Invoke {{"touch {tmp_path}/hook";}};\n'
              f'APT::Update::Post-Invoke-Success {{"touch {tmp_path}/hook";}};\n'
              f'APT::Update::Pre-Invoke {{"touch {tmp_path}/hook";}};\n'
              'APT::Default-Release "bookworm";\n')
    assert get()[1] == "5.10.262-1"
    assert not (tmp_path / "hook").exists()


@pytest.mark.parametrize("dead", ["file:/nowhere/debian", "http://127.0.0.1:1/debian"])
@pytest.mark.slow
def test_the_next_mirror_is_tried(archive: Archive, tmp_path: Path, dead: str,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "etc/sources.list").write_text(
        f"deb {dead} bookworm main\n"
        f"deb file:{tmp_path}/debian bookworm main\n")
    assert get()[1] == "5.10.262-1"


CHILD = """
import io, sys, time
from pathlib import Path
from lab import deps
from lab.kernel import apt
from lab.base import Base
from lab.progress import Progress
apt.KEYRING, deps.OS_RELEASE = (Path(name) for name in {paths!r})
extract = apt._extract
def slow(*arguments):
    arguments[2].write_bytes(b"half")
    print("half", flush=True)
    time.sleep(60)
apt._extract = slow
apt.source_package(Base("5.10", {package!r}, ("bullseye", "bullseye-security"), (), (), "", ""),
                   Progress(io.StringIO()))
"""


def test_killed_while_unpacking(archive: Archive) -> None:
    paths = [str(path) for path in (apt.KEYRING, deps.OS_RELEASE)]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(paths=paths, package=PACKAGE)], cwd=HOME,
        stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = Path(os.environ["LAB_CACHE"]) / "sources"
    assert list(folder.glob(".download-*"))
    assert get()[0].read_text() == "source 5.10.262-1"
    assert sorted(path.name for path in folder.iterdir()) == \
        [f"{PACKAGE}_5.10.262-1.tar.xz", "lock"]


# ---- the machine's own sources -------------------------------------------------------------


@pytest.fixture
def machine(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of which the archive is all that apt knows; its lists are empty at first."""
    state = tmp_path / "state"
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (state / name).mkdir(parents=True)
    (state / "debian.sources").write_text(
        f"Types: deb\nURIs: file:{tmp_path}/debian-security\nSuites: bullseye-security\n"
        f"Components: main\nSigned-By: {apt.KEYRING}\n")
    configure(tmp_path, monkeypatch,
              f'Dir::Etc::sourcelist "{state}/debian.sources";\n'
              f'Dir::Etc::sourceparts "{state}/parts";\n'
              f'Dir::State::lists "{state}/lists";\nDir::Cache "{state}/cache";\n'
              'Acquire::Check-Valid-Until "false";\nAPT::Sandbox::User "root";\n')
    return state


def test_empty_lists_are_updated_once(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = []

    def update(_progress: Progress) -> bool:
        updates.append(1)
        return subprocess.run(["apt-get", "update"], capture_output=True,
                              check=False).returncode == 0

    monkeypatch.setattr(deps, "update_lists", update)
    assert get(OWN)[1] == "5.10.262-1"
    assert get(OWN)[1] == "5.10.262-1"
    assert len(updates) == 1


def test_a_package_that_apt_does_not_know(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deps, "update_lists", lambda _progress: True)
    with pytest.raises(LabError, match=f"apt knows no package {PACKAGE}: add a suite"):
        get(OWN)


def test_the_installed_package_is_used(machine: Path, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deps, "update_lists", lambda _progress: True)
    subprocess.run(["apt-get", "update"], capture_output=True, check=True)
    tarball = tmp_path / "src" / f"{PACKAGE}.tar.xz"
    tarball.parent.mkdir()
    tarball.write_text("installed")
    query = tmp_path / "bin" / "dpkg-query"
    query.parent.mkdir()
    monkeypatch.setenv("PATH", f"{query.parent}:{os.environ['PATH']}")

    def installed(says: str) -> None:
        query.write_text(f"#!/bin/sh\nprintf '{says}'\n")
        query.chmod(query.stat().st_mode | stat.S_IXUSR)

    installed("installed 5.10.262-1")
    assert get(OWN) == (tarball, "5.10.262-1")
    installed("config-files 5.10.262-1")
    assert get(OWN)[0] != tarball
    installed("installed 5.10.100-1")
    assert get(OWN)[0] != tarball


def test_no_package_for_a_base() -> None:
    with pytest.raises(LabError, match="KERNEL=/path/to/tree"):
        get(Base("4.4", None, (), (), (), "", ""))


# ---- the mirror's address ------------------------------------------------------------------


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(deps, "OS_RELEASE", tmp_path / "os-release")
    (tmp_path / "os-release").write_text('VERSION_CODENAME="bookworm"\n')
    configure(tmp_path, monkeypatch, "")
    return tmp_path


def test_deb822_with_comments_and_several_addresses(etc: Path) -> None:
    fill(etc / "etc", {"sources.list.d/debian.sources": """\
Types: deb deb-src
# http://snapshot.example/debian
URIs: http://one.example/debian
# was: http://old.example/debian
 https://two.example/pub/debian/
suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://one.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""})
    assert apt.mirrors() == [apt.Mirror("http://one.example/debian", False),
                             apt.Mirror("https://two.example/pub/debian", False),
                             apt.Mirror("http://one.example/debian-security", True)]


def test_one_line_sources(etc: Path) -> None:
    fill(etc / "etc", {"sources.list": """\
# deb http://comment.example/debian bookworm main
deb-src http://src.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.example/debian/ \
bookworm main # comment
deb http://s.example/debian-security bookworm/updates main
deb http://m.example/debian stable contrib
"""})
    assert apt.mirrors() == [apt.Mirror("http://m.example/debian", False),
                             apt.Mirror("http://s.example/debian-security", True)]


def test_what_is_not_debians_by_its_name_is_left_out(etc: Path) -> None:
    fill(etc / "etc", {
        "sources.list": "deb http://plain.example/debian bookworm main\n",
        "sources.list.d/a.list":
            "deb http://cloud.example/apt cloud-sdk-bookworm main\n"
            "deb http://docker.example/linux/debian bookworm stable\n",
        "sources.list.d/b.sources":
            "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n"
            "Enabled: no\n\nTypes: deb\nURIs: http://node.example\nSuites: nodistro\n"
            "Components: main\n",
        "sources.list.d/c.list.disabled": "deb http://d.example/debian bookworm main\n",
        "sources.list.d/z.sources":
            "Types: deb\nURIs: http://sure.example/debian\nSuites: stable\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
    })
    assert [mirror.uri for mirror in apt.mirrors()] == \
        ["http://plain.example/debian", "http://sure.example/debian"]


def test_what_is_not_debians_by_its_lists_is_left_out(archive: Archive, tmp_path: Path,
                                                      keys: Path) -> None:
    archive.publish("bookworm", ["1"], key="other", origin="Vendor")
    archive.publish("bookworm", ["2"])
    fill(tmp_path / "etc", {
        "sources.list.d/a.list":
            f"deb [signed-by={keys}/other.gpg] file:{tmp_path}/vendor bookworm main\n"
            "deb file:/nowhere/debian bookworm main\n",
        "sources.list.d/b.sources":
            f"Types: deb\nURIs: file:{tmp_path}/debian\nSuites: bookworm\nComponents: main\n"
            "Signed-By:\n" + "".join(
                f" {line or '.'}\n" for line in run(
                    ["gpg", "--homedir", str(keys), "--armor", "--export", "debian@test"]
                ).decode().splitlines()),
    })
    (tmp_path / "etc/sources.list").unlink()
    vendor, nowhere, debian = (f"file:{place}" for place in
                               (tmp_path / "vendor", "/nowhere/debian", tmp_path / "debian"))
    assert [mirror.uri for mirror in apt.mirrors()] == [vendor, nowhere, debian]
    for name in ("lists/partial", "apt-cache/archives/partial"):
        (tmp_path / name).mkdir(parents=True)
    subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", "update"], capture_output=True,
                   check=False)
    assert [mirror.uri for mirror in apt.mirrors()] == [debian, nowhere]


def test_sources_that_apt_cannot_read(etc: Path) -> None:
    fill(etc / "etc", {"sources.list": "deb http://m.example/debian\n"})
    with pytest.raises(NoSource, match="apt cannot read its own sources: E: Malformed entry 1"):
        apt.mirrors()


def test_the_security_mirror_is_the_one_beside(etc: Path) -> None:
    made = list(apt._sources(("bullseye", "bullseye-security"),
                             [apt.Mirror("http://m.example/debian", False)]))
    assert len(made) == 1
    assert "URIs: http://m.example/debian\nSuites: bullseye\n" in made[0]
    assert "URIs: http://m.example/debian-security\nSuites: bullseye-security\n" in made[0]
    assert made[0].count(f"Signed-By: {apt.KEYRING}\n") == 2
    assert "trusted" not in made[0].lower()


def test_no_mirror(etc: Path) -> None:
    with pytest.raises(LabError, match="no Debian mirror with bullseye and bullseye-security"):
        list(apt._sources(BASE.suites, apt.mirrors()))
    with pytest.raises(LabError, match="no Debian mirror"):
        list(apt._sources(BASE.suites, [apt.Mirror("http://m.example/odd", False)]))
