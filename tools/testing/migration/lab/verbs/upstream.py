# SPDX-License-Identifier: GPL-2.0
"""Gives a patch that is a commit of mainline what that commit has: author, date and changelog.

The queue has them in the lab's own words, as it keeps no text of others.  A stable branch wants
what is upstream, with its trailers, and what differs in brackets above the new sign-off.  It comes
from a clone of mainline that the user has.

Such a patch begins with `commit <40 digits> upstream.`  The last part of its changelog, before the
trailers, is one in brackets: `[ ` at the beginning of a line, ` ]` at the end of one.  That says
what differs, and nothing about the words of the changelog.  Where the subject differs it has
`The subject upstream is "..."`.
"""

import email.utils
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from lab.errors import LabError

LAB = "pmd-share lab <lab@invalid>"
_NAMED = re.compile(r"commit ([0-9a-f]{40}) upstream\.\n\n")
_BRACKETS = re.compile(r"(?ms)^\[ .*? \]$")
_SUBJECT = re.compile(r'The subject upstream is "(.+?)"\.')
_MIME = ("MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n"
         "Content-Transfer-Encoding: 8bit\n")
# What git am takes for the end of a changelog.
_END = re.compile(r"(?m)^(?:---(?: .*)?|diff -.*|Index: .*)$")


def commit_of(mail: str) -> str:
    """The commit of mainline that a patch is; "" where it is none."""
    found = _NAMED.match(mail.partition("\n\n")[2])
    return found[1] if found else ""


def of_lab(mail: str) -> bool:
    """Whether a patch is a commit of mainline, and has not what that has."""
    return bool(commit_of(mail)) and f"\nFrom: {LAB}\n" in mail.partition("\n\n")[0]


def differs(mail: str) -> str:
    """The part of a changelog that says what differs, with its brackets; "" where there is not
    one, at the end."""
    log = mail.partition("\n\n")[2].partition("\ndiff --git ")[0].partition("\n---\n")[0]
    found = list(_BRACKETS.finditer(log))
    if len(found) != 1 or re.search(r"\n\n(?!\[)(?![A-Z][a-z-]+: )", log[found[0].end():].rstrip()):
        return ""
    return found[0][0]


@dataclass(frozen=True)
class Commit:
    """Of a commit, what a mail has."""

    name: str       # of its author
    address: str
    date: str
    subject: str
    text: str       # the rest of its message


@dataclass(frozen=True)
class Clone:
    """A clone of mainline, which is only read."""

    path: Path

    def restored(self, name: str, mail: str, subject: str) -> str:
        """The mail with what its commit has; `name` is the patch's file, `subject` what it has.

        LabError where that commit is not there, or is another one than the patch says.
        """
        commit = commit_of(mail)
        if not commit:
            return mail
        held, notes = self.commit(commit), differs(mail)
        if not notes:
            raise LabError(f"{name} does not end with what differs, in brackets")
        said = _SUBJECT.search(" ".join(notes.split()))
        if held.subject != (wanted := said[1] if said else subject):
            raise LabError(f'UPSTREAM={self.path}: the subject of {commit[:12]} is "{held.subject}" '
                           f'there, and "{wanted}" in {name}')
        if end := _END.search(held.text):
            raise LabError(f"UPSTREAM={self.path}: the changelog of {commit[:12]} has a line "
                           f"\"{end[0]}\", which git am takes for its end")
        diff = mail[mail.index("\ndiff --git "):]
        author = email.utils.formataddr((held.name, held.address))
        log = f"commit {commit} upstream.\n\n{held.text}\n{notes}\n"
        mime = "" if f"{held.subject}{log}{diff}".isascii() else _MIME
        return (f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: {author}\nDate: {held.date}\n"
                f"Subject: [PATCH] {held.subject}\n{mime}\n{log}{diff}")

    def commit(self, name: str) -> Commit:
        """LabError where the clone has no such commit."""
        raw = _git(self.path, "cat-file", "commit", name)
        if isinstance(raw, str):
            raise LabError(f"UPSTREAM={self.path}: commit {name[:12]} is not there: name a clone of "
                           "mainline, and not a shallow one")
        head, _, message = raw.partition(b"\n\n")
        coding = re.search(rb"(?m)^encoding (\S+)$", head)
        # Of the headers no other one is mailed.
        line = re.search(rb"(?m)^author .*$", head)
        try:
            by, text = (_decoded(part, coding[1].decode("ascii", "replace") if coding else "utf-8")
                        for part in (line[0] if line else b"", message))
        except UnicodeError as err:
            raise LabError(f"UPSTREAM={self.path}: the author or the changelog of {name[:12]} is "
                           "not in the encoding that the commit has") from err
        author = re.search(r"^author (.*) ?<(.*)> (\d+) ([+-])(\d\d)(\d\d)$", by)
        if not author:
            raise LabError(f"UPSTREAM={self.path}: commit {name[:12]} has no author that can be read")
        ahead = timedelta(hours=int(author[5]), minutes=int(author[6]))
        date = datetime.fromtimestamp(int(author[3]), timezone(
            -ahead if author[4] == "-" else ahead))
        subject, _, rest = text.strip("\n").partition("\n\n")
        return Commit(author[1].strip(), author[2], email.utils.format_datetime(date),
                      " ".join(subject.split()), rest.rstrip())


def clone(path: Path) -> Clone:
    """A clone of mainline.  LabError where git has nothing there."""
    if not path.is_dir():
        raise LabError(f"UPSTREAM={path}: there is no such folder")
    said = _git(path, "rev-parse", "--git-dir")
    if isinstance(said, str):
        raise LabError(f"UPSTREAM={path}: this is no clone of mainline: {said}")
    return Clone(path)


def _decoded(held: bytes, coding: str) -> str:
    """UnicodeError where it is in another one: what is mailed has no U+FFFD for a name."""
    try:
        return held.decode(coding)
    except LookupError:
        return held.decode("utf-8")


def _git(folder: Path, *words: str) -> bytes | str:
    """What git says there; as text, why it says nothing."""
    done = subprocess.run(["git", "-C", str(folder), *words], stdin=subprocess.DEVNULL,
                          capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return said[0].removeprefix("fatal: ") if said else "git failed"
