# SPDX-License-Identifier: GPL-2.0
"""defects/<name>/report: mails that can be sent as they are, and say nothing that is not here.

Each rule is a function that says what is wrong with a report.  The second half of this file breaks
a report in each of these ways, so that no rule is there which cannot fail.
"""

import re
from collections.abc import Callable
from email import message_from_string, policy
from email.utils import getaddresses
from pathlib import Path

import pytest

from lab import base as bases, defect, options, readings
from lab.errors import LabError
from lab.guest import selftest
from lab.kernel import variant
from lab.paths import REPO
from lab.verbs import mailing, series

REPORTS = [name for name in defect.names() if defect.load(name).report]
# What nobody has fixed, or a release of today that was read has, and has no report, and why.
WITHOUT: dict[str, str] = {
    "pmd-share-busy": "nothing is lost by it, and what fixes it is a series with a letter of its own",
    "hugetlb-mremap-astray": "stable@ has upstream's fix: 6.1.191, 6.12.112, 6.18.55, 6.6.159-rc1",
    "hugetlb-poison-read": "5.10 alone has it, and the patch for it is upstream's fix: stable@ gets that",
    "thp-cow-isolation": "5.10 alone has it, and the patch for it is upstream's fix: stable@ gets that",
}
# What is fixed upstream, by a commit that is known, has one where it is live in a kernel of today all the same.
LIVE = {"hugetlb-punch-migrate", "pmd-share-mprotect", "pmd-share-split", "pmd-share-walkers"}

COLUMNS = 75
LINES = 64
SECURITY = "security@kernel.org"
# A local part, and a domain with a dot.
_ADDRESS = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_LIST = re.compile(r"@(vger\.kernel\.org|kvack\.org|lists\..+)$")

Rule = Callable[[str, str], list[str]]


def parts(text: str) -> tuple[dict[str, str], str]:
    """The headers on one line each, and the body."""
    head, _empty, body = text.partition("\n\n")
    headers = {}
    for line in re.sub(r"\n[ \t]+", " ", head).split("\n"):
        name, colon, value = line.partition(": ")
        headers[name] = value.strip() if colon else ""
    return headers, body


def addresses(text: str, *names: str) -> list[str]:
    headers = parts(text)[0]
    return [address for _who, address in getaddresses([headers.get(name, "") for name in names])]


def words(text: str) -> str:
    return " ".join(text.split())


def has_its_headers(_name: str, text: str) -> list[str]:
    headers = parts(text)[0]
    wrong = [f"no {key}:" for key in ("To", "Cc", "Subject") if not headers.get(key)]
    if sorted(headers) != ["Cc", "Subject", "To"]:
        wrong.append(f"headers are {', '.join(headers)}")
    # As a mail program reads it.
    mail = message_from_string(text, policy=policy.default)
    return wrong + [str(one) for one in mail.defects]


def has_good_addresses(_name: str, text: str) -> list[str]:
    headers = parts(text)[0]
    wrong = []
    for key in ("To", "Cc"):
        # One address for each comma: a name with one in it would have to be in quotes.
        for one in headers.get(key, "").split(","):
            address = re.fullmatch(r"(?:[^<>@,]+ <(\S+)>|(\S+))", one.strip())
            if not address or not _ADDRESS.fullmatch(address[1] or address[2]):
                wrong.append(f"{key}: {one.strip()}")
    found = addresses(text, "To", "Cc")
    return wrong + [f"{one} twice" for one in set(found) if found.count(one) > 1]


def is_narrow_and_short(_name: str, text: str) -> list[str]:
    wrong = [f"line {number} is too wide" for number, line in enumerate(text.split("\n"), 1)
             if len(line) > COLUMNS]
    lines = parts(text)[1].rstrip("\n").count("\n") + 1
    if lines > LINES:
        wrong.append(f"{lines} lines")
    if not text.isascii() or re.search(r"[ \t]$|\t", text, re.M) or not text.endswith("\n"):
        wrong.append("blanks at an end, tabs, or no plain text")
    # Plain text has no marks.
    if re.search(r"(?m)^#|\*\*|``|^```", text):
        wrong.append("markup")
    return wrong


def says_to_whom(_name: str, text: str) -> list[str]:
    """First what the sender takes out, then who gets it and why; no list gets what is private."""
    body = parts(text)[1]
    first, _empty, rest = body.partition("\n\n")
    wrong = []
    if not re.fullmatch(r"\[ Take this out before you send\..*\(email-clients\.rst\)\. \]",
                        words(first)):
        wrong.append("no paragraph for the sender")
    if not rest.startswith("This goes to "):
        wrong.append("does not say to whom it goes")
    lists = [one for one in addresses(text, "To", "Cc") if _LIST.search(one)]
    private = "and to no list: " in words(rest.partition("\n\n")[0])
    if private and lists:
        wrong.append(f"is for no list, and goes to {lists[0]}")
    if not private and not lists:
        wrong.append("does not say why it goes to no list")
    if SECURITY in addresses(text, "To", "Cc") and not private:
        wrong.append("goes to the security team and to a list")
    # To send the patch with its Cc: lines would tell a list.
    if private and "--suppress-cc=body" not in first:
        wrong.append("does not say that the patch names a list")
    return wrong


def mending(name: str, base: str) -> list[Path]:
    """The patches that a report may name: of a defect of another form of the queue, all."""
    one = defect.load(name)
    queue = variant.series(base)
    return queue if one.queue.form else variant.mending(queue, one)


def names_its_patch(name: str, text: str) -> list[str]:
    found = series.about(text)
    wrong = [] if found else ["names no patch"]
    for base, subject in found.items():
        if base not in bases.names():
            wrong.append(f"there is no base {base}")
            continue
        have = series.subjects([path.read_text(encoding="utf-8") for path in mending(name, base)])
        if subject not in have:
            wrong.append(f"queue/{base} does not mend it with: {subject}")
    return wrong


def names_what_can_be_run(name: str, text: str) -> list[str]:
    body = parts(text)[1]
    wrong = []
    proofs = 0
    # A command has a line of its own, or stands in quotes, where it may be folded.
    kept = re.sub(r'"[^"]*"', lambda found: words(found[0]), body)
    for command in re.findall(r'(?:(?<=")|(?m:^  ))make (\w+ (?:[A-Z]+=[^\s"]+ ?)+)', kept):
        verb, *rest = command.split()
        given = dict(word.split("=", 1) for word in rest)
        takes = {one.name: {option.variable for option in one.takes} for one in options.VERBS}
        if verb not in takes:
            wrong.append(f"there is no make {verb}")
        elif strange := set(given) - takes[verb]:
            wrong.append(f"make {verb} takes no {' '.join(sorted(strange))}")
        if verb == "prove":
            proofs += 1
            if given.get("DEFECT") != name:
                wrong.append(f"make prove DEFECT={given.get('DEFECT')}")
            if given.get("BASE") not in series.about(text):
                wrong.append(f"make prove BASE={given.get('BASE')}")
            elif not bases.load(given["BASE"]).package and "KERNEL" not in given:
                wrong.append(f"make prove BASE={given['BASE']} needs KERNEL=")
    if proofs != body.count("make prove "):
        wrong.append("a make prove that cannot be read")
    if not proofs:
        wrong.append("no make prove")
    folder = REPO / selftest.FOLDER
    tests = defect.load(name).show.selftests
    programs = re.findall(r"(?m)^  ((?:[A-Z_]+=\S+ )*)\./(\w+)(?: -v (\w+))?$", body)
    if not programs:
        wrong.append("no selftest to run")
    for test in {test for _set, test, _variant in programs} | set(re.findall(r"(\w+)\.c, ", body)):
        if test not in tests:
            wrong.append(f"{test} does not show it")
    for setting, test, one in programs:
        source = (folder / f"{test}.c")
        code = source.read_text(encoding="utf-8") if source.exists() else ""
        if one and f"({test}, {one})" not in code:
            wrong.append(f"{test} has no {one}")
        # What it does not run without, and no other.
        allows = {"HUGETLB_PMD_CHURN"} if "churn_lacks(" in code else set()
        if re.search(r'if \(!env_long\("HUGETLB_PMD_MIGRATE_OFFLINE", 0\)\)\s+SKIP', code):
            allows.add("HUGETLB_PMD_MIGRATE_OFFLINE")
        if set(re.findall(r"(\w+)=", setting)) != allows:
            wrong.append(f"{test} wants {' '.join(sorted(allows)) or 'nothing'} to be set")
    return wrong


def names_known_commits(name: str, text: str) -> list[str]:
    """Each hash, and the title beside it, is in the defect's file or in a patch that mends it."""
    known = (defect.load(name).folder / defect.FILE).read_text(encoding="utf-8")
    for base, subject in series.about(text).items():
        if base in bases.names():
            known += "".join(patch for patch in (path.read_text(encoding="utf-8")
                                                 for path in mending(name, base))
                             if series.subjects([patch]) == [subject])
    known = words(known)
    body = words(parts(text)[1])
    hashes = set(re.findall(r"(?<![\w.])[0-9a-f]{7,40}(?![\w.])", body))
    wrong = [f"{sha} is not known" for sha in sorted(hashes)
             if len(sha) < 12 or sha not in known]
    if not hashes:
        wrong.append("names no commit")
    for sha, title in re.findall(r'\b([0-9a-f]{12}) \("(.+?)"\)', body):
        if f'{sha} ("{title}")' not in known and f"{sha} {title}" not in known:
            wrong.append(f"{sha} is not: {title}")
    return wrong


def says_all(_name: str, text: str) -> list[str]:
    body = parts(text)[1]
    wrong = [start for start in ("What happens: ", "How to see it", "Since: ", "Patch (",
                                 "What it does not do: ") if f"\n\n{start}" not in body]
    # A version that stays what it is, and not "latest".
    if not re.search(r"\b\d\.\d+\.\d+\b", body):
        wrong.append("no version")
    return wrong


RULES: list[Rule] = [has_its_headers, has_good_addresses, is_narrow_and_short, says_to_whom,
                     names_its_patch, names_what_can_be_run, names_known_commits, says_all]


def report(name: str) -> str:
    path = defect.load(name).report
    assert path
    return path.read_text(encoding="utf-8")


def live(names: list[str]) -> set[str]:
    """Those that a release has that was read, of a branch that has not ended."""
    read = [of_it.released for base, of_it in readings.load().items() if not mailing.ended(base)]
    return {name for name in names if any(row.get(name) == readings.VULNERABLE for row in read)}


def missing(names: list[str], have: list[str], without: dict[str, str]) -> list[str]:
    """Defects that nobody has fixed, or that are live all the same, of which nobody is told."""
    wanted = {name for name in names if defect.load(name).brought} | LIVE | live(names)
    return sorted(wanted - set(have) - {name for name, why in without.items() if why})


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("rule", RULES)
def test_report(name: str, rule: Rule) -> None:
    assert rule(name, report(name)) == []


def test_what_nobody_has_fixed_is_reported() -> None:
    assert missing(defect.names(), REPORTS, WITHOUT) == []
    assert set(WITHOUT) <= set(defect.names()) - set(REPORTS), "one that has a report"
    # Fixed upstream, by a commit that is known; and 6.18.35 has it.
    assert missing(["hugetlb-mremap-astray"], REPORTS, {}) == ["hugetlb-mremap-astray"]
    assert missing(["hugetlb-subpool"], REPORTS, {}) == []


# The rules can fail
# ------------------


HANG, SPLIT, WALKERS = "hugetlb-mremap-hang", "pmd-share-split", "pmd-share-walkers"


@pytest.mark.parametrize("rule, name, old, new, says", [
    (has_its_headers, HANG, "Cc: security@kernel.org\n", "", "no Cc:"),
    (has_its_headers, HANG, "Subject: h", "Subjekt: h", "no Subject:"),
    (has_its_headers, HANG, "To: ", "From: me@example.org\nTo: ", "headers are From, To"),
    (has_good_addresses, HANG, "<osalvador@suse.de>", "osalvador@suse.de", "To: Oscar Salvador os"),
    (has_good_addresses, HANG, "osalvador@suse.de", "osalvador", "To: Oscar Salvador <osalvador>"),
    (has_good_addresses, HANG, "suse.de>,", "suse.de>", "To: Oscar Salvador <osalvador@suse.de> A"),
    (has_good_addresses, HANG, "Cc: s", "Cc: Song, Muchun <s@example.org>, s", "Cc: Song"),
    (has_good_addresses, HANG, "Cc: s", "Cc: osalvador@suse.de, s", "osalvador@suse.de twice"),
    (is_narrow_and_short, HANG, "What happens: ", "What happens: " + "x" * 40 + " ", "too wide"),
    (is_narrow_and_short, HANG, "What happens: ", "x\n" * 5 + "What happens: ", "67 lines"),
    (is_narrow_and_short, HANG, "What happens: ", "What happens:\t", "tabs"),
    (is_narrow_and_short, HANG, "What happens: ", "What happens\u2014", "no plain text"),
    (is_narrow_and_short, HANG, "What happens: ", "**What happens**: ", "markup"),
    (says_to_whom, HANG, "[ Take this out", "[ Take out", "no paragraph for the sender"),
    (says_to_whom, HANG, "(email-clients.rst)", "", "no paragraph for the sender"),
    (says_to_whom, HANG, "This goes to ", "For ", "does not say to whom"),
    (says_to_whom, HANG, "Cc: ", "Cc: linux-mm@kvack.org, ", "goes to linux-mm@kvack.org"),
    (says_to_whom, HANG, "--suppress-cc=body", "as it is", "that the patch names a list"),
    (says_to_whom, HANG, "to no list: ", "nobody else: ", "why it goes to no list"),
    (says_to_whom, SPLIT, "Cc: ", "Cc: security@kernel.org, ", "the security team and to a list"),
    (says_to_whom, WALKERS, "Cc: ", "Cc: cip-dev@lists.cip-project.org, ", "cip-dev"),
    (names_its_patch, HANG, "Patch (", "Patches (", "names no patch"),
    (names_its_patch, HANG, "its own lock\n", "any lock\n", "queue/7.3 does not mend it with"),
    (names_its_patch, HANG, "(7.3, 6.18", "(7.2, 6.18", "there is no base 7.2"),
    # Of another queue, and one of this queue that mends something else.
    (names_its_patch, HANG, "6.6, 6.1)", "6.6, 5.10)", "queue/5.10 does not mend it"),
    (names_its_patch, HANG, "hugetlb: mremap() must not wait for its own lock",
     "mm: migrate: let move_pages() see that a PMD table is shared", "queue/7.3 does not mend it"),
    (names_what_can_be_run, HANG, "make prove", "make proof", "there is no make proof"),
    (names_what_can_be_run, HANG, "  make prove", "make prove", "cannot be read"),
    (names_what_can_be_run, HANG, f"DEFECT={HANG}", "DEFECT=hang", "make prove DEFECT=hang"),
    (names_what_can_be_run, HANG, f" DEFECT={HANG}", "", "make prove DEFECT=None"),
    (names_what_can_be_run, HANG, "BASE=7.3", "BASE=5.10", "make prove BASE=5.10"),
    (names_what_can_be_run, HANG, " BASE=7.3", "", "make prove BASE=None"),
    (names_what_can_be_run, WALKERS, " KERNEL=/path/to/5.4", "", "BASE=5.4 needs KERNEL="),
    (names_what_can_be_run, WALKERS, "audit KERNEL", "odit KERNEL", "there is no make odit"),
    (names_what_can_be_run, HANG, "./hugetlb_pmd_mremap", "./hugetlb_pmd_flush", "does not show"),
    (names_what_can_be_run, HANG, "mremap.c, I", "flush.c, I", "hugetlb_pmd_flush does not show"),
    (names_what_can_be_run, HANG, "  HUGETLB_PMD_CHURN=1 ./", "with ", "no selftest to run"),
    (names_what_can_be_run, HANG, "HUGETLB_PMD_CHURN=1 ", "", "wants HUGETLB_PMD_CHURN to be set"),
    (names_what_can_be_run, SPLIT, "  ./hugetlb", "  X=1 ./hugetlb", "wants nothing to be set"),
    (names_what_can_be_run, WALKERS, "-v two_migrate_user", "-v two", "churn has no two"),
    (names_known_commits, HANG, "3a47c54f09c4", "3a47c54f09c5", "3a47c54f09c5 is not known"),
    (names_known_commits, HANG, "3a47c54f09c4", "3a47c54", "3a47c54 is not known"),
    (names_known_commits, HANG, "3a47c54f09c4", "a commit", "names no commit"),
    (names_known_commits, HANG, 'revert use', 'use', "3a47c54f09c4 is not: hugetlbfs: use"),
    (says_all, HANG, "What it does not do", "It does not do", "What it does not do"),
    (says_all, HANG, "What happens", "It happens", "What happens"),
    (says_all, HANG, "How to see it", "To see it", "How to see it"),
    (says_all, HANG, "Since: ", "For long: ", "Since"),
    (says_all, HANG, "Patch (", "Patches (", "Patch ("),
])
def test_each_rule_can_fail(rule: Rule, name: str, old: str, new: str, says: str) -> None:
    text = report(name)
    assert rule(name, text) == []
    broken = text.replace(old, new)
    assert broken != text, "nothing is broken"
    assert any(says in wrong for wrong in rule(name, broken)), rule(name, broken)


def test_a_version_is_wanted() -> None:
    broken = re.sub(r"\b(\d\.\d+)\.\d+\b", r"\1", report(HANG))
    assert says_all(HANG, broken) == ["no version"]


def test_a_report_that_is_missing_is_named() -> None:
    left = [name for name in REPORTS if name not in (HANG, SPLIT)]
    assert missing(defect.names(), left, WITHOUT) == [HANG, SPLIT]
    assert missing(defect.names(), left, {**WITHOUT, HANG: "why", SPLIT: ""}) == [SPLIT]


# Beside the patches
# ------------------


def test_a_series_has_its_reports(tmp_path: Path) -> None:
    written = series.write("6.1", tmp_path)
    assert [path.name for path in written.reports] == [
        "report-hugetlb-cow-fault.txt", "report-hugetlb-mremap-hang.txt",
        "report-hugetlb-mremap-large.txt", "report-hugetlb-mremap-private.txt",
        "report-hugetlb-punch-poison.txt", "report-hugetlb-punch-private.txt",
        "report-hugetlb-truncate-fault.txt", "report-pmd-share-gather-range.txt",
        "report-pmd-share-move-pages.txt", "report-pmd-share-no-lock.txt",
        "report-pmd-share-protect.txt", "report-pmd-share-split.txt"]
    for path in written.reports:
        assert path.read_text(encoding="utf-8") == report(path.stem.removeprefix("report-"))
    # git am and git send-email take all that is *.patch.
    assert not set(written.reports) & set(tmp_path.glob("*.patch"))
    for path in tmp_path.glob("*.patch"):
        path.unlink()
    with pytest.raises(LabError, match="holds private already"):
        series.write("6.1", tmp_path)


def test_a_queue_that_a_report_is_not_about_has_none(tmp_path: Path) -> None:
    # It mends pmd-share-mprotect and others, and nobody maintains that kernel.
    assert series.write("4.4", tmp_path).reports == ()
    assert not list(tmp_path.glob("report-*"))
    assert series.about("Patch (5.10, 4.14):\n  mm: a\n  b\n\nPatch (6.1):\n  c\n") == {
        "5.10": "mm: a b", "4.14": "mm: a b", "6.1": "c"}


def test_a_queue_that_does_not_mend_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "about", lambda _text: {"2.6.34": "x", "6.1": "x"})
    assert not series.reports("2.6.34")
    assert HANG in series.reports("6.1")


def test_every_report_goes_with_a_series() -> None:
    went = {name for base in bases.names() for name in series.reports(base)}
    assert went == set(REPORTS)
