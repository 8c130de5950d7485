# SPDX-License-Identifier: GPL-2.0
"""What the host must have: found, installed, or named.  apt-get and sudo are stand-ins."""

import dataclasses
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import arch, deps
from lab.deps import Need
from lab.errors import LabError
from lab.paths import HOME
from lab.progress import Progress


class Host:
    """A machine whose programs are in one folder, and whose apt-get writes down its calls."""

    def __init__(self, top: Path) -> None:
        self.bin, self.calls = top / "bin", top / "calls"
        self.bin.mkdir()
        for name in ("env", "sh", "cat", "chmod", "touch", "rm", "setsid", "sleep"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.program("apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {self.calls}')

    def program(self, name: str, script: str = "") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def apt(self, install: str = "", update: str = "") -> None:
        self.program("apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {self.calls}\n'
                                f'case "$*" in *update*) {update or ":"};; '
                                f'*install*) {install or ":"};; esac')

    def said(self) -> list[str]:
        if not self.calls.exists():
            return []
        return [line.replace("-o DPkg::Lock::Timeout=300 ", "")
                for line in self.calls.read_text().splitlines()]


INSTALL = "noninteractive install -y --no-install-recommends one"
UPDATE = "noninteractive update"
ONE = (Need("one", ("one",)),)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.delenv("DEBIAN_FRONTEND", raising=False)
    monkeypatch.setattr(deps, "_SBIN", "/nowhere")
    monkeypatch.setattr(deps, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(deps, "LISTS", tmp_path / "lists")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "os-release").write_text("ID=debian\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/x_main_binary-amd64_Packages.lz4").write_text("")
    return made


def ensure(needs: tuple[Need, ...] = ONE) -> None:
    deps.ensure(Progress(io.StringIO()), needs)


def makes(host: Host, name: str = "one") -> str:
    path = host.bin / name
    return f'echo "#!/bin/sh" > {path}; chmod 755 {path}'


def test_nothing_missing_runs_nothing(host: Host) -> None:
    host.program("one")
    ensure()
    assert host.said() == []


def used() -> float:
    """The seconds of CPU that this process and those that it waited for have used."""
    of = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in of)


def test_fast_where_nothing_is_missing() -> None:
    deps.missing(deps.BUILD + deps.CHECK)
    began = used()
    deps.missing(deps.BUILD + deps.CHECK)
    assert used() - began < 0.05


def test_a_cross_compiler_is_named_and_installed_like_all_else(
        host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(arch.load("arm64"), machine_name="of no host", firmware="")
    needs = deps.of(row, ())
    assert deps.missing(needs)[0] == "gcc-aarch64-linux-gnu"
    host.apt(install=makes(host, row.compiler))
    needs = needs[:1]
    deps.ensure(Progress(io.StringIO()), needs)
    assert host.said() == [INSTALL.removesuffix("one") + "gcc-aarch64-linux-gnu"]
    # What it is on a machine where nothing can be installed.
    (host.bin / row.compiler).unlink()
    deps.OS_RELEASE.write_text("ID=gentoo\n")
    with pytest.raises(LabError, match="Debian's gcc-aarch64-linux-gnu is missing") as caught:
        deps.ensure(Progress(io.StringIO()), needs)
    assert "\n" not in str(caught.value)


def test_the_missing_package_is_installed(host: Host) -> None:
    host.program("two")
    host.apt(install=makes(host))
    ensure((*ONE, Need("two", ("two",))))
    assert host.said() == [INSTALL]


def test_empty_lists_are_updated_first(host: Host) -> None:
    next(deps.LISTS.iterdir()).unlink()
    host.apt(install=makes(host))
    ensure()
    assert host.said() == [UPDATE, INSTALL]


def test_old_lists_are_updated_when_the_install_fails(host: Host) -> None:
    host.apt(install=f'test -e {host.bin}/fresh || exit 100; {makes(host)}',
             update=f"touch {host.bin}/fresh")
    ensure()
    assert host.said() == [INSTALL, UPDATE, INSTALL]


ENSURE = """
import io, os, pathlib, sys
sys.path.insert(0, {home!r})
from lab import deps
from lab.deps import Need
from lab.progress import Progress
deps._SBIN, deps.OS_RELEASE, deps.LISTS = "/nowhere", pathlib.Path({top!r}, "os-release"), \\
    pathlib.Path({top!r}, "lists")
os.geteuid = lambda: {uid}
deps.ensure(Progress(), (Need("one", ("one",)),))
"""


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("minded", [False, True])
def test_a_package_is_not_installed_half_way(host: Host, tmp_path: Path, uid: int, minded: bool
                                             ) -> None:
    """Ctrl-C on a terminal gets to all that is in the foreground, and minder.py ends all; dpkg goes
    on to its end, and who ended it waits for that."""
    began, over = tmp_path / "began", tmp_path / "over"
    host.apt(install=f"touch {began}; sleep 2; {makes(host)}; touch {over}")
    host.program("sudo", 'exec "$@"')
    code = [sys.executable, "-c", ENSURE.format(home=str(HOME), top=str(tmp_path), uid=uid)]
    if minded:
        code = [sys.executable, str(HOME / "lab/minder.py"), *code]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          process_group=0) as process:
        while not began.exists():
            assert process.poll() is None
            time.sleep(0.02)
        if minded:
            assert process.stdin
            process.stdin.close()
        else:
            for _time in range(3):
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(0.1)
        assert not over.exists()
        process.wait(20)
        assert over.exists() and process.returncode != 0
        assert process.stdout
        assert minded or "ending as soon as apt-get is through" in process.stdout.read()


def test_what_was_installed_half_way_before(host: Host) -> None:
    host.apt(install='echo "E: dpkg was interrupted, you must manually run"; exit 100')
    with pytest.raises(LabError, match="run `dpkg --configure -a` as root, and then this again"):
        ensure()
    assert host.said() == [INSTALL]


def test_an_install_that_fails(host: Host) -> None:
    host.apt(install='echo "E: no such luck"; exit 100')
    with pytest.raises(LabError, match="apt-get could not install one") as raised:
        ensure()
    assert raised.value.log is not None
    assert "E: no such luck" in Path(raised.value.log).read_text()


def test_an_install_that_does_not_bring_it(host: Host) -> None:
    with pytest.raises(LabError, match="this is still missing: one"):
        ensure()


def test_an_ordinary_user_goes_through_sudo(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    host.program("sudo", f'echo sudo >> {host.calls}; exec "$@"')
    host.apt(install=makes(host))
    ensure()
    assert host.said() == ["sudo", INSTALL]


def test_neither_root_nor_sudo(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="as root, run `apt-get install -y --no-install-recommends "
                                       "one two`"):
        ensure((*ONE, Need("two", ("two",))))
    assert host.said() == []


@pytest.mark.parametrize("text, debian", [
    ("ID=debian\n", True), ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", True),
    ("ID=ubuntu\n", True), ("ID=fedora\n", False), ("ID='alpine'\n", False), ("", False),
])
def test_distributions(host: Host, text: str, debian: bool) -> None:
    deps.OS_RELEASE.write_text(text)
    host.apt(install=makes(host))
    if debian:
        ensure()
    else:
        with pytest.raises(LabError, match="not Debian, .* Debian's one is missing"):
            ensure()
    assert bool(host.said()) == debian


def test_without_apt_get(host: Host) -> None:
    (host.bin / "apt-get").unlink()
    with pytest.raises(LabError, match="this is not Debian"):
        ensure()


def test_files_and_patterns(tmp_path: Path) -> None:
    (tmp_path / "lib/x86_64-linux-gnu").mkdir(parents=True)
    need = (Need("libx", files=(f"{tmp_path}/lib*/**/libx.a",)),)
    assert deps.missing(need) == ["libx"]
    (tmp_path / "lib/x86_64-linux-gnu/libx.a").touch()
    assert deps.missing(need) == []
    shutil.move(tmp_path / "lib/x86_64-linux-gnu/libx.a", tmp_path / "lib/libx.a")
    assert deps.missing(need) == []
    assert deps.missing((*need, Need("p", files=("/nowhere/x",)), Need("p", ("nope",)))) == ["p"]


def test_a_program_must_be_static(host: Host, tmp_path: Path) -> None:
    need = (Need("busybox-static", static="busybox"),)
    assert deps.missing(need) == ["busybox-static"]
    host.program("busybox")
    assert deps.missing(need) == ["busybox-static"]
    source = tmp_path / "x.c"
    source.write_text("int main(void) { return 0; }\n")
    for option, missing in ((["-static"], []), (["-no-pie"], ["busybox-static"])):
        subprocess.run(["/usr/bin/gcc", "-B/usr/bin", *option, "-o", host.bin / "busybox",
                        source], check=True, env={"PATH": "/usr/bin:/bin"})
        assert deps.missing(need) == missing


@pytest.mark.parametrize("script", sorted(
    one.name for one in (HOME / "tests").glob("*.py")
    if one.read_text().startswith("#!") and one.name != "hosttest_guest.py"))
def test_what_is_run_by_itself_needs_no_pytest(script: str) -> None:
    """Only make check installs it, and Documentation/ has these as commands."""
    hidden = ("import runpy, sys; sys.modules['pytest'] = None; "
              "sys.argv = [sys.argv[1], '--help']; "
              "runpy.run_path(sys.argv[0], run_name='__main__')")
    ran = subprocess.run([sys.executable, "-B", "-c", hidden, str(HOME / "tests" / script)],
                         capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("usage: ")
