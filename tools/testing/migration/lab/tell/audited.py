# SPDX-License-Identifier: GPL-2.0
"""Tells what audits found: for a person, for programs, for NRPE and for Prometheus."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.finding import NOT_AFFECTED, PROTECTED, SOURCE, UNKNOWN, VULNERABLE, Finding

# What a check of Nagios says with its exit status, and with its first word.
NRPE_OK, NRPE_CRITICAL, NRPE_UNKNOWN = 0, 2, 3
_NRPE = {NRPE_OK: "OK", NRPE_CRITICAL: "CRITICAL", NRPE_UNKNOWN: "UNKNOWN"}
# Of a version or a path, and of an error, so many characters fit.
_NRPE_NAME, _NRPE_WHY = 200, 900
_METRIC = "linux_page_migration_defect"
# A row that is VULNERABLE or unknown, for which the user has said so; or of a defect that does no
# harm but to be slow, for which nobody has to.
ACCEPTED, ONLY_SLOW = "accepted", "only slow"


@dataclass(frozen=True)
class Audited:
    """A kernel that was looked at; with `error`, one that could not be."""

    path: str                       # of the tree or the image
    version: str = ""
    findings: Sequence[Finding] = ()
    error: str = ""
    tree: bool = True               # it is a tree, or a tree and an image
    also: dict[str, str] = field(default_factory=dict)      # banner, build id and the like
    runs: bool = False              # it is the one that runs here
    # Defects that its owner knows of and lives with: "name", or "name:VULNERABLE".
    accepted: frozenset[str] = frozenset()

    @property
    def read(self) -> bool:
        """Whether there was code to be looked at."""
        return not self.error and "missing" not in self.also

    @property
    def safe(self) -> bool:
        """Whether it has none of the defects for certain, but what is accepted."""
        return not self.error and not any(self.alarming(one) for one in self.findings)

    def accepts(self, found: Finding) -> bool:
        """Whether a row would say no good, and is accepted.

        Who lives with not knowing is not taken to live with the defect.  Nobody has to say so of
        one that is only slow: with no patch to be had, no check would ever be OK.
        """
        if found.only_slow and found.status in (VULNERABLE, UNKNOWN):
            return True
        return f"{found.defect}:{VULNERABLE}" in self.accepted \
            and found.status in (VULNERABLE, UNKNOWN) \
            or found.defect in self.accepted and found.status == UNKNOWN

    def word(self, found: Finding) -> str:
        """What is told of an accepted row in place of its status, for a person; "" of others."""
        return (ONLY_SLOW if found.only_slow else ACCEPTED) if self.accepts(found) else ""

    def alarming(self, found: Finding) -> bool:
        """Whether a row says no good, and is not accepted."""
        return found.status in (VULNERABLE, UNKNOWN) and not self.accepts(found)


def report(one: Audited) -> dict[str, object]:
    """A kernel, for `make audit AUDIT=json`."""
    said: dict[str, object] = {"tree" if one.tree else "image": one.path}
    if one.error:
        return said | {"error": one.error}
    return said | {"version": one.version, "running": one.runs, **one.also,
                   "defects": [{"defect": found.defect, "title": found.title,
                                "status": found.status, "accepted": one.accepts(found),
                                "only_slow": found.only_slow,
                                "why": found.why, "places": list(found.places),
                                "apply": list(found.apply), "from": found.source}
                               for found in one.findings]}


def summary(one: Audited) -> str:
    """A kernel, for a person."""
    if one.error:
        return f"{one.path}\n\n{one.error}"
    lines = [f"Linux {one.version}: {counted(one)}{_mark(one)}", ""]
    if why := one.also.get("missing"):
        lines += [why, ""]
    # A column that would say the same in each row is none.
    column = any(found.source != SOURCE for found in one.findings)
    for found in one.findings:
        lines.append(f"{found.status:12}  "
                     + (f"{found.source:6}  " if column else "") + found.defect
                     + (f" ({word})" if (word := one.word(found)) else ""))
        if found.status in (VULNERABLE, UNKNOWN) and found.title:
            lines.append(f"{'':14}{found.title}")
        lines += [f"{'':14}{place}" for place in found.places]
        if found.status in (UNKNOWN, NOT_AFFECTED):
            lines.append(f"{'':14}{found.why}")
        if found.apply:
            lines.append(f"{'':14}to apply:")
            lines += [f"{'':16}{what}" for what in found.apply]
        elif found.status == VULNERABLE:
            lines.append(f"{'':14}nobody has fixed it yet")
    return "\n".join(lines)


def counted(one: Audited) -> str:
    """How many rows say what, the worst first: "2 VULNERABLE, 26 protected"."""
    said = [one.word(found) or found.status for found in one.findings]
    return ", ".join(f"{said.count(status)} {status}"
                     for status in (VULNERABLE, UNKNOWN, ACCEPTED, ONLY_SLOW, PROTECTED,
                                    NOT_AFFECTED)
                     if status in said)


def _mark(one: Audited) -> str:
    return " (runs here)" if one.runs else ""


def table(kernels: Sequence[Audited]) -> str:
    """Several kernels in one table, a column each."""
    lines = []
    for number, one in enumerate(kernels, 1):
        said = one.error or f"Linux {one.version}: {counted(one)}"
        lines.append(f"[{number}]  {one.path}{_mark(one)}\n{'':5}{said}")
    read = [(number, one) for number, one in enumerate(kernels, 1) if not one.error]
    if read:
        lines.append("")
        lines.append(f"{'':26}" + "".join(f"{f'[{number}]':14}" for number, _one in read).rstrip())
        lines.append(f"{'from':26}" + "".join(
            f"{','.join(sorted({found.source for found in one.findings})):14}"
            for _number, one in read).rstrip())
        for row in range(len(read[0][1].findings)):
            name = read[0][1].findings[row].defect
            cells = [(one, one.findings[row]) for _number, one in read]
            lines.append(f"{name:26}" + "".join(
                f"{one.word(found) or found.status:14}"
                for one, found in cells).rstrip())
        lines.append("\nFor places and patches, audit one of them alone.")
    return "\n".join(lines)


def nrpe(kernels: Sequence[Audited]) -> tuple[str, int]:
    """What a Nagios plugin says, and its exit status: 0, 2 for critical, 3 for unknown.

    The first line has how many, for graphs, too: version 2 of NRPE sends 1024 bytes in all.  The
    others have the names, the worst first.
    """
    unread = [one for one in kernels if one.error]
    named = {status: [(one, [found.defect for found in one.findings
                             if found.status == status and one.alarming(found)])
                      for one in kernels] for status in (VULNERABLE, UNKNOWN)}
    bad, blind = (sum(len(defects) for _one, defects in named[status])
                  for status in (VULNERABLE, UNKNOWN))
    accepted = sum(one.accepts(found) for one in kernels for found in one.findings)
    exits = NRPE_CRITICAL if bad else NRPE_UNKNOWN if blind or unread else NRPE_OK
    what = f"{len(kernels)} kernels" if len(kernels) > 1 else _called(kernels[0])[-_NRPE_NAME:]
    counts = ", ".join(f"{count} {said}" for count, said in (
        (bad, VULNERABLE), (blind, UNKNOWN), (len(unread), "cannot be read")) if count)
    first = _nrpe(exits, f"{what}: {counts}" if counts else
                  f"{what} {'have' if len(kernels) > 1 else 'has'} none of the defects"
                  + (f" but {accepted} accepted" if accepted else ""))
    # What follows the bar is for graphs.
    lines = [f"{first} | vulnerable={bad} unknown={blind + len(unread)} accepted={accepted}"]
    for status, rows in named.items():
        lines += [_line(f"{_called(one)}{_mark(one)} {status}: {' '.join(defects)}")
                  for one, defects in rows if defects]
        if status == VULNERABLE:
            lines += [_line(f"{one.path} cannot be read") for one in unread]
    return "\n".join(lines), exits


def nrpe_error(why: str) -> tuple[str, int]:
    """The same where nothing could be looked at: that is no alarm, and nobody is safe either."""
    return _nrpe(NRPE_UNKNOWN, why[:_NRPE_WHY]), NRPE_UNKNOWN


def _called(one: Audited) -> str:
    return one.version or one.path


def _nrpe(exits: int, text: str) -> str:
    return f"MIGRATION {_NRPE[exits]} - {_line(text)}"


def _line(text: str) -> str:
    """One line, and no bar: that begins what is for graphs, on each of them."""
    return " ".join(text.replace("|", "/").split())


def prometheus(kernels: Sequence[Audited]) -> str:
    """For the textfile collector of Prometheus' node exporter: 1 for the status that is true."""
    lines = [f"# HELP {_METRIC} Status of a defect of page migration in a kernel.",
             f"# TYPE {_METRIC} gauge"]
    for one in kernels:
        for found in one.findings:
            labels = {"kernel": one.version, "path": one.path, "defect": found.defect,
                      "status": found.status.lower().replace(" ", "_"), "from": found.source}
            said = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
            lines.append(f"{_METRIC}{{{said}}} 1")
    lines += [f"# HELP {_METRIC}_accepted A defect that is accepted, and not protected.",
              f"# TYPE {_METRIC}_accepted gauge"]
    lines += [f'{_METRIC}_accepted{{kernel="{_escaped(one.version)}",path="{_escaped(one.path)}",'
              f'defect="{found.defect}"}} 1'
              for one in kernels for found in one.findings if one.accepts(found)]
    lines += [f"# HELP {_METRIC}_running Whether a kernel is the one that runs.",
              f"# TYPE {_METRIC}_running gauge"]
    lines += [f'{_METRIC}_running{{kernel="{_escaped(one.version)}",path="{_escaped(one.path)}"}} '
              f'{int(one.runs)}' for one in kernels if not one.error]
    lines += [f"# HELP {_METRIC}_read Whether a kernel, and its code, could be read.",
              f"# TYPE {_METRIC}_read gauge"]
    lines += [f'{_METRIC}_read{{path="{_escaped(one.path)}"}} {int(one.read)}'
              for one in kernels]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
