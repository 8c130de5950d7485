# SPDX-License-Identifier: GPL-2.0
"""What a host does: `make prove` of each defect that is asked for of one base on one architecture.

	python3 -m lab.matrix.job UNIT WORK RESULTS

Runs in a clone of the commit that asked, and first looks whether it is that: what another commit,
other selftests or another queue would say is not asked for.  What goes on is told on standard
output, a line of JSON each.  RESULTS gets the run of each defect, and what came of it in job.json.
The exit status is 0 if each has a verdict, be it good or bad, or nothing to compare.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab import arch, base, defect, fragment, minder, provenance
from lab.errors import LabError
from lab.judge.summary import Summary
from lab.kernel import variant
from lab.kernel.kconfig import LOST
from lab.paths import HOME, REPO, is_full
from lab.tell import cells, record

# What begins a line that the front is to read.
MARK = "pmd-share-matrix "
FILE = "job.json"
# What a proof can be booted with again, and can be made again with its command.
_LARGE = ("image", "initrd")
MISSED, REFUSED = 1, 3


def unit(commit: str, name: str, on: str, machine: str, names: tuple[str, ...], debug: bool,
         words: tuple[str, ...], trees: str) -> dict[str, Any]:
    """What the file of a unit says."""
    return {"commit": commit, "name": name, "base": on, "arch": machine, "debug": debug,
            "words": list(words), "trees": trees,
            "defects": {one: _hashes(one, on) for one in names}}


def _hashes(name: str, on: str) -> list[str]:
    one = defect.load(name)
    return [provenance.selftests(one.show.selftests), cells.ground(one, on)]


def tell(**what: object) -> None:
    """A line for the front."""
    print(MARK + json.dumps(what), flush=True)


def main(asked: dict[str, Any], work: Path, dest: Path) -> int:
    """Do what is asked; the exit status."""
    name = asked["name"]
    tell(unit=name, login=os.environ.get("PARALLEL_SSHLOGIN", ""), host=platform.node())
    if why := _other(asked):
        tell(unit=name, failed=why)
        return REFUSED
    said: dict[str, dict[str, str]] = {}
    more = alike(asked["defects"])
    for one in asked["defects"]:
        tell(unit=name, begins=one)
        try:
            said[one] = _prove(asked, one, more, work / one, dest)
            if more and LOST in said[one].get("why", ""):
                more = []
                said[one] = _prove(asked, one, more, work / one, dest)
        except OSError as err:
            said[one] = {"said": "failed", "why": f"{err.filename or dest}: {err.strerror}"}
        shutil.rmtree(work / one, ignore_errors=True)
        tell(unit=name, defect=one, **said[one])
        text = json.dumps({"commit": asked["commit"], "host": platform.node(), "said": said})
        (dest / FILE).write_text(text + "\n", encoding="utf-8")
    return MISSED if any(one["said"] == "failed" for one in said.values()) else 0


def _other(asked: dict[str, Any]) -> str:
    """Why this is not what is asked for; "" if it is."""
    commit, changes = (provenance.git(*words) for words in (
        ("rev-parse", "HEAD"), ("status", "--porcelain")))
    if commit != asked["commit"]:
        return f"the lab there is of commit {(commit or 'none')[:12]}, not {asked['commit'][:12]}"
    if changes:
        return f"the lab there has changes: {changes.splitlines()[0].strip()}"
    for one, hashes in asked["defects"].items():
        for what, mine, theirs in zip(("selftests", "queue or rules"), _hashes(one, asked["base"]),
                                      hashes):
            if mine != theirs:
                return f"the {what} of {one} there are others than those that were asked for"
    return ""


def alike(names: Iterable[str]) -> list[str]:
    """A variable with which `make prove` builds the kernels of all these defects with the same
    options: those that any of them asks for.

    Most of a kernel is compiled anew for each other set of options, and that takes longer than the
    boots.  None where there is nothing to gain, or two of them ask for different values.
    """
    each = {defect.load(name).kernel.options for name in names}
    values: dict[str, str] = {}
    for options in each:
        for name, value in fragment.parse("\n".join(options), "the defects' options").items():
            if values.setdefault(name, value) != value:
                return []
    words = " ".join(f"{name}={value}" for name, value in sorted(values.items()))
    return [f"KCONFIG={words}"] if len(each) > 1 else []


def _prove(asked: dict[str, Any], name: str, more: list[str], out: Path, dest: Path
           ) -> dict[str, str]:
    """One proof, with `more` variables; what came of it."""
    words = [f"DEFECT={name}", f"BASE={asked['base']}", f"ARCH={asked['arch']}", f"OUT={out}",
             *asked["words"], *more]
    if base.load(asked["base"]).package is None:
        tree = Path(asked["trees"]) / asked["base"]
        if not asked["trees"] or not (tree / "Makefile").is_file():
            return {"said": "failed", "why": f"there is no tree {tree}" if asked["trees"] else
                    "it needs a tree: TREES=DIR names a folder that has it"}
        words.append(f"KERNEL={tree}")
    log = dest / f"{name}.log"
    with open(log, "w", encoding="utf-8") as told, subprocess.Popen(
            [sys.executable, "-B", minder.__file__, sys.executable, "-B", HOME / "migration.py",
             "prove", *words], cwd=REPO, stdin=subprocess.PIPE, stdout=told,
            stderr=subprocess.STDOUT) as process:
        status = process.wait()
    text = log.read_text("utf-8", "replace")
    found = [path for path in out.glob("*/verdict.json") if not path.parent.is_symlink()]
    if status not in (0, 1) or len(found) != 1:
        why = re.findall(r"(?m)^error: (.*)$", text)
        said = why[-1] if why else f"make prove ended with status {status}"
        if is_full(dest) or out.exists() and is_full(out):
            said = f"the disk is full at {dest}"
        if said.startswith(variant.NOTHING):
            return {"said": "none", "why": said,
                    "ground": cells.ground(defect.load(name), asked["base"])}
        return {"said": "failed", "why": said}
    run = record.load(found[0])
    home = found[0].parent
    kept = home.name + arch.tag(run.arch) + ("-debug" if run.debug else "")
    _keep(run, home, dest / kept)
    log.rename(dest / kept / "make-prove.log")
    return {"said": "done", "verdict": run.verdict, "folder": kept, "was": str(home)}


def _keep(run: Summary, home: Path, dest: Path) -> None:
    """Bring the evidence to where it is taken from."""
    if run.verdict == "PROVED":
        for name in _LARGE:
            for path in home.glob(f"*/{name}"):
                path.unlink()
    shutil.move(home, dest)


if __name__ == "__main__":
    try:
        sys.exit(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")),
                      Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()))
    except (LabError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(MISSED)
