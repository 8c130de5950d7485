# SPDX-License-Identifier: GPL-2.0
"""Makes variants of a source, vulnerable and fixed, with nothing else between them.

A tree that has the protection is the fixed one as it is, and the defect's revert.cocci takes the
protection out of it.  A tree that never had it is the vulnerable one as it is, and the patches of
queue/<base> put it in.  Where a defect is to be seen alone, the vulnerable tree has the patches
before its own, and the fixed one its own as well: what comes later in the queue is no part of the
proof.  Where a tree shares no PMD table and its queue has it share them again, both are made from
the queue.  A race that is too narrow to be met in each boot is made wider in both, by the defect's
amplifier.cocci.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.defect import Amplifier, Defect
from lab.errors import LabError
from lab.kernel import kconfig, spatch
from lab.kernel.source import Source, check
from lab.kernel.tree import Change, Scratch, first_line
from lab.paths import REPO
from lab.words import plural

QUEUE = REPO / "queue"
# How it begins to say that a tree does not have the defect, or that nothing here fixes it.
NOTHING = "nothing to compare for"


@dataclass(frozen=True)
class Variant:
    """A state of a source's tree, as a diff against its pristine state."""

    name: str                   # "vulnerable" or "fixed"
    how: str                    # "as it is", "queue/4.14 (3 patches)", "revert.cocci (2 places)"
    diff: str                   # git's unified diff, "" for the pristine tree
    key: str                    # hash of the diff
    places: tuple[str, ...]     # what a rule changed: "mm/rmap.c:1775 try_to_unmap_one"


def plan(source: Source, defect: Defect, form: str = "", whole: bool = False
         ) -> tuple[Variant, Variant]:
    """The vulnerable and the fixed variant of `source` for `defect`.  Changes no tree.

    `form` is another form of the queue to be the fixed one: "unshare" for series.unshare. Where the
    released tree has a protection, the vulnerable one is still the tree without that.  With a form,
    and with `whole`, the fixed one has all of the queue, also what comes after the defect's patches.
    LabError where the rule or the amplifier does not change exactly the places that the defect
    names, where a patch of the queue does not apply as it is (no fuzz), where there is neither
    a match nor a queue, and where the queue has no such form, or the defect is one of it.
    """
    def made(name: str, how: str, diff: str, places: tuple[str, ...] = ()) -> Variant:
        if defect.amplifier:
            diff, more = _amplified(source, defect, defect.amplifier, diff)
            how = f"{how}, and amplifier.cocci: {defect.amplifier.does}"
            places += tuple(f"{place} (amplifier.cocci)" for place in more)
        return make(name, how, with_files(source, defect.kernel.add, diff), places)

    reverted = _reverted(source, defect)
    whole = whole or bool(form) or not defect.queue.before_own
    form = form or ("" if reverted else _only_form(source.base.name, defect))
    name = f"series.{form}" if form else "series"
    queue = f"queue/{source.base.name}" + (f"/{name}" if form else "")
    patches = series(source.base.name, name)
    if form and not patches:
        raise LabError(f"FORM={form}: there is no {queue}")
    if form and name == defect.queue.form:
        raise LabError(f"FORM={form}: {defect.name} is a defect of that form of the fix")
    if reverted and defect.shares_tables and (why := _unshared(source)):
        shared = queue_diff(source, patches) if patches else ""
        if not shared or _unshared(source, shared):
            raise LabError(f"{NOTHING} {defect.name} in {source.version}: {why}")
        how = f"{queue} ({plural(len(patches), 'patches')})"
        reverted = _reverted(source, defect, shared)
        if reverted is None:
            raise LabError(f"{NOTHING} {defect.name} in {source.version}: revert.cocci finds no "
                           f"protection in it with {queue}")
        diff, places = reverted
        return made("vulnerable", f"{how}, and revert.cocci ({plural(len(places), 'places')})",
                    diff, places), made("fixed", how, shared)
    if reverted:
        diff, places = reverted
        fixed = made("fixed", f"{queue} ({plural(len(patches), 'patches')})",
                     queue_diff(source, patches)) if form else made("fixed", "as it is", "")
        return made("vulnerable", f"revert.cocci ({plural(len(places), 'places')})", diff,
                    places), fixed
    other = series(source.base.name, defect.queue.form) if defect.queue.form else []
    if not (patches and other or mending(patches, defect)):
        raise LabError(
            f"{NOTHING} {defect.name} in {source.version}: revert.cocci finds no "
            f"protection in {' '.join(defect.revert.files) if defect.revert else 'it'}, and {queue}"
            " has no patches that would add it")
    last = len(patches) if whole else patches.index(mending(patches, defect)[-1]) + 1
    how = plural(last, "patches") if whole else f"patches 1 to {last}"
    fixed = made("fixed", f"{queue} ({how})", queue_diff(source, patches[:last]))
    if defect.queue.form:
        # Where the queue has no such form of the fix, the tree was released with it.
        if not other:
            return made("vulnerable", "as it is", ""), fixed
        how = f"queue/{source.base.name}/{defect.queue.form} ({plural(len(other), 'patches')})"
        return made("vulnerable", how, queue_diff(source, other)), fixed
    part = _with_it(patches, defect)
    if not part:
        return made("vulnerable", "as it is", ""), fixed
    how = f"without {len(patches) - len(part)} of its {len(patches)} patches" \
        if defect.queue.without else f"patches 1 to {len(part)}"
    return made("vulnerable", f"{queue} ({how})", queue_diff(source, part)), fixed


def put(source: Source, variant: Variant) -> None:
    """Make source.tree the pristine tree plus variant.diff.  Call it under the tree's lock.

    A file that is right already is not touched; any other gets a new time, so that make rebuilds
    what depends on it, also where the file goes back to its pristine content.
    LabError where a file was changed by something else than the lab, and where another run has
    brought the tree up to date with another source.
    """
    check(source)
    with source.kept.scratch(source.pristine) as scratch:
        _lay(source, scratch, variant.diff)
        state = scratch.state()
    source.kept.switch(state)


def make(name: str, how: str, diff: str, places: tuple[str, ...] = ()) -> Variant:
    """A variant of a tree: `diff` against its pristine state, under a name."""
    key = hashlib.sha256(diff.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Variant(name, how, diff, key, places)


def on_top(source: Source, diff: str, patches: Sequence[str]) -> str:
    """`diff` and, in the same tree, patches, which are given as text."""
    with source.kept.scratch(source.pristine) as scratch:
        _lay(source, scratch, diff)
        for text in patches:
            _lay(source, scratch, text)
        return source.kept.diff(source.pristine, scratch.state())


def _lay(source: Source, scratch: Scratch, diff: str) -> None:
    """Apply to the pristine tree what was made of it."""
    if diff and (why := scratch.apply(diff)):
        raise LabError(f"the variant of {source.version} cannot be made: {first_line(why)}")


def with_files(source: Source, files: tuple[str, ...], diff: str) -> str:
    """`diff` and, in the same tree, files of this repository; C files are built in.

    LabError where the tree has a file of that name.
    """
    if not files:
        return diff
    built = [Path(file) for file in files if file.endswith(".c")]
    makefiles = tuple(sorted({str(file.parent / "Makefile") for file in built}))
    with source.kept.scratch(source.pristine) as scratch:
        _lay(source, scratch, diff)
        if own := scratch.take_out(files):
            raise LabError(f"{source.version} has a {own[0]} of its own")
        scratch.take_out(makefiles)
        for file in files:
            (scratch.files / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / file, scratch.files / file)
        for one in built:
            with open(scratch.files / one.parent / "Makefile", "a", encoding="utf-8") as text:
                text.write(f"obj-y += {one.stem}.o\n")
        return source.kept.diff(source.pristine, scratch.put_in((*makefiles, *files)))


# ---- rules ---------------------------------------------------------------------------------


def functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, first and last line of each function in a C file of kernel style.

    A body begins with a brace alone in column 0 and ends with one.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.rstrip() != "{":
            continue
        first = number
        while first > 0 and lines[first - 1].strip() and lines[first - 1][0] not in "}#/" \
                and not lines[first - 1].rstrip().endswith((";", "*/")):
            first -= 1
        name = re.search(r"(\w+)\s*\(", " ".join(lines[first:number]))
        last = next((later for later in range(number, len(lines))
                     if lines[later].startswith("}")), len(lines) - 1)
        if name:
            yield name[1], first + 1, last + 1


@dataclass(frozen=True)
class Place(Change):
    """A run of lines that a rule changed."""

    function: str               # "no function" outside of any

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.function}"


@dataclass(frozen=True)
class Edit:
    """What a rule of coccinelle makes of some files."""

    diff: str                   # against the pristine tree, what was there before the rule included
    places: tuple[Place, ...]   # what the rule changed itself
    functions: frozenset[str]   # all that are there in its files

    def wanted(self, places: tuple[str, ...]) -> dict[str, bool]:
        """Whether the rule must change it, for each function named in `places`, or must not.

        Of "a|b", b took the job over from a: in a tree that has both, a must have nothing of it.
        """
        wanted = {name: False for names in places for name in names.split("|")}
        for names in places:
            if there := [name for name in names.split("|") if name in self.functions]:
                wanted[there[-1]] = True
        return wanted


def edit(source: Source, rule: Path, files: tuple[str, ...], about: str, before: str = ""
         ) -> Edit | None:
    """Run a rule on those of `files` that the tree has, pristine plus the diff `before`; None if
    nothing matches.

    `about` names whose rule it is.  Changes no tree.  LabError where it has none of them.
    """
    with source.kept.scratch(source.pristine) as scratch:
        _lay(source, scratch, before)
        have = scratch.take_out(files)
        if not have:
            raise LabError(f"{source.version} has no {files[0]}, which {about} is about: "
                           "is it a whole kernel tree?")
        defined = [(path, *function) for path in have
                   for function in functions(_read(scratch.files / path))]
        old = scratch.state()
        spatch.patch(rule, scratch.files, have)
        new = scratch.put_in(have)
    if new == old:
        return None

    places = [
        Place(change.path, change.line, change.removed, change.added,
              next((name for path, name, first, last in defined
                    if path == change.path and first <= change.line <= last), "no function"))
        for change in source.kept.changes(old, new)]
    return Edit(source.kept.diff(source.pristine, new), tuple(places),
                frozenset(name for _path, name, _first, _last in defined))


def _reverted(source: Source, defect: Defect, before: str = ""
              ) -> tuple[str, tuple[str, ...]] | None:
    """The diff `before` and what the defect's revert.cocci makes of it, and the places; None where
    it matches nothing.

    A label that is removed alone goes with the jump that was removed: it is named with the place,
    and is none of its own.
    """
    rule = defect.revert
    if rule is None:
        return None
    made = edit(source, rule.rule, rule.files, defect.name, before)
    if made is None:
        return None

    changed: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    # In comments there is neither a call nor the end of a statement after it.
    call = re.compile(rf"\b({'|'.join(map(re.escape, rule.removes.split('|')))})(?=\s*[(;])")
    for place in made.places:
        gone = list(enumerate(place.removed, place.line))
        # Not one a change: a diff may show two places that are close as one.
        calls = [f"{place.path}:{line}" for line, text in gone if call.search(text)]
        if calls:
            changed.setdefault(place.function, []).extend(calls)
        elif gone and not place.added and \
                all(re.fullmatch(r"\s*\w+:\s*", text) for _line, text in gone):
            labels.setdefault(place.function, []).extend(f"{text.strip()} in line {line}"
                                                         for line, text in gone)
        else:
            raise LabError(f"{defect.name}/revert.cocci changes {place.path}:{place.line} "
                           f"({place.function}) of {source.version}, and that is no "
                           f"{rule.removes}: a kernel made so proves nothing; the rule needs "
                           "a look")

    wanted = made.wanted(rule.places)
    times = {name: rule.times * there for name, there in wanted.items()}
    wrong = [f"{name}: {len(changed.get(name, []))} instead of {times.get(name, 0)}"
             for name in sorted(wanted.keys() | changed.keys() | labels.keys())
             if len(changed.get(name, [])) != times.get(name, 0)
             or name in labels and name not in changed]
    if wrong:
        raise LabError(f"{defect.name}/revert.cocci changes other places of {source.version} "
                       f"than its defect.toml says ({'; '.join(wrong)}): a kernel made so proves "
                       "nothing; the rule needs a look")
    places = []
    for name in wanted:
        for where in changed.get(name, []):
            also = f" (and its label {', '.join(labels[name])})" if name in labels else ""
            places.append(f"{where} {name}{also}")
    return made.diff, tuple(places)


def _amplified(source: Source, defect: Defect, amplifier: Amplifier, before: str
               ) -> tuple[str, tuple[str, ...]]:
    """The diff `before` and the amplifier's, and the places that it changed."""
    made = edit(source, amplifier.rule, amplifier.files, f"the amplifier of {defect.name}", before)
    wanted = made.wanted(amplifier.places) if made else {}
    have = sorted(place.function for place in made.places) if made else []
    if not made or not have or have != sorted(name for name in wanted if wanted[name]):
        raise LabError(f"{defect.name}/amplifier.cocci changes {', '.join(have) or 'nothing'} in "
                       f"{source.version}, and not each of {' '.join(amplifier.places)} once: the "
                       "rule needs a look")
    return made.diff, tuple(map(str, made.places))


# ---- queue ---------------------------------------------------------------------------------


def series(base: str, form: str = "series") -> list[Path]:
    """The patches of queue/<base> in order; none where there is no such folder.

    `form` is the file that names them: a queue may have the same fixes in another form as well.
    """
    series = QUEUE / base / form
    if not series.exists():
        return []
    names = (line.split("#")[0].strip() for line in
             series.read_text(encoding="utf-8").splitlines())
    patches = [series.parent / name for name in names if name]
    for patch in patches:
        if not patch.is_file():
            raise LabError(f"queue/{base}/{form} names {patch.name}, and there is no such file")
    return patches


def mending(patches: list[Path], defect: Defect) -> list[Path]:
    """Those patches of a series that say they are a commit which fixes `defect`: there are several
    defects, and a queue may be about others.  Where there is no such commit, those that say they
    fix the one that brought it, or those whose subject it names.  All of them for a defect that
    names neither.

    To mention a commit is not to be it.
    """
    if defect.patches:
        return [patch for patch in patches
                if any(re.search(_subject(one), _read(patch)) for one in defect.patches)]
    if defect.brought:
        fixes = re.compile(rf"(?m)^Fixes: {defect.brought.split()[0]}")
        return [patch for patch in patches if fixes.search(_read(patch))]
    shas = "|".join(commit.split()[0] for commit in defect.upstream)
    said = re.compile(rf"(?m)^(?:commit (?:{shas})[0-9a-f]* upstream\.$"
                      rf"|\[ (?:Upstream this is|This is a part of|Replaces) commit (?:{shas}))")
    return [patch for patch in patches if not shas or said.search(_read(patch))]


def _subject(said: str) -> str:
    """What finds a patch by its subject, which may be folded in its header."""
    words = r"\s+".join(map(re.escape, said.split()))
    return rf"(?m)^Subject: \[PATCH\] {words}\n(?![ \t])"


def _only_form(base: str, defect: Defect) -> str:
    """The form of the queue that fixes `defect` where the usual one does not; "" for none."""
    if mending(series(base), defect):
        return ""
    for file in sorted((QUEUE / base).glob("series.*")):
        if file.name != defect.queue.form and mending(series(base, file.name), defect):
            return file.name.removeprefix("series.")
    return ""


def _with_it(patches: list[Path], defect: Defect) -> list[Path]:
    """The part of a series that leaves `defect` in, as its file says; none of it by default."""
    if defect.queue.before_own:
        return patches[:patches.index(mending(patches, defect)[0])]
    if not defect.queue.without:
        return []
    names = [re.sub(r"^\d+-", "", patch.stem) for patch in patches]
    if unknown := [name for name in defect.queue.without if name not in names]:
        raise LabError(f"{NOTHING} {defect.name} in {patches[0].parent.name}: its queue has no "
                       f"{unknown[0]}, which defects/{defect.name} would leave out")
    return [patch for patch, name in zip(patches, names) if name not in defect.queue.without]


def after(base: str) -> dict[str, tuple[str, ...]]:
    """By name, the numbers of those that a patch does not go out without, as the series says:

        0002-subject.patch      # with 0010
        0012-subject.patch      # after 0004 0008

    `after` is of those before it: without these it does not apply, or its changelog names them.
    `with` is of those behind it, which mend what it would bring.  Only what is kept from the lists
    for a while (lab/verbs/mailing.py) has to be in it.  LabError where there is no such patch.
    """
    numbers = [patch.name[:4] for patch in series(base)]
    file, found = QUEUE / base / "series", dict[str, tuple[str, ...]]()
    said = file.read_text(encoding="utf-8") if file.exists() else ""
    for name, word, others in re.findall(r"(?m)^([^#\s]+)[ \t]+# (after|with) (.+)$", said):
        found[name] = tuple(others.split())
        own = numbers.index(name[:4])
        there, where = (numbers[:own], "before") if word == "after" else (numbers[own + 1:], "behind")
        if wrong := [one for one in found[name] if one not in there]:
            raise LabError(f"{file}: {name} # {word} {wrong[0]}: no patch {where} it has that number")
    return found


def there_already(source: Source, patches: Sequence[Path]) -> list[Path]:
    """Those of the patches that the tree has, as a vendor's has, which are to be left out.

    LabError where one of the others does not apply, and nobody can say that the tree has it.
    """
    with source.kept.scratch(source.pristine) as scratch:
        if not scratch.apply(patches):
            return []
    # From the last one on, for a later patch may change the lines of one before it.
    have = []
    with source.kept.scratch(source.pristine) as scratch:
        for patch in reversed(patches):
            # Where both apply, a line may be there twice: that says nothing.
            if scratch.apply([patch], "--check") and not scratch.apply([patch], "--reverse"):
                have.append(patch)
        # The reverse of one that takes away what a patch before it brought applies without both.
        whole = "" if scratch.apply(patches) else scratch.state()
    left = [patch for patch in patches if patch not in have]
    with source.kept.scratch(source.pristine) as scratch:
        if left and scratch.apply(left):
            raise LabError(_why_not(source, left))
        if scratch.state() != whole:
            raise LabError(_why_not(source, patches))
    return have[::-1]


def fitting(source: Source, patches: Sequence[Path]) -> list[Path]:
    """Those of the patches that apply in order, each to the tree with those before it."""
    with source.kept.scratch(source.pristine) as scratch:
        return [patch for patch in patches if not scratch.apply([patch])]


def queue_diff(source: Source, patches: Sequence[Path]) -> str:
    """The diff that the patches make together on the pristine tree."""
    if not patches:
        raise LabError(f"there is no patch for {source.version} (base {source.base.name})")
    with source.kept.scratch(source.pristine) as scratch:
        if scratch.apply(patches):
            raise LabError(_why_not(source, patches))
        diff = source.kept.diff(source.pristine, scratch.state())
    if not diff:
        raise LabError(f"the patches of queue/{source.base.name} change nothing in "
                       f"{source.version}")
    return diff


def _unshared(source: Source, diff: str = "") -> str:
    """Why no kernel of the tree with `diff` shares PMD tables; "" if nothing is known of it."""
    with source.kept.scratch(source.pristine) as scratch:
        _lay(source, scratch, diff)
        scratch.take_out(kconfig.KCONFIGS)
        return kconfig.unshared(scratch.files)


def _why_not(source: Source, patches: Sequence[Path]) -> str:
    """One line about the first patch that git refuses: the patch, the file, the hunk, and the
    reverse."""
    with source.kept.scratch(source.pristine) as scratch:
        # Git may refuse all of them together for what it takes of each: it is the last one's then.
        patch, why = next(((patch, why) for patch in patches if (why := scratch.apply([patch]))),
                          (patches[-1], ""))
        back = scratch.apply([patch], "--check", "--reverse")
    if outside := re.search(r"(?:error: |invalid path ')((?:[^':]*/)?\.\.(?:/[^':]*)?)[':]", why):
        return f"a patch names a file outside the kernel tree: {outside[1]}"
    where = first_line(why).removeprefix("error: ")
    if failed := re.search(r"patch failed: (.+):(\d+)", why):
        # From the file's header to the next one's.
        part = _read(patch).partition(f"\n+++ b/{failed[1]}\n")[2].partition("\ndiff --git ")[0]
        hunks = re.findall(r"(?m)^@@ -(\d+)", part)
        number = f"hunk {hunks.index(failed[2]) + 1} of {len(hunks)} " if failed[2] in hunks else ""
        where = f"{failed[1]}, {number}(line {failed[2]})"
    already = ", nor does its reverse" if back else \
        ": its reverse does, so this tree has it already"
    return (f"{patch.parent.name}/{patch.name} does not apply to {source.version} at "
            f"{where}{already}")


def text_of(source: Source, variant: Variant, path: str) -> str:
    """The file `path` of a variant; LabError where there is none."""
    with source.kept.scratch(source.pristine) as scratch:
        _lay(source, scratch, variant.diff)
        if not scratch.take_out([path]):
            raise LabError(f"{source.version} has no {path}")
        return _read(scratch.files / path)


def _read(path: Path) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as handle:
        return handle.read()
