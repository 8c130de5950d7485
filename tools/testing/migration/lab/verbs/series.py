# SPDX-License-Identifier: GPL-2.0
"""Writes the patches for a kernel as a series with a cover letter, to be mailed or applied.

These are the fixes that it lacks, the patches of its queue; for a kernel that has the most of them,
they are followed by those that add the tests and the document.

Beside them go the reports of what they mend: mails of their own, not numbered, and not *.patch, so
that they are not sent with the series.  A report that goes to no list is private, and is in the
folder `private`.  What mends the same must not go to a list either: see lab/verbs/mailing.py.

queue/cover-letter is for several queues, and says of each what is so.  What is between `#if NAME`
and `#else` or `#endif` is for a series that has a patch of that name, without its number, or for a
queue that has a file of that name beside its series; `#if mainline` for what goes there; `#if
commits` where some patches are commits of mainline, `#if commits without their text` where these
are not as in mainline.  `#if before NAME`
asks whether that patch is there and others come before it, and `{before NAME}` is how many: "patch
is", "two patches are".
`{lost vulnerable DEFECT VERSION}` is what the record of that proof says of its vulnerable kernel,
or its fixed one: in how many of its migrations writes were lost.  `{failed ...}` is of its tests,
and `{boots ...}` is how often it was booted.  `{... VERSION TEST}` is of one of its tests, and
`{... VERSION:16}` takes as many columns, for a table.
The changelog of a patch may ask for these, too.
A letter of fixes cannot ask for the fixed kernel of a stale record: that had other patches than are
sent with it.  Or it has `#if stale figures`, and `{stale}` there: the defects of such records, each
with its version.  A test says what it showed on its day.
Where nothing is left of the letter, the patches have nothing to do with each other, and get none.

A series with the tests has queue/tests/cover-letter.  Another form of a queue, series.<form>, is
written without them, with queue/cover-letter.<form> if there is one.  What the document of the
tests says of the kernel is another thing then: queue/document.<form> is a patch to that page, for a
tree with both, and is written beside the series.  The form "unmapped" is no fix:
it is what is in queue/unmapped/, with the letter that is there, for a kernel with or without
fixes.
"""

import contextlib
import email.utils
import functools
import os
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import base as bases, defect
from lab.errors import LabError
from lab.kernel import testseries, unmapped, variant
from lab.kernel.source import Source
from lab.paths import REPO, scratch_dir
from lab.tell import record
from lab.verbs import upstream
from lab.words import plural

COVER = REPO / "queue" / "cover-letter"
# For a part of a series, of which the letter of the whole would say too much.
PUBLIC = COVER.with_name("cover-letter.public")
_DOCUMENT = COVER.with_name("document")
# The folder of what must not go to a list.
PRIVATE = "private"
_LIST = re.compile(r"@(?:vger\.kernel\.org|kvack\.org|lists\..+)$")
_SECURITY = "security@kernel.org"
# The forms that are to be talked about before anybody applies them.
_ASKED_ABOUT = ("flush",)
# What is said of each other form of a queue, beside the commands that apply it.
FORMS = {"unshare": "to compare, and not to be used: two migrations at once crash such a kernel",
         "flush": "for review, and not to be used yet: Documentation/applying.rst says why",
         unmapped.FORM: "no fix: the kernel checks what migration unmaps"}
_RECORDED = re.compile(r"\{(lost|failed|boots) (vulnerable|fixed) (\S+) ([^\s:}]+)"
                       r"(?: ([\w.]+))?(?::(\d+))?\}")
_LOG, _TEXT = 72, 75        # columns of a changelog, and of a letter
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
            "eleven", "twelve")


@dataclass(frozen=True)
class Version:
    """Which version of a series it is, and what is another than in those before."""

    number: int = 1
    sections: tuple[tuple[int, tuple[str, ...]], ...] = ()  # version and its items, newest first

    def text(self) -> str:
        """All that changed, as it is in a letter; "" in a first version."""
        return self._told([(number, [re.sub(r"^- \d{4}: ", "- ", item) for item in items])
                           for number, items in self.sections])

    def of_patch(self, name: str) -> str:
        """What changed in the patch of that name alone: `- 0024: more cases`."""
        start = f"- {name[:4]}: "
        return self._told([(number, [f"- {item.removeprefix(start)}" for item in items
                                     if item.startswith(start)])
                           for number, items in self.sections])

    def without(self, numbers: Collection[str]) -> "Version":
        """The same, less what is about the patches of these numbers."""
        return Version(self.number, tuple(
            (number, tuple(item for item in items if item[2:6] not in numbers))
            for number, items in self.sections))

    @staticmethod
    def _told(sections: list[tuple[int, list[str]]]) -> str:
        return "".join(f"\nChanges since v{number - 1}:\n" + "".join(f"{one}\n" for one in items)
                       for number, items in sections if items)


FIRST = Version()


@dataclass(frozen=True)
class Series:
    """What was written."""

    cover: Path | None          # patches that are not one piece of work have none
    patches: tuple[Path, ...]
    reports: tuple[Path, ...] = ()      # mails that tell of what the patches mend
    document: Path | None = None        # a patch for when the page that it changes is there
    held: Mapping[Path, str] = field(default_factory=dict)  # patches for no list, and why
    public: "Series | None" = None      # the others, numbered on their own, where some are held

    def mailed(self) -> "Series | None":
        """What may go to lists; None where nothing may."""
        return self.public if self.held else self

    def moved(self, old: Path, new: Path) -> "Series":
        """The same, in another folder."""
        def there(path: Path) -> Path:
            return new / path.relative_to(old)
        return Series(self.cover and there(self.cover), tuple(map(there, self.patches)),
                      tuple(map(there, self.reports)), self.document and there(self.document),
                      {there(path): why for path, why in self.held.items()},
                      self.public and self.public.moved(old, new))


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it if the block ends without an exception, and is gone if
    not: a series that is there in part would be mailed so.

    Where `out` is there, what is in the folder goes into it.  LabError where that holds anything.
    """
    free(out)
    there = out.is_dir()
    out.parent.mkdir(parents=True, exist_ok=True)
    # One that is there may be all that the user can write to.
    with scratch_dir(f".{out.name}-", out if there else out.parent) as work:
        yield work
        if not there:
            mask = os.umask(0)
            os.umask(mask)
            work.chmod(0o777 & ~mask)
            work.rename(out)
            return
        for path in sorted(work.iterdir()):
            path.rename(out / path.name)


def free(out: Path) -> None:
    """LabError where the folder `out`, which need not be there, has anything in it."""
    if out.exists() and not out.is_dir():
        raise LabError(f"{out} is no folder: name an empty one with O=")
    if old := min(out.iterdir() if out.exists() else (), default=None):
        raise LabError(f"{out} holds {old.name} already: name an empty folder with O=")


def there(base: str, form: str) -> None:
    """LabError where there is no such form of the queue of `base`, or no queue."""
    if form == unmapped.FORM:
        if not unmapped.there(base):
            raise LabError(f"FORM={form}: queue/{unmapped.ROOM.name} has nothing for {base}, only "
                           f"for {', '.join(unmapped.names())}")
    elif form and not variant.series(base, f"series.{form}"):
        raise LabError(f"FORM={form}: there is no queue/{base}/series.{form}")
    if base not in queues():
        raise LabError(f"no series for {base}: there are {', '.join(queues())} with the fixes, "
                       f"{', '.join(testseries.names())} with the tests")


def write(base: str, out: Path, form: str = "", clone: upstream.Clone | None = None,
          without: Collection[str] = ()) -> Series:
    """Write the series for `base` to the folder `out`, as `git format-patch --cover-letter` would.

    What is a commit of mainline is written as that is in `clone`, if there is one.  `form` is
    another form of the queue: "unshare" for series.unshare, or what is in queue/unmapped.  The
    patches `without`, by name, are left out.  All are in one folder, to be tried and not mailed.
    LabError where there is none, and where `out` holds anything: two series in one folder
    would be mailed together.
    """
    there(base, form)
    with whole(out) as work:
        return _write(base, work, form, clone, without).moved(work, out)


def _write(base: str, out: Path, form: str, clone: upstream.Clone | None,
           without: Collection[str]) -> Series:
    apart = form == unmapped.FORM
    patches, added = _patches(base, form)
    patches = restored(base, [one for one in patches if one[0] not in without], clone)
    letter = testseries.COVER if added else COVER.with_suffix(f".{form}" if form else "")
    if without and (added or not branch(base)):
        # It says which patch does what by its number.
        letter = PUBLIC
    if apart:
        return put(base, out, patches, unmapped.ROOM / testseries.COVER.name, {})
    made = put(base, out, patches, letter, reports(base, form), rfc=form in _ASKED_ABOUT)
    document = _DOCUMENT.with_name(f"{_DOCUMENT.name}.{form}")
    if not document.exists():
        return made
    # Not *.patch, so that it is not mailed with what does not need the page.
    dest = out / "document.txt"
    dest.write_text(document.read_text(encoding="utf-8"), encoding="utf-8")
    return replace(made, document=dest)


def restored(base: str, patches: list[tuple[str, str]], clone: upstream.Clone | None
             ) -> list[tuple[str, str]]:
    """The patches, by name, with what those that are commits of mainline have in a clone of it."""
    if not clone:
        return patches
    return [(name, clone.restored(f"queue/{base}/{name}", text, subjects([text])[0]))
            for name, text in patches]


def _patches(base: str, form: str) -> tuple[list[tuple[str, str]], bool]:
    """The patches for `base` by name, and whether those that add the tests are among them."""
    if form == unmapped.FORM:
        return testseries.patches(base, unmapped.ROOM), True
    added = [] if form else testseries.patches(base)
    # A fix comes before the test that fails without it.
    queue = variant.series(base, f"series.{form}" if form else "series")
    return [(path.name, path.read_text(encoding="utf-8")) for path in queue] + added, bool(added)


def files(base: str, form: str = "", alone: bool = False) -> list[str]:
    """The files of a kernel tree that `check` looks at, for a base that may have no series."""
    if base not in (unmapped.names() if form == unmapped.FORM else queues()):
        return []
    patches = [(path.name, path.read_text(encoding="utf-8")) for path in variant.series(base)] \
        if alone else _patches(base, form)[0]
    return sorted({name for _name, text in patches
                   for name in re.findall(r"(?m)^(?:---|\+\+\+) [ab]/(.+)$", text)})


def put(base: str, out: Path, patches: Sequence[tuple[str, str]], letter: Path,
        told: dict[str, str], version: Version = FIRST, end: str = "", rfc: bool = False,
        hold: Mapping[str, str] | None = None) -> Series:
    """Write these patches for `base` to the folder `out`, with numbers, under a letter if any.

    `told` are reports by the name of the defect, and `end` comes at the end of the letter.  `rfc`
    is of what is sent to hear what others think of it.  `hold` has patches by name that must not go
    to a list, and why: then all are in a folder in `out`, in the order in which they are applied,
    and those that may go out are in `out` as a series of their own.
    """
    out.mkdir(parents=True, exist_ok=True)
    mails = []
    for name, text in told.items():
        folder = out / PRIVATE if private(text) else out
        folder.mkdir(exist_ok=True)
        mails.append(folder / f"report-{name}.txt")
        mails[-1].write_text(text, encoding="utf-8")
    if not hold:
        return replace(_put(base, out, patches, letter, version, end, rfc), reports=tuple(mails))
    made = _put(base, out / PRIVATE, patches, letter, version, end, rfc)
    held = {path: hold[name] for path, (name, _text) in zip(made.patches, patches) if name in hold}
    left = [one for one in patches if one[0] not in hold]
    public = None
    if left:
        public = _put(base, out, left, PUBLIC if len(left) > 1 or not branch(base) else None,
                      version.without({name[:4] for name in hold}), end, rfc)
    return replace(made, reports=tuple(mails), held=held, public=public)


def _put(base: str, out: Path, patches: Sequence[tuple[str, str]], letter: Path | None,
         version: Version, end: str, rfc: bool) -> Series:
    names = [f"{number:04d}-{_bare(name)}.patch" for number, (name, _text) in
             enumerate(patches, 1)]
    out.mkdir(parents=True, exist_ok=True)
    total = len(patches)
    words = ["RFC PATCH" if rfc else "PATCH", f"v{version.number}" if version.number > 1 else "",
             branch(base)]
    lead = " ".join(word for word in words if word)
    text_of_it = _letter(base, patches, letter) if letter else ""
    written = []
    for number, (name, (kept, text)) in enumerate(zip(names, patches), 1):
        dest = out / name
        tag = f"[{lead} {_numbered(number, total)}]" if total > 1 or end else f"[{lead}]"
        # The log keeps nothing of what is below `---`.
        below = version.of_patch(kept) if total > 1 else version.text()
        dest.write_text(_below(_subject(recorded(text, kept), tag), below), encoding="utf-8")
        written.append(dest)
    if not text_of_it:
        return Series(None, tuple(written))
    cover = out / "0000-cover-letter.patch"
    text_of_it = f"{text_of_it.rstrip()}\n{version.text()}"
    cover.write_text(_cover(f"[{lead} {_numbered(0, total)}]", text_of_it, patches) + end,
                     encoding="utf-8")
    return Series(cover, tuple(written))


def _numbered(number: int, total: int) -> str:
    """Which of how many, as git has it in a subject: of as many digits as the last."""
    return f"{number:0{len(str(total))}}/{total}"


def _below(mail: str, changes: str) -> str:
    """The mail with `---` and a diffstat before its diff, and what changed, as git has them."""
    log, diff = re.split(r"(?m)^(?=diff --git )", mail, maxsplit=1)
    if not re.search(r"(?m)^---$", log):
        log = f"{log.rstrip()}\n---\n{testseries.summary(diff)}\n"
    if changes:
        log = re.sub(r"(?m)^---\n", lambda found: f"{found[0]}{changes.lstrip()}\n", log, count=1)
    return log + diff


def branch(base: str) -> str:
    """The stable branch of a base, as it is in the subject of a mail; "" for mainline, and for
    what is no kernel."""
    mainline = [name for name in bases.names() if not bases.late(name)][-1]
    if base == mainline or not base[:1].isdigit():
        return ""
    return f"{bases.branch(base)}.y"


def about(report: str) -> dict[str, str]:
    """The subject of the patch that a report is about, for each queue that it names."""
    found = re.findall(r"(?m)^Patch \(([^)\n]+)\):\n((?:  .+\n)+)", report)
    return {base: " ".join(subject.split())
            for names, subject in found for base in names.split(", ")}


def reports(base: str, form: str = "") -> dict[str, str]:
    """By the name of the defect: the reports about the queue of `base`, or another form of it, of
    what it mends."""
    queue = variant.series(base, f"series.{form}" if form else "series")
    found = {}
    for one in map(defect.load, defect.names()):
        if one.report and variant.mending(queue, one):
            text = one.report.read_text(encoding="utf-8")
            if base in about(text):
                found[one.name] = text
    return found


def private(report: str) -> bool:
    """Whether a report is for those alone to whom it goes: it has no list in its headers, or has
    the security team."""
    head = re.sub(r"\n[ \t]+", " ", report.partition("\n\n")[0])
    asked = [address for _who, address in email.utils.getaddresses(
        re.findall(r"(?mi)^(?:to|cc): (.*)$", head))]
    return _SECURITY in asked or not any(map(_LIST.search, asked))


def kept_back() -> dict[str, str]:
    """What must not go to a list, for any kernel: subjects of patches that mend what a private
    report is about, each with the name of that defect.

    The same patch for a kernel that the report does not name says as much of the bug.
    """
    return dict(_kept_back(variant.QUEUE, private))


# To read all queues takes a second, and each series asks.
@functools.cache
def _kept_back(_queue: Path, private: Callable[[str], bool]) -> dict[str, str]:
    found = dict[str, str]()
    for one in map(defect.load, defect.names()):
        text = one.report.read_text(encoding="utf-8") if one.report else ""
        if not text or not private(text):
            continue
        named = about(text)
        mails = [] if one.queue.form else [
            path.read_text(encoding="utf-8") for base in named
            for path in variant.mending(variant.series(base), one)]
        for subject in (*named.values(), *one.patches, *subjects(mails)):
            found.setdefault(subject, one.name)
    return found


def check(source: Source, form: str = "", alone: bool = False) -> tuple[list[str], list[str]]:
    """The patches for the source's base by name: those to be applied to it, and those that it has.

    LabError where another one does not apply: which, where, and why.  `alone` is without those
    that add the tests.
    """
    name = source.base.name
    if form == unmapped.FORM and not unmapped.there(name):
        raise LabError(f"no series for {source.version} (base {name}): queue/"
                       f"{unmapped.ROOM.name} has {', '.join(unmapped.names())}")
    with scratch_dir("lab-series-") as folder:
        home = folder / testseries.ROOM.name
        home.mkdir()
        paths = [] if form == unmapped.FORM else \
            variant.series(name, f"series.{form}" if form else "series")
        if form == unmapped.FORM or not form and not alone:
            room = unmapped.ROOM if form else testseries.ROOM
            for patch, text in testseries.patches(name, room):
                paths.append(home / patch)
                paths[-1].write_text(text, encoding="utf-8")
        if not paths:
            raise LabError(f"no series for {source.version} (base {name})")
        try:
            have = variant.there_already(source, paths)
        except LabError as exc:
            # What a vendor has changed there is for the vendor to merge.
            words = " ".join([f"BASE={name}", *([f"FORM={form}"] if form else []),
                              *(["SERIES=fixes"] if alone else [])])
            raise LabError(f"{exc}. Without KERNEL=, {words} writes them unchecked, to be merged by "
                           "hand; make audit KERNEL= says which of them the tree needs") from exc
        return [path.name for path in paths if path not in have], [path.name for path in have]


def queues() -> list[str]:
    """The bases that have a queue, oldest first."""
    return sorted((path.parent.name for path in variant.QUEUE.glob("*.*/series")),
                  key=lambda name: [int(part) for part in name.split(".")])


def subjects(texts: list[str]) -> list[str]:
    """The subject of each patch, on one line and without the tag."""
    found = []
    for text in texts:
        head = text.split("\n\n", 1)[0]
        subject = re.search(r"(?ms)^Subject: \[PATCH\] (.*?)(?=^\S|\Z)", head)
        if not subject:
            raise LabError("a patch has no line Subject: [PATCH]")
        found.append(" ".join(subject[1].split()))
    return found


def _subject(text: str, tag: str) -> str:
    """The mail with `tag` in its subject, folded as mail headers are."""
    folded = _folded(f"Subject: {tag} {subjects([text])[0]}")
    return re.sub(r"(?ms)^Subject: .*?(?=^\S|^$)", lambda _found: folded + "\n", text, count=1)


def _folded(header: str) -> str:
    """A header on several lines, where it had blanks: only there it is read back as it was."""
    return "\n ".join(textwrap.wrap(header, 74, break_on_hyphens=False, break_long_words=False))


def _bare(name: str) -> str:
    """The file name of a patch without its number and suffix."""
    return re.sub(r"^\d+-|\.patch$", "", name)


def _letter(base: str, patches: Sequence[tuple[str, str]], letter: Path) -> str:
    """Title and text of the cover letter as it is for these patches, "" where there is none."""
    if not letter.exists():
        return ""
    before = {_bare(name): number for number, (name, _text) in enumerate(patches)}
    there = {*before, *(f"before {name}" for name, number in before.items() if number),
             *(path.name for path in (variant.QUEUE / base).glob("series.*"))}
    texts = [text for _name, text in patches]
    shortlog = "\n".join(line for number, subject in enumerate(subjects(texts), 1) for line in
                         textwrap.wrap(f"{number}. {subject}", 75, initial_indent="  ",
                                       subsequent_indent="     ", break_on_hyphens=False))
    if not branch(base):
        there.add("mainline")
    if any(map(upstream.commit_of, texts)):
        there.add("commits")
    if any(map(upstream.of_lab, texts)):
        there.add("commits without their text")
    words = {"base": base, "shortlog": shortlog,
             **{f"before {name}": _how_many(number) for name, number in before.items()}}
    told = letter.read_text(encoding="utf-8")
    text = _for(told, there)
    if of_fixes := letter.parent == COVER.parent or letter.name.endswith(".fixes"):
        stale = _stale(text)
        with_it = _for(told, {*there, "stale figures"}) if stale else ""
        if "{stale}" in with_it:
            text, of_fixes = with_it, False
            words["stale"] = textwrap.fill(", ".join(stale), _TEXT - 2, initial_indent="  ",
                                           subsequent_indent="  ", break_on_hyphens=False)
    text = recorded(text, str(letter), _TEXT, of_fixes)
    try:
        return text.strip().format_map(words)
    except KeyError as err:
        raise LabError(f"{letter} asks for {err}, which the series for {base} has not") from err


def _stale(text: str) -> list[str]:
    """The defects, each with its version, of whose fixed kernel a text asks a stale record."""
    asked = sorted({(name, version) for _what, which, name, version, _test, _columns in
                    _RECORDED.findall(text) if which == "fixed"})
    return [f"{name} {version}" for name, version in asked
            for path in [record.RECORDS / name / f"{version}.json"]
            if path.exists() and record.stale(record.load(path))]


def recorded(text: str, asks: str, width: int = _LOG, of_fixes: bool = False) -> str:
    """The text with the figures of the records that it asks for.  `asks` is what it is, for an
    error.  A paragraph with a figure is filled again, and no other.  LabError where there is no
    such record, and where one of fixes asks for what a stale one says of them."""
    def put_in(found: re.Match[str]) -> str:
        what, which, name, version, test, columns = found.groups()
        figure = _figure(asks, of_fixes, what, which, name, version)
        if test:
            path = record.RECORDS / name / f"{version}.json"
            of_it = record.load(path).variants[which].by_test.get(test)
            if not of_it or what == "boots":
                raise LabError(f"{asks} asks for {what} of {test}, which {name} on {version} has "
                               "not")
            figure = f"{of_it.lost_migrations} of {of_it.migrations}" if what == "lost" \
                else f"{of_it.failed} of {of_it.runs}"
        return figure.rjust(int(columns or 0))

    return "\n\n".join(_filled(_RECORDED.sub(put_in, part), width) if _RECORDED.search(part)
                       else part for part in text.split("\n\n"))


def _filled(part: str, width: int) -> str:
    """A paragraph in lines of at most that width; what is a table or a list stays as it is."""
    lines = part.strip("\n").splitlines()
    lines, end = (lines[:lines.index("---")], lines[lines.index("---"):]) if "---" in lines \
        else (lines, [])
    if any(re.match(r"\s|[-\[]|[A-Z][\w-]*: ", line) for line in lines):
        return part
    gap = "  " if ".  " in part else " "
    words = re.sub(r"([.:?])\n", rf"\1{gap}", "\n".join(lines)).replace("\n", " ")
    # checkpatch.pl wants a commit's number beside that word; and a figure is read as one.
    words = re.sub(r"\b([Cc]ommit) (?=[0-9a-f]{12})", "\\1\0", words)
    words = re.sub(r"\b(\d+) of (?=\d)", "\\1\0of\0", words)
    filled = textwrap.wrap(words, width, break_on_hyphens=False, break_long_words=False)
    return "\n".join([*filled, *end]).replace("\0", " ") + part[len(part.rstrip("\n")):]


def _figure(asks: str, of_fixes: bool, what: str, which: str, name: str, version: str) -> str:
    """A figure of a record: so many of so many, or of boots just how many."""
    path = record.RECORDS / name / f"{version}.json"
    if not path.exists():
        raise LabError(f"{asks} asks for a figure of {name} on {version}, and there is no record "
                       "of it")
    run = record.load(path)
    if of_fixes and which != "vulnerable" and (why := record.stale(run)):
        raise LabError(f"{asks} asks for the fixed kernel of {name} on {version}, and the record "
                       f"of it is of other patches or tests: {why}")
    kernel = run.variants[which]
    if what == "boots":
        return str(kernel.boots)
    part, whole = {"lost": (kernel.lost_migrations, kernel.migrations),
                   "failed": (kernel.failed, kernel.tests)}[what]
    return f"{part} of {whole}"


def _how_many(patches: int) -> str:
    number = _NUMBERS[patches] if patches < len(_NUMBERS) else str(patches)
    return "patch is" if patches == 1 else f"{number} patches are"


def _cover(tag: str, letter: str, patches: Sequence[tuple[str, str]]) -> str:
    title, body = letter.split("\n\n", 1)
    texts = [text for _name, text in patches]
    # One who wrote a patch upstream has not written the letter.
    head = next((text for text in texts if not upstream.commit_of(text)), texts[0])
    date = re.search(r"(?m)^Date: (.+)$", head.split("\n\n", 1)[0])
    if not date:
        raise LabError(f"{patches[0][0]} has no Date:")
    subject = _folded(f"Subject: {tag} {title.strip()}")
    return (f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: {upstream.LAB}\nDate: {date[1]}\n"
            f"{subject}\n\n{body.rstrip()}\n\n{_diffstat(texts)}")


def _for(letter: str, names: set[str]) -> str:
    """The letter as it is for a series that has what is named."""
    kept, wanted = [], [True]
    for line in letter.splitlines(keepends=True):
        word, _space, name = line.rstrip().partition(" ")
        if word == "#if":
            wanted.append(name in names)
        elif word == "#else":
            wanted[-1] = not wanted[-1]
        elif word == "#endif":
            wanted.pop()
        elif word == "#after":          # of lab/verbs/mailing.py
            pass
        elif all(wanted):
            kept.append(line)
    return "".join(kept)


def _diffstat(texts: list[str]) -> str:
    """What all patches together change, as git format-patch has it at the end of a letter."""
    sums: dict[str, tuple[int, int]] = {}
    for line in testseries.count("".join(texts), "--numstat").splitlines():
        added, removed, name = line.split("\t")
        have = sums.get(name, (0, 0))
        sums[name] = (have[0] + int(added), have[1] + int(removed))
    width = max(map(len, sums))
    most = max(added + removed for added, removed in sums.values())
    digits = len(str(most))
    # The bar has what a line of 78 leaves.
    room = max(78 - width - digits - 5, 10)
    lines = [f" {name:{width}} | {added + removed:{digits}} "
             f"{_bar('+', added, most, room)}{_bar('-', removed, most, room)}".rstrip()
             for name, (added, removed) in sorted(sums.items())]
    changed = [f" {plural(len(sums), 'files')} changed"]
    for which, word, sign in ((0, "insertions", "+"), (1, "deletions", "-")):
        if count := sum(one[which] for one in sums.values()):
            changed.append(f"{plural(count, word)}({sign})")
    return "\n".join([*lines, ", ".join(changed), ""])


def _bar(sign: str, count: int, most: int, room: int) -> str:
    """`count` signs, or as many of `room` as it is of the `most`, but one at least."""
    return sign * (count if most <= room else -(-count * room // most))
