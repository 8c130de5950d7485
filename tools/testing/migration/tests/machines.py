# SPDX-License-Identifier: GPL-2.0
"""Hosts on loopback, each an sshd: of ordinary users with folders of their own for root, else of
who runs the tests, with a folder of its own each."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

# Of nobody, and of no machine's passwd: only the sshd's here know them.
_UID = 60500
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
ROOT = os.geteuid() == 0

_SSHD = """\
ListenAddress 127.0.0.1
HostKey {top}/hostkey
AuthorizedKeysFile {top}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
_SSH = """\
Host *
	HostName 127.0.0.1
	IdentityFile {top}/key
	IdentitiesOnly yes
	UserKnownHostsFile /dev/null
	StrictHostKeyChecking no
	LogLevel ERROR
"""


class Machine:
    """A host."""

    def __init__(self, top: Path, name: str, number: int, keyed: bool, path: str, full: bool
                 ) -> None:
        self.name, self.home = name, top / name
        self.uid = _UID + number if ROOT else os.getuid()
        self.home.mkdir()
        text = _SSHD.format(top=top)
        if not keyed:
            text = text.replace("/authorized", "/nobody")
        user = f"labtest{number}"
        env = f"PATH={path}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        words = [str(SSHD), "-D", "-e", "-f", str(top / f"sshd-{name}")]
        if ROOT:
            (top / f"passwd-{name}").write_text(Path("/etc/passwd").read_text() +
                                                f"{user}:x:{self.uid}:{self.uid}::{self.home}:"
                                                "/bin/sh\n")
            text += f"SetEnv {env}\n"
            disk = f"mount -t tmpfs -o size=16m,mode=755,uid={self.uid} disk {self.home}; " \
                if full else ""
            os.chown(self.home, self.uid, self.uid)
            # Nobody but these processes sees that user, and that disk.
            words = ["unshare", "-m", "sh", "-c", f"mount --bind {top}/passwd-{name} /etc/passwd; "
                     f"{disk}exec \"$@\"", "sh", *words]
        else:
            user = pwd.getpwuid(os.getuid()).pw_name
            text += (f"ForceCommand cd {self.home} && export HOME={self.home} {env} && "
                     'exec sh -c "$SSH_ORIGINAL_COMMAND"\n')
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        (top / f"sshd-{name}").write_text(text + f"Port {self.port}\n")
        with open(top / "ssh_config", "a", encoding="utf-8") as config:
            config.write(f"Host {name}\n\tPort {self.port}\n\tUser {user}\n")
        with open(top / f"log-{name}", "wb") as log:
            self.sshd = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                         start_new_session=True)
        self.line = f"1/ssh -F {top}/ssh_config {name}"

    def wait(self) -> None:
        """Until it answers."""
        for _try in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise RuntimeError(f"no sshd on port {self.port}")

    def processes(self, having: str = "") -> list[int]:
        """All that run on it, its sshd's among them; only those whose command has a word."""
        parents, mine = {}, [self.sshd.pid]
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError, IndexError):
                    stat = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                    if stat[0] == b"Z":
                        continue
                    parents[int(entry.name)] = int(stat[1])
                    # Who has lost its parent is still somebody's.
                    if str(self.home).encode() in (entry / "environ").read_bytes():
                        mine.append(int(entry.name))
        for pid in mine:
            mine += [child for child, parent in parents.items()
                     if parent == pid and child not in mine]
        return [pid for pid in dict.fromkeys(mine) if not having or having in _command(pid)]

    def kill(self) -> None:
        """As if its plug were pulled."""
        for _try in range(3):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.sshd.wait()

    def put(self, name: str, text: str = "") -> None:
        """A file in its home folder."""
        (self.home / name).write_text(text)


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


class Machines:
    """Some hosts, and the file that names them."""

    def __init__(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="lab-hosts-"))
        self.top.chmod(0o755)
        for name in ("hostkey", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.top / name],
                           check=True)
        shutil.copy(self.top / "key.pub", self.top / "authorized")
        (self.top / "authorized").chmod(0o644)
        (self.top / "ssh_config").write_text(_SSH.format(top=self.top))
        if ROOT:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.all: dict[str, Machine] = {}

    def add(self, name: str, keyed: bool = True, path: str = "", full: bool = False) -> Machine:
        """One more: with another key, with programs of its own first, with a small disk."""
        self.all[name] = Machine(self.top, name, len(self.all), keyed, path or "/nowhere", full)
        return self.all[name]

    def file(self, *more: str) -> Path:
        """A file with all of them, and more lines."""
        for one in self.all.values():
            one.wait()
        path = self.top / "hosts"
        path.write_text("\n".join([*(one.line for one in self.all.values()), *more]) + "\n")
        return path

    def close(self) -> None:
        for one in self.all.values():
            one.kill()
        shutil.rmtree(self.top, ignore_errors=True)
