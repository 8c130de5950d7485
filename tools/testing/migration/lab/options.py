# SPDX-License-Identifier: GPL-2.0
"""The command line: which verbs there are, which options each takes, and their help.

Each option has a name and the variable of the Makefile that is the same: `--boots 3`, `BOOTS=3`.
Both can be written after a verb.  The Makefile hands its variables on as they are, and as
`BOOTS?=3` what it has from the environment: that is for the verbs that know it, and others do
without.
"""

import argparse
import dataclasses
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lab import arch, base, defect, wanted
from lab.errors import LabError
from lab.finding import VULNERABLE
from lab.guest import qemu

PROGRAM = "migration.py"
VARIABLE = re.compile(r"(?s)([A-Z]+)(\??)=(.*)")

Convert = Callable[[str, str], Any]     # of the variable's name and the text


def _number(variable: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise LabError(f"{variable}={text}: a whole number of 1 or more is wanted")
    return int(text)


def _count(variable: str, text: str) -> int | None:
    if text and not text.isdecimal():
        raise LabError(f"{variable}={text}: a whole number of 0 or more is wanted")
    return int(text) if text else None


def _flag(variable: str, text: str) -> bool:
    if text not in ("", "0", "1"):
        raise LabError(f"{variable}={text}: 0 or 1 is wanted")
    return text == "1"


def _text(_variable: str, text: str) -> str:
    return text


def _base(_variable: str, text: str) -> str:
    """The name of a base.  LabError where there is none of that name."""
    if text:
        base.load(text)
    return text


def _arch(_variable: str, text: str) -> str:
    """The lab's own name of an architecture.  LabError where there is none of that name."""
    return arch.load(text).name if text else ""


def _arches(variable: str, text: str) -> str:
    """The same, or `all` of them."""
    return text if text == ALL_ARCHES else _arch(variable, text)


def _kconfig(variable: str, text: str) -> str:
    """Options of a .config as NAME=VALUE, with blanks between them."""
    options: dict[str, str] = {}
    for word in text.replace(",", " ").split():
        found = re.fullmatch(r"(?:CONFIG_)?([A-Za-z0-9_]+)(?:=([A-Za-z0-9_.+-]+))?", word)
        if not found:
            raise LabError(f"{variable}={word}: an option is wanted, such as USERFAULTFD or NR_CPUS=16")
        name, value = found[1], found[2] or "y"
        if options.setdefault(name, value) != value:
            raise LabError(f"{variable}: {name} is there with two values, {options[name]} and {value}")
    return " ".join(f"{name}={value}" for name, value in options.items())


def _words(variable: str, text: str, known: Convert) -> tuple[str, ...]:
    """Names with blanks or commas between them, each once."""
    return tuple(dict.fromkeys(known(variable, name) for name in text.replace(",", " ").split()))


def _defects(variable: str, text: str) -> tuple[str, ...]:
    return _words(variable, text, lambda _variable, name: defect.load(name).name)


def _accepted(variable: str, text: str) -> tuple[str, ...]:
    """Names of defects, and ":VULNERABLE" behind those that are there for certain."""
    def known(_variable: str, word: str) -> str:
        name, colon, status = word.partition(":")
        if colon and (not name or status != VULNERABLE):
            raise LabError(f"{variable}={word}: {name or 'NAME'} is wanted, which accepts that it "
                           f"is unknown, or {name or 'NAME'}:{VULNERABLE}")
        return defect.load(name).name + colon + status
    return _words(variable, text, known)


def _bases(variable: str, text: str) -> tuple[str, ...]:
    return _words(variable, text, _base)


def _archs(variable: str, text: str) -> tuple[str, ...]:
    return _words(variable, text, _arch)


def _path(_variable: str, text: str) -> Path | None:
    """As it was given, so that it can be shown again: who uses it replaces ~."""
    return Path(text) if text else None


def _one_of(*names: str, text: str = "") -> Convert:
    listed = text or f"one of {', '.join(names)}"

    def convert(variable: str, value: str) -> str:
        if value and value not in names:
            raise LabError(f"{variable}={value}: {listed} is wanted")
        return value
    return convert


@dataclass(frozen=True)
class Option:
    """What can be said to a verb."""

    name: str               # as --name
    variable: str           # of the Makefile
    metavar: str
    help: str
    convert: Convert = _text
    default: Any = ""
    # Without a value it means 1.
    switch: bool = False

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add it to the parser of a verb."""
        def convert(text: str) -> Any:
            return self.convert(self.variable, text)
        more: dict[str, Any] = {"nargs": "?", "const": True} if self.switch else {}
        parser.add_argument(f"--{self.name}", dest=self.name, metavar=self.metavar, type=convert,
                            default=self.default, help=f"{self.help} ({self.variable}=)".replace(
                                "%", "%%"), **more)


@dataclass(frozen=True)
class Verb:
    """Something to do."""

    name: str
    does: str                       # in one line
    text: str                       # the rest
    takes: tuple[Option, ...] = ()
    examples: tuple[str, ...] = ()
    # Why it takes no others.
    instead: str = ""


# Said where the name of an architecture is wanted.
ALL_ARCHES = "all"
# A defect for examples.
OTHER = "pmd-share-flush"
DEFECT = Option(
    "defect", "DEFECT", "NAME",
    f"the defect, as `list` names it; default: {wanted.DEFECT}. Example: --defect {OTHER}")
BASE = Option(
    "base", "BASE", "VERSION",
    f"the kernel, as `list` names it; default: {wanted.BASE}, or with --kernel what its version "
    "says. Example: --base 6.1", _base)
KERNEL = Option(
    "kernel", "KERNEL", "DIR",
    "a kernel tree, of which the lab makes a copy; it is only read. Default: Debian's source "
    "package of --base. Example: --kernel ~/linux", _path, None)
ARCH = Option(
    "arch", "ARCH", "NAME",
    f"the architecture of kernel and guest, cross-built where it is not this machine's: "
    f"{', '.join(arch.names())}; default: this machine's. Example: --arch arm64", _arch)
BOOTS = Option(
    "boots", "BOOTS", "N",
    f"how often each kernel is booted, 1 or more; default: {wanted.BOOTS}. Example: --boots 20",
    _number, None)
ACCEL = Option(
    "accel", "ACCEL", "{kvm,tcg}",
    "how QEMU runs the guest; default: kvm if a guest comes up with it, else tcg. "
    "Example: --accel tcg", _one_of(*qemu.ACCELS))
DEBUG = Option(
    "debug", "DEBUG", "{0,1}",
    "build the kernels with lockdep, KASAN and more, which takes several times as long; "
    "default: 0. Example: --debug 1", _flag, False, True)
WITNESS = Option(
    "witness", "WITNESS", "{0,1}",
    "have both kernels check by themselves whether what migration copies is unmapped, as a second "
    "witness; for 6.12, 6.18 and 7.3; default: 0, with --debug 1. Example: --witness 1",
    _flag, False, True)
TIMEOUT = Option(
    "timeout", "TIMEOUT", "SECONDS",
    f"how long a boot may take, in seconds; default: {wanted.LIMIT}, or {wanted.DEBUG_LIMIT} with "
    "--debug 1. Example: --timeout 600", _number, None)
TESTS = Option(
    "tests", "TESTS", "ARGS",
    "arguments for the selftest (-f, -v, -t, -r; its -h explains them); default: none. "
    "Example: --tests='-t name'")
HARNESS = Option(
    "harness", "HARNESS", "DIR",
    "the kernel tree, 6.10 or later, whose kselftest harness the selftests are built with; "
    "default: that of --kernel or the base if it is new enough, else Debian's 6.12. "
    "Example: --harness ~/linux", _path, None)
PROVE_HARNESS = dataclasses.replace(
    HARNESS, help=f"{HARNESS.help.partition(' Example')[0]} Or ltp, or a tree of LTP: its tests "
    "are run, and not the selftests. Example: --harness ltp")
LTP = Option(
    "ltp", "LTP", "DIR",
    "with --harness ltp: LTP's source, a clone of https://github.com/linux-test-project/ltp; it is "
    "only read; must be named then. Example: --ltp ~/ltp", _path, None)
KCONFIG = Option(
    "kconfig", "KCONFIG", "OPTIONS",
    "more options of both kernels, with blanks or commas between them; y is the value where none is "
    "given, and n is off. What the base cannot have (bases/) is left out; default: none. "
    "Example: --kconfig 'USERFAULTFD NR_CPUS=16'", _kconfig)
FORM = Option(
    "form", "FORM", "NAME",
    "another form of the fix, queue/<base>/series.<name>: unshare for 4.4 to 4.18, flush for 6.12 "
    "to 7.3; default: series. Example: --form flush")
PART = Option(
    "part", "SERIES", "NAME",
    "what is mailed on its own: fixes, selftests, hugetlb, device, tracepoints, kunit or document; "
    "all of these, or the fixes of all stable branches (stable), a folder each; or ltp, the tests for "
    "LTP; default: all patches in one folder, to be applied. Example: --part fixes")
UPSTREAM = Option(
    "upstream", "UPSTREAM", "DIR",
    "a clone of mainline, from which a patch that is one of its commits has author, date, changelog "
    "and trailers, as a stable branch wants it; it is only read. Default: none, and these patches "
    "have the lab's. Example: --upstream ~/linux", _path, None)
OUT = Option(
    "out", "OUT", "DIR",
    "the folder of the results; default: out/ in the repository. Example: --out /tmp/out",
    _path, None)
VARIANT = Option(
    "variant", "VARIANT", "{vulnerable,fixed}",
    "which of the two kernels; default: vulnerable. Example: --variant fixed",
    _one_of(*wanted.KERNELS, text="vulnerable or fixed"))
GUEST_VARIANT = Option(
    "variant", "VARIANT", "{vulnerable,fixed,series}",
    "with --base or --kernel: which kernel the guest boots. series is the base with all that "
    "`series` adds to it, and KUnit; default: fixed. Example: --variant series",
    _one_of(*wanted.KERNELS, wanted.SERIES, text="vulnerable, fixed or series"))
MUTANT = Option(
    "mutant", "MUTANT", "NAME",
    "this mutant alone, as `list` names it with --full 1; default: all. "
    "Example: --mutant no-tlb-flush")
RESUME = Option(
    "resume", "RESUME", "{0,1}",
    "boot no kernel again that an earlier run in --out has booted; default: 0. "
    "Example: --resume 1", _flag, False, True)
FROM = Option(
    "from", "FROM", "N",
    "the first step, a number of patches; it is compared with nothing; default: 0, the kernel as "
    "released. Example: --from 11", _count, None)
TO = Option(
    "to", "TO", "N",
    "the last step; default: that with all patches. Example: --to 12", _count, None)
ROUNDS = Option(
    "rounds", "ROUNDS", "N",
    f"how often each kernel is booted, in turn; default: {wanted.ROUNDS}. Example: --rounds 5",
    _number, None)
SCHEME = Option(
    "scheme", "SCHEME", "NAME",
    "this locking scheme alone, as model/schemes.toml names it, and with the steps that lead to "
    "each bug; default: all. Example: --scheme unshare-5.4")
FULL = Option(
    "full", "FULL", "{0,1}",
    "also the searches that take minutes and GiB of memory, three processes among them; "
    "default: 0. Example: --full 1", _flag, False, True)
HOSTS = Option(
    "hosts", "HOSTS", "FILE",
    "a host a line, as GNU parallel's --sshloginfile has it: [JOBS/][USER@]HOST[:PORT], or : for "
    "this machine; default: this machine alone. Example: --hosts ~/hosts", _path, None)
TREES = Option(
    "trees", "TREES", "DIR",
    "the folder with the trees of the bases that no package has, as DIR/4.14 and so on, at the same "
    "path on each host; default: none, and these bases are left out. Example: --trees ~/linux",
    _path, None)
PLAN = Option(
    "plan", "PLAN", "{1,json,check}",
    "run nothing: 1 says what would be done and what it costs, json says it to a CI system, check "
    "says what is missing, with the exit status; default: run it. Example: --plan json",
    _one_of("0", "1", "json", "check"))
DEST = Option(
    "dest", "DEST", "DIR",
    "the folder that the programs go to; must be named. Example: --dest /tmp/selftests",
    _path, None)
FORMAT = Option(
    "format", "AUDIT", "{text,json,nrpe,prometheus}",
    "json for programs, nrpe for Nagios and its kin (then the exit status is theirs: 0, 2 for "
    "critical, 3 for unknown), prometheus for the textfile collector of its node exporter; "
    "default: text. Example: --format json", _one_of("text", "json", "nrpe", "prometheus"),
    "text")
IMAGE = Option(
    "image", "IMAGE", "FILES",
    "a kernel image, several with blanks between them, or a folder of them; nothing of them is "
    "executed. Default: none. Example: --image /boot")
RUNNING = Option(
    "running", "RUNNING", "{0,1}",
    "1: the kernel that runs here, by the image that was booted; default: 0. "
    "Example: --running 1", _flag, False, True)
SYMBOLS = Option(
    "symbols", "SYMBOLS", "FILE",
    "with --image, of one kernel: its System.map, or its vmlinux with symbols; default: the table "
    "that the image has. Example: --symbols /boot/System.map-6.1.0-56-amd64", _path, None)

ACCEPT = Option(
    "accept", "ACCEPT", "NAMES",
    "defects, by the names that the audit tells, that are lived with: they are told as accepted, and neither the "
    "exit status nor a check of Nagios says them. NAME accepts that it is unknown, "
    f"NAME:{VULNERABLE} also that it is there; default: none. "
    f"Example: --accept {wanted.DEFECT},{OTHER}:{VULNERABLE}", _accepted, ())


def _but(option: Option, text: str) -> Option:
    """The same option, with another help for some verb."""
    return dataclasses.replace(option, help=text)


def _output(text: str) -> Option:
    return Option("output", "O", "PATH", text, _path, None)


_WANTED = (DEFECT, BASE, KERNEL, ARCH, BOOTS, ACCEL, DEBUG, WITNESS, TIMEOUT, TESTS, PROVE_HARNESS,
           LTP, FORM, KCONFIG, OUT)

VERBS = (
    Verb("prove", "build a kernel with and without the protection, boot both, give a verdict",
         "Says whether the protection decides if migration loses writes. Exit status 0 only for "
         "PROVED.", _WANTED,
         ("prove", "prove --kernel ~/linux --boots 20", "prove --base 6.1 --debug 1",
          "prove --harness ltp --ltp ~/ltp")),
    Verb("audit", "say from the source of a kernel, or its image, which defects it has",
         "And what to apply. Builds nothing. With both a tree and the image made from it, each row "
         "is decided from both. Exit status 0 only if no row is VULNERABLE or unknown but those that "
         "--accept names, and what is only slow; 1 if one is; 2 for an error. No "
         "image tells all rows: Documentation/binary-audit.rst says what to accept, and hosts.rst "
         "beside it what to do.",
         (_but(KERNEL, "the kernel tree, which is only read; default: none. "
               "Example: --kernel ~/linux"), IMAGE, RUNNING, SYMBOLS,
          _but(ARCH, "with --kernel, the architecture that matters: nothing has to be protected in "
               "the folders of others; default: all. Example: --arch arm64"), FORMAT, ACCEPT,
          Option("defect", "DEFECT", "NAMES", "these defects alone, by the names that the audit tells; "
                 f"default: all. Example: --defect {OTHER}", _defects, ())),
         ("audit --running 1", "audit --kernel ~/linux", "audit --image /boot",
          "audit --image /boot/vmlinuz-6.1.0-56-amd64 --format json"),
         "it reads what KERNEL=, IMAGE= and RUNNING= name; DEFECT=, ARCH=, SYMBOLS=, ACCEPT= and "
         "AUDIT= go with them"),
    Verb("series", "write the patches that fix a kernel, for git am and git send-email",
         "For 6.12 and 7.3, patches that add the tests follow. With --kernel it first checks "
         "whether they apply. Beside them it writes report-<defect>.txt, the mail to the "
         "maintainers of a kernel that has the defect today. With --part, where a mail goes to no "
         "list, it is in private/, with all fixes: apply these, and send what mends the same only "
         "to whom it names. The command that mails takes the fixes beside it. Name --base or "
         "--kernel.",
         # A queue need not be a base; who writes the series says which there are.
         (Option("base", "BASE", "VERSION", "the queue, as `list` names it; default: what the "
                 "version of --kernel says. Example: --base 4.14"),
          _but(KERNEL, "a kernel tree that the patches must apply to; it is only read. Default: "
               "none, and nothing is checked. Example: --kernel ~/linux"),
          _but(FORM, "another form of the fix, queue/<base>/series.<name>: unshare for 4.4 to 4.18, "
               "flush for 6.12 to 7.3; or, for 6.12 to 7.3, unmapped, which is no fix but "
               "queue/unmapped; default: series. Example: --form flush"), PART, UPSTREAM,
          _but(LTP, "with --part ltp: LTP's source, which the patches must apply to; it is only "
               "read. Default: none, and nothing is checked. Example: --ltp ~/ltp"),
          _output("the folder that the patches go to, empty or new; must be named. "
                  "Example: --output /tmp/series")),
         ("series --base 4.14 --output /tmp/series",
          "series --kernel ~/linux --output /tmp/series",
          "series --kernel ~/linux --part all --output /tmp/series",
          "series --part stable --upstream ~/linux --output /tmp/stable",
          "series --part ltp --output /tmp/ltp"),
         "patches are the same for all architectures, and nothing is built or booted"),
    Verb("kselftest", "build the selftests and run them on this machine, or in a guest",
         "On this machine, as root, with the kernel's own runner: it needs two NUMA nodes, or "
         "skips and says so. With --base or --kernel they run in the guest. Standard output is "
         "KTAP. Exit status 0 unless a test failed.",
         (_but(DEFECT, "the tests of this defect; default: all tests. "
               f"Example: --defect {OTHER}"),
          _but(TESTS, "with --defect: arguments for its selftest (-f, -v, -t, -r; its -h explains "
               "them); default: none. Example: --tests='-v munmap_first'"), HARNESS,
          _but(BASE, "run in a guest, with this kernel, as `list` names it; default: run on this "
               "machine. Example: --base 6.12"),
          _but(KERNEL, "run in a guest, with the kernel of this tree, which is only read; default: "
               "run on this machine. Example: --kernel ~/linux"),
          GUEST_VARIANT, *(_but(option, f"with --base or --kernel: {option.help}")
                           for option in (ARCH, ACCEL, DEBUG, WITNESS, TIMEOUT, FORM, OUT))),
         ("kselftest", f"kselftest --defect {OTHER} --tests='-v munmap_first'",
          "kselftest --base 7.3 --variant series"), "each test runs once"),
    Verb("hosttest", "run the selftests on a machine that is in use",
         "Says first what it would change, and for how long. Refuses where the pool of huge pages "
         "is in use, where memory is short, and where what can take the machine down was asked "
         "for. Puts all back, also after Ctrl-C or a kill. Standard output is KTAP, and last a "
         "line for a monitoring system. Exit status 0 if tests ran and none failed, 1 if one "
         "failed, 3 if none could run, also with --plan.",
         (_but(DEFECT, "the tests of this defect; default: all tests. "
               f"Example: --defect {OTHER}"),
          Option("plan", "PLAN", "{0,1}", "only say what would be done; default: 0. "
                 "Example: --plan 1", _flag, False, True),
          Option("force", "FORCE", "{0,1}", "run although something is in the way; default: 0. "
                 "Example: --force 1", _flag, False, True), HARNESS),
         ("hosttest --plan 1", f"hosttest --defect {OTHER}"),
         "it runs here, on the kernel of this machine; what the tests may do beyond that, "
         "variables of the environment say"),
    Verb("selftests", "build the selftests, static, to run on any machine of one architecture",
         "", (DEST, HARNESS, _but(ARCH, "the architecture of that machine: "
                                  f"{', '.join(arch.names())}; default: this machine's. "
                                  "Example: --arch arm64")),
         ("selftests --dest /tmp/selftests",)),
    Verb("shell", "boot one of the two kernels to a prompt, on two NUMA nodes",
         "Ctrl-A X ends it.",
         (DEFECT, BASE, KERNEL, ARCH, ACCEL, DEBUG, WITNESS, PROVE_HARNESS,
          LTP, FORM, KCONFIG, VARIANT),
         ("shell --variant fixed --base 6.1",), "it boots one kernel, once, to a prompt"),
    Verb("mutants", "break the fix in one way at a time, and say whether a test sees it",
         "Exit status 0 only if everything was seen that can be.",
         (_but(BOOTS, f"how often each kernel is booted, 1 or more; default: {wanted.MUTANT_BOOTS}. "
               "Example: --boots 1"), MUTANT, RESUME,
          *(HARNESS if option is PROVE_HARNESS else option for option in _WANTED
            if option not in (DEFECT, TESTS, BOOTS, LTP))),
         ("mutants", "mutants --mutant no-tlb-flush --boots 1", "mutants --resume 1"),
         "each names its own selftests"),
    Verb("steps", "build and boot a kernel after each patch of a queue, and say what is new",
         "Step 0 is the kernel as released, also where it has a protection that prove would take "
         "out. Standard output is a line a step. Exit status 1 if a step does not build, does not "
         "boot, or has what the last step that booted had not: a kind of crash or complaint, a "
         "test that fails, a selftest that loses writes. That one step crashes and another does not "
         "is a matter of chance: more boots make it surer.",
         (Option("defect", "DEFECT", "NAMES", "run the selftests of these defects, with blanks or "
                 "commas between them, without what makes their races wider; default: "
                 f"{','.join(wanted.STEP_DEFECTS)}, for lost writes, and for crashes of several at "
                 f"once. Example: --defect {OTHER}", _defects, ()),
          FORM, _but(BOOTS, f"how often each step is booted, 1 or more; default: {wanted.BOOTS}. "
               "Example: --boots 5"),
          _but(TESTS, "arguments for the selftests (-f, -v, -t, -r; their -h explains them); "
               "default: variants that are about the defects. Example: --tests='-v churn_all'"),
          FROM, TO, RESUME, BASE, KERNEL, ARCH, ACCEL, DEBUG, TIMEOUT, HARNESS,
          _but(KCONFIG, KCONFIG.help.replace("both kernels", "all kernels")), OUT),
         ("steps --kernel ~/linux-4.18", "steps --base 6.12 --form flush --boots 5",
          "steps --base 6.1 --from 3 --to 4", "steps --base 6.1 --resume 1"),
         "it boots the queue as it is, a patch more each time"),
    Verb("matrix", "prove what is missing or stale of defects, bases and architectures",
         "On this machine, or with --hosts on many. Each host gets a clone of this commit, and what "
         "is proved goes into the records. Exit status 0 only if nothing is missing, nothing is "
         "stale, and all else is PROVED.",
         (HOSTS, PLAN,
          Option("defect", "DEFECT", "NAMES", "these defects, with blanks or commas between them; "
                 f"default: all. Example: --defect {wanted.DEFECT},{OTHER}", _defects, ()),
          Option("base", "BASE", "VERSIONS", "these bases; default: all. Example: "
                 "--base 6.1,6.12", _bases, ()),
          Option("arch", "ARCH", "NAMES", "these architectures; default: all. "
                 "Example: --arch x86_64", _archs, ()), TREES,
          _but(BOOTS, f"how often each kernel is booted; default: {wanted.MATRIX_BOOTS}. With it, a "
               "record of fewer boots is stale. Example: --boots 20"),
          Option("force", "FORCE", "{0,1}", "also what has another verdict than PROVED; default: "
                 "0. Example: --force 1", _flag, False, True),
          ACCEL, _but(DEBUG, "the matrix of kernels with lockdep, KASAN and more; default: 0. "
                      "Example: --debug 1"), TIMEOUT, OUT),
         ("matrix --plan 1", "matrix --hosts ~/hosts --boots 20",
          "matrix --base 6.12 --arch x86_64", "matrix --plan json"),
         "a job is `prove` of all defects of a base, as it is"),
    Verb("bench", "count what it takes to migrate pages of shared tables",
         "With each form of a queue, side by side: calls that moved a page, interrupts, faults, "
         "times. With --witness 1, what the check of --witness costs instead.",
         (BASE, KERNEL, ARCH, ROUNDS, ACCEL, WITNESS, TIMEOUT, HARNESS, OUT,
          _output("a file for the tables, as reStructuredText; default: none. "
                  "Example: --output /tmp/6.12.rst")),
         ("bench --base 6.12 --rounds 3 --output /tmp/6.12.rst", "bench --witness 1"),
         "it boots each form of a queue ROUNDS= times"),
    Verb("model", "try every order of the steps of each locking scheme, with spin",
         "Builds and boots nothing: see model/README. Exit status 0 only if each bug is found in "
         "the schemes that have it, and none in the others.", (SCHEME, FULL),
         ("model", "model --scheme unshare-5.4", "model --full 1")),
    Verb("report", "write what the runs and the records show to one page of HTML",
         "A new clone has the records alone, which make a page, too.", (OUT, _output("the file; default: report.html in --out. "
                           "Example: --output /tmp/report.html")),
         ("report --out /tmp/out --output /tmp/report.html",)),
    Verb("record", "write what the last proof, mutants or bench showed into the records",
         "", (OUT,), ("record --out /tmp/out",)),
    Verb("docs", "render Documentation/ to HTML, with Sphinx", "A warning is an error.",
         (_output("the folder that the pages go to; default: docs in out/ of the repository. "
                  "Example: --output /tmp/docs"),),
         ("docs --output /tmp/docs",)),
    Verb("package", "pack the selftests and the audit for machines without this repository",
         "Makes a .deb, and an .rpm where rpmbuild is there. The same commit gives the same bytes. "
         "SOURCE_DATE_EPOCH sets the time of the files.",
         (HARNESS,
          dataclasses.replace(ARCH, convert=_arches, help=(
              f"the architecture of the machines: {', '.join(arch.names())}; or all, which makes "
              "packages of each, and one archive with the selftests of all; default: this "
              "machine's. Example: --arch all")),
          _output("the folder that the packages go to; default: package in out/ of the "
                           "repository. Example: --output /tmp/package")),
         ("package --output /tmp/package", "package --arch all")),
    Verb("list", "name the defects; with --defect or --base, say more of them",
         "Alone: each defect in a line or two, with the versions that have it. Nothing is built, and "
         "no kernel is read: audit says what a kernel of yours has.",
         (Option("defect", "DEFECT", "NAMES", "all of these, with blanks or commas between them: what "
                 "fixes each, what shows it, where it is proved; default: a line or two of each. "
                 f"Example: --defect {OTHER}", _defects, ()),
          Option("base", "BASE", "VERSION", "what a release of this version has, and what patches "
                 "of queue/VERSION mend; default: all versions. Example: --base 5.15", _base),
          Option("full", "FULL", "{0,1}", "all of all defects, all bases and mutants; default: 0. "
                 "Example: --full 1", _flag, False, True)),
         (f"list --defect {OTHER}", "list --base 5.15", "list --full 1")),
    Verb("install", "install what the lab needs, with apt",
         "prove and the others do it themselves.", (ARCH,), ("install --arch arm64",)),
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the rest of the lab does."""

    def error(self, message: str) -> NoReturn:
        raise LabError(message)


def variables() -> set[str]:
    """The variables of the Makefile that a verb takes."""
    return {option.variable for verb in VERBS for option in verb.takes}


# What the Makefile does by itself.
_OF_MAKE = {
    "check": "Run the project's own tests: a minute or two with FAST=1, hours with FULL=1. TREES=DIR "
             "names a folder with kernel trees, as DIR/4.14 and so on; ARCH=NAME tries the guests of "
             "that architecture, too.",
    "clean": "Remove out/. The cache is ~/.cache/pmd-share-lab, or what $LAB_CACHE names.",
}


def manual(names: Sequence[str]) -> str:
    """The help of verbs for who types make: with the variables of the Makefile.

    LabError for what is no verb.
    """
    verbs = {verb.name: verb for verb in VERBS}
    if not names:
        return parser().format_help().rstrip()
    for name in names:
        if name not in verbs and name not in _OF_MAKE:
            raise LabError(f"make {name}: there is no such verb; `make` lists them")
    return "\n\n".join(_manual(verbs[name]) if name in verbs else
                       "\n".join([f"make {name}", "", *textwrap.wrap(_OF_MAKE[name], _WIDTH)])
                       for name in names)


# Of the help of a verb.
_WIDTH = 100
_COLUMN = 17


def _manual(verb: Verb) -> str:
    lines = textwrap.wrap(f"make {verb.name} " + " ".join(
        f"[{one.variable}={one.metavar}]" if "must be named." not in one.help else
        f"{one.variable}={one.metavar}" for one in verb.takes), _WIDTH,
        subsequent_indent=" " * (len(verb.name) + 6), break_long_words=False,
        break_on_hyphens=False)
    lines += ["", *textwrap.wrap(_as_variables(
        verb, f"{verb.does[0].upper()}{verb.does[1:]}. {verb.text}"), _WIDTH,
        break_on_hyphens=False)]
    if verb.takes:
        lines.append("")
    for one in verb.takes:
        head = f"  {one.variable}={one.metavar}"
        text = textwrap.wrap(_as_variables(verb, one.help), _WIDTH - _COLUMN - 1,
                             break_on_hyphens=False)
        if len(head) <= _COLUMN:
            head = f"{head:{_COLUMN}} {text.pop(0)}"
        lines += [head, *(" " * (_COLUMN + 1) + line for line in text)]
    if verb.examples:
        lines += ["", "Examples", *(f"  make {_example(verb, words)}" for words in verb.examples)]
    return "\n".join(lines)


def _as_variables(verb: Verb, text: str) -> str:
    """A help text, with `VARIABLE=` where it has `--option`."""
    def variable(found: re.Match[str]) -> str:
        name, value = found[1], found[2] or ""
        return f"{known[name]}={value.strip()}" if name in known else found[0]
    known = {one.name: one.variable for other in VERBS for one in other.takes}
    # What has one name and several variables, or the other way about, is as this verb has it.
    known |= {one.name: one.variable for one in verb.takes}
    text, example, given = text.partition(" Example: ")
    given = re.sub(r"^--(\w+)(?:[ =]|$)", lambda found: f"{known[found[1]]}=", given)
    text = re.sub(r"--(\w+)\b( \d+\b| ltp\b)?", variable, text)
    return re.sub(r"`(list|series|prove)`", r"`make \1`", text) + example + given


def _example(verb: Verb, words: str) -> str:
    """An example, as make takes it."""
    known = {one.name: one.variable for one in verb.takes}
    for name, var in known.items():
        words = re.sub(rf"--{name}[ =]", f"{var}=", words)
    return words


def parser() -> argparse.ArgumentParser:
    """All verbs."""
    top = _Parser(
        prog=PROGRAM, allow_abbrev=False, formatter_class=Help,
        description="Proves fixes of page migration. Each verb has a --help of its own.",
        epilog="`make VERB VARIABLE=value` at the top of the repository does the same as\n"
               f"`{PROGRAM} VERB --option value`: `make help VERB` names the variables.\n"
               "Exit status: 0 for success, 1 for another verdict than PROVED or a failed test,\n"
               "2 for an error, 130 after Ctrl-C.")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")
    for verb in VERBS:
        examples = "".join(f"\n  {PROGRAM} {words}" for words in verb.examples)
        sub = verbs.add_parser(
            verb.name, help=verb.does, allow_abbrev=False,
            formatter_class=Help,
            description=f"{verb.does[0].upper()}{verb.does[1:]}. {verb.text}",
            epilog=f"examples:{examples}" if examples else None)
        for option in verb.takes:
            option.add(sub)
        if verb.name == "install":
            sub.add_argument("--check", action="store_true",
                             help="also what `make check` needs; default: only what builds a "
                                  "kernel")
    return top


class Help(argparse.HelpFormatter):
    """Fills the lines of all but the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return text
        return super()._fill_text(text, width, indent)

    def _split_lines(self, text: str, width: int) -> list[str]:
        # Names stay whole, so that they can be copied.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The verb and its options; `found` are the names of those that only the environment has.

    LabError with one line where something is wrong.
    """
    if not argv:
        raise LabError(f"name a verb: `{PROGRAM} --help` lists them")
    verb = next((one for one in VERBS if argv[0] == one.name), None)
    words, left = [argv[0]], list(argv[1:])
    found: list[str] = []       # in the environment
    while left:
        word = left.pop(0)
        if verb and (said := VARIABLE.fullmatch(word)):
            option = next((one for one in verb.takes if one.variable == said[1]), None)
            if option:
                found += [option.name] if said[2] else []
                words.append(f"--{option.name}={said[3]}")
            elif not said[2]:
                raise _refused(verb, f"{said[1]}=")
        elif verb and left and any(word == f"--{one.name}" and not one.switch
                                   for one in verb.takes):
            # A value may begin with a hyphen: --tests -f.
            words.append(f"{word}={left.pop(0)}")
        else:
            words.append(word)
    args, rest = parser().parse_known_args(words)
    if rest and verb:
        name = rest[0].partition("=")[0]
        raise _refused(verb, name)
    if rest:
        raise LabError(f"unknown: {rest[0]}")
    args.found = found
    return args


def _refused(verb: Verb, name: str) -> LabError:
    reason = verb.instead or f"see `make help {verb.name}`"
    return LabError(f"{name} means nothing to {verb.name}: {reason}")
