# SPDX-License-Identifier: GPL-2.0
"""The machines that jobs are spread over: which there are, and what each of them brings.

HOSTS names a file as GNU parallel's --sshloginfile has it, a host a line:
[JOBS/][USER@]HOST[:PORT], [JOBS/]ssh -p 22 HOST, or : for this machine.  JOBS is how many jobs it
is given at a time.
"""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab import arch
from lab.errors import LabError
from lab.guest import qemu
from lab.matrix import gnuparallel
from lab.progress import Progress
from lab.words import plural

HERE = ":"
# What a job takes of a host. Four vCPUs and the compilers do not use more for long, and a guest
# with DIMMs and a build beside it stay below 8 GiB.
CORES, MIB = 4, 8 << 10
# What a job cannot do without: the guest and a build beside it; and on the disk of the cache all
# that a first proof puts there, or another kernel of a cache that has one.
LEAST_MIB, FIRST_MIB, NEXT_MIB = 4 << 10, 6 << 10, 1 << 10
# A /dev/kvm says little: what make prove saw on that host, with the QEMU of its own architecture,
# is in the cache (lab/guest/qemu.py).
_ASK = ("at=${{LAB_CACHE:-${{XDG_CACHE_HOME:-$HOME/.cache}}/pmd-share-lab}}; "
        "seen=$at/kvm/qemu-system-$(uname -m)-$(cat /proc/sys/kernel/random/boot_id); "
        "test -d \"$at/images\" && cached=1 || cached=0; test -d \"$at\" || at=$HOME; "
        "echo pmd-share-host machine=$(uname -m) cores=$(nproc) "
        "mib=$(($(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) / 1024)) "
        "disk=$(df -m --output=avail \"$at/\" | tail -n 1 | tr -d ' ') cached=$cached "
        "kvm=$(test -w /dev/kvm && echo 1 || echo 0) seen=$(cat \"$seen\" 2> /dev/null) "
        "treeless=$(for tree in {trees}; do test -f \"$tree/Makefile\" || "
        "printf %s, \"${{tree##*/}}\"; done) "
        "lacks=$(for tool in git python3 rsync perl; do command -v $tool > /dev/null || "
        "printf %s, $tool; done)")
_FACT = re.compile(r"(\w+)=(\S*)")
# What ssh says, and what that means.
_WHY = (
    (r"Permission denied \((.*)\)", "it refuses the key: run ssh-copy-id, or name another in "
                                    "~/.ssh/config"),
    (r"Host key verification failed", "its own key is not known: log in once by hand"),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", "its own key is another than before"),
    (r"Could not resolve hostname", "there is no host of that name"),
    (r"Connection (refused|timed out|closed|reset)|No route to host|Network is unreachable|"
     r"kex_exchange_identification", "it cannot be reached"),
)


@dataclass(frozen=True)
class Host:
    """A machine that takes jobs."""

    login: str                  # as GNU parallel is told of it
    shown: str                  # as it is told
    arch: str                   # "" for one that the lab does not know
    kvm: bool                   # it has one, or is supposed to
    cores: int
    jobs: int                   # at a time
    tried: bool = False         # a guest was seen to come up with KVM
    without: tuple[str, ...] = ()       # the bases whose tree it does not have

    @property
    def here(self) -> bool:
        return self.login == HERE

    def line(self) -> str:
        """Its line for --sshloginfile."""
        return f"{self.jobs}/{self.login}"

    def told(self) -> str:
        """What it brings, in words."""
        kvm = "without KVM" if not self.kvm else "with KVM" if self.tried else \
            "with a /dev/kvm that was not tried"
        return (f"{self.shown}: {self.arch or 'an architecture that the lab does not know'}, "
                f"{plural(self.cores, 'cores')}, {kvm}, {plural(self.jobs, 'jobs')} at a time"
                + (f"; no tree of {', '.join(self.without)}" if self.without else ""))


@dataclass(frozen=True)
class _Entry:
    """A line of HOSTS."""

    login: str
    shown: str
    jobs: int                   # 0: as many as fit


def read(path: Path) -> list[_Entry]:
    """The hosts that a file names.  LabError where it names none, or has a line that is none."""
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        why = err.strerror if isinstance(err, OSError) else "it is no text"
        raise LabError(f"HOSTS={path}: {why}: name a file with a host a line") from err
    found: list[_Entry] = []
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            found.append(_entry(text, f"HOSTS={path}, line {number}"))
    if not found:
        raise LabError(f"HOSTS={path} names no host: write one a line, such as 2/me@server")
    names = [one.login for one in found]
    if twice := next((one for one in found if names.count(one.login) > 1), None):
        raise LabError(f"HOSTS={path} names {twice.shown} twice: leave one out")
    return found


def _entry(text: str, where: str) -> _Entry:
    match = re.fullmatch(r"(?:(\d+)/)?([^/\s@,+][^,+]*)", text)
    if not match or match[1] and int(match[1]) < 1:
        raise LabError(f"{where}: {text}: [JOBS/][USER@]HOST[:PORT] is wanted, or "
                       "[JOBS/]ssh OPTIONS HOST, or :")
    jobs, login = int(match[1] or 0), match[2].strip()
    if re.search(r"\s", login):
        command, *words = login.split()
        if not words or Path(command).name != "ssh":
            raise LabError(f"{where}: {text}: a command begins with ssh")
        # One that names its own command is not given the options by parallel.
        return _Entry(" ".join([command, *gnuparallel.SSH, *words]), words[-1], jobs)
    return _Entry(login, "this machine" if login == HERE else login, jobs)


def here(trees: Sequence[Path] = ()) -> Host:
    """This machine, alone."""
    mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    cores = len(os.sched_getaffinity(0))
    seen = qemu.kvm_seen(arch.load())
    return Host(HERE, "this machine", arch.host(),
                os.access("/dev/kvm", os.W_OK) and seen is not False, cores, _fit(cores, mib),
                seen is True,
                tuple(tree.name for tree in trees if not (tree / "Makefile").is_file()))


def _fit(cores: int, mib: int) -> int:
    return max(1, min(cores // CORES, mib // MIB))


def ask(path: Path, progress: Progress, trees: Sequence[Path] = ()) -> list[Host]:
    """The hosts of a file that can take jobs.  Of each other one a line says why it is left out.

    `trees` are those that jobs need, each named as its base is.  LabError where none is left.
    """
    entries = read(path)
    progress.step(f"asking {plural(len(entries), 'hosts')}")
    others = [one for one in entries if one.login != HERE]
    script = _ASK.format(trees=shlex.join(map(str, trees)))
    answers, said = gnuparallel.on_all([one.login for one in others], script) if others else \
        ({}, {})
    found, notes = [], []
    for one in entries:
        if one.login == HERE:
            mine = here(trees)
            found.append(replace(mine, jobs=one.jobs or mine.jobs))
            continue
        facts = dict(_FACT.findall(answers.get(one.login, "").partition("pmd-share-host ")[2]))
        if why := _unfit(facts, said.get(one.login, "")) or not one.jobs and _small(facts):
            notes.append(f"{one.shown} is left out: {why}")
            continue
        row = next((name for name in arch.names()
                    if arch.load(name).machine_name == facts["machine"]), "")
        cores, mib = int(facts["cores"]), int(facts["mib"])
        found.append(Host(one.login, one.shown, row,
                          facts["kvm"] == "1" and facts["seen"] != "no", cores,
                          one.jobs or _fit(cores, mib), facts["seen"] == "yes",
                          tuple(filter(None, facts["treeless"].split(",")))))
    progress.done(f"{len(found)} can take jobs")
    for note in notes:
        progress.note(note)
    if not found:
        raise LabError(f"HOSTS={path}: no host can take a job: {notes[0]}")
    return found


def _unfit(facts: dict[str, str], said: str) -> str:
    """Why a host can take no job; "" if it can."""
    if not {"machine", "kvm", "seen", "cached", "treeless", "lacks"} <= facts.keys() or \
            not all(facts.get(name, "").isdecimal() for name in ("cores", "mib", "disk")):
        for pattern, why in _WHY:
            if re.search(pattern, said):
                return why
        last = said.strip().splitlines()[-1:] or ["it did not answer"]
        return f"it says: {last[0]}"
    if lacks := facts["lacks"].strip(","):
        return f"it has no {lacks.replace(',', ', ')}: install that"
    return ""


def _small(facts: dict[str, str]) -> str:
    """What a host has too little of for any job; "" if it has enough."""
    if (mib := int(facts["mib"])) < LEAST_MIB:
        return (f"it has {mib} MiB of memory, and a job takes {LEAST_MIB} MiB or more: name it as "
                "1/HOST to try it all the same")
    least = NEXT_MIB if facts["cached"] == "1" else FIRST_MIB
    if (free := int(facts["disk"])) < least:
        return (f"its disk has {free} MiB free for the cache, and a job takes {least} MiB: free "
                "some space, or name it as 1/HOST to try it all the same")
    return ""
