# SPDX-License-Identifier: GPL-2.0
"""Audits that are run together say what each says by itself; and what coccinelle may take."""

import os
import shutil
from pathlib import Path

import pytest

from lab import defect
from lab.errors import LabError
from lab.kernel import cut, matches, spatch
from lab.kernel.matches import Wanted

needs_spatch = pytest.mark.skipif(not shutil.which("spatch"),
                                  reason="no spatch: apt install coccinelle")
FILES = {
    "mm/a.c": "int f(void)\n{\n\tg(1);\n\treturn g(x ? \"a\" : \"b\");\n}\n"
              "int g(int a)\n{\n\treturn h();\n}\n",
    "mm/b.c": "void b(void)\n{\n\th();\n\tg(2);\n}\nint f(void)\n{\n\treturn 0;\n}\n",
}
# The last that comes is kept, and the first: so the order counts.
CALLS = """// SPDX-License-Identifier: GPL-2.0
// what it does

@initialize:python@
@@
last, first = {}, {}

def where(p):
    return "%s:%s:%s" % (p[0].file, p[0].line, p[0].column)

@calls@
identifier fn;
expression list es;
position p;
@@
fn@p(es)

@script:python@
p << calls.p;
fn << calls.fn;
es << calls.es;
@@
last[str(fn)] = where(p)
first.setdefault(str(fn), where(p))
print("SEEN %s %s in %s of %s" % (fn, where(p), p[0].current_element, es))

// A comment between rules.
@there@
identifier fn = NAMES;
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
print("EXISTS", fn, where(p))

@finalize:python@
@@
for fn in first:
    print("HAS %s %s %s" % (fn, first[fn], last[fn]))
"""


def rule(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.cocci"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@needs_spatch
def test_together_is_as_alone(tree: Path) -> None:
    both = Wanted(rule(tree, "both", CALLS.replace("NAMES", "{f, b}")), tuple(FILES))
    turned = Wanted(rule(tree, "turned", CALLS.replace("NAMES", "{g}")), tuple(FILES)[::-1])
    one = Wanted(rule(tree, "one", CALLS.replace("NAMES", "{b}")), ("mm/b.c",))
    found = matches.find(tree, [both, turned, one])
    assert found == [spatch.find(each.rule, tree, each.files) for each in (both, turned, one)]
    assert "EXISTS b mm/b.c:1:5" in found[0] and "EXISTS g mm/a.c:6:4" in found[1]
    assert any(line.startswith("SEEN g mm/a.c:4:8 in f of ") for line in found[0])


@needs_spatch
def test_a_file_is_read_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    alone = spatch.find

    def find(rules: Path, folder: Path, files: list[str]) -> list[str]:
        read.extend(files)
        return alone(rules, folder, files)
    monkeypatch.setattr(spatch, "find", find)
    wanted = [Wanted(rule(tree, name, CALLS.replace("NAMES", "{%s}" % name)), tuple(FILES))
              for name in "fgb"]
    found = matches.find(tree, wanted)
    assert sorted(read) == sorted(FILES)
    # Nor is one that has not changed.
    assert matches.find(tree, wanted) == found and sorted(read) == sorted(FILES)
    (tree / "mm/b.c").write_text("int g(void)\n{\n}\n", encoding="utf-8")
    assert matches.find(tree, wanted) != found and sorted(read) == ["mm/a.c", "mm/b.c", "mm/b.c"]


@needs_spatch
@pytest.mark.parametrize("text, said", [
    ("@a@\nidentifier;\n@@\n!!\n", "failed"),
    # Its own Python fails.
    (CALLS.replace("NAMES", "{f}").replace("last[", "nothing["), "failed"),
])
def test_a_bad_rule_does_not_spoil_the_others(text: str, said: str, tree: Path) -> None:
    good = Wanted(rule(tree, "good", CALLS.replace("NAMES", "{f}")), tuple(FILES))
    bad = Wanted(rule(tree, "bad", text), ("mm/a.c",))
    found = matches.find(tree, [good, bad])
    assert found[0] == spatch.find(good.rule, tree, good.files)
    assert isinstance(found[1], spatch.Failed) and found[1].did.startswith(said)


@needs_spatch
def test_what_depends_on_another_file_is_run_by_itself(tree: Path) -> None:
    """mm/b.c has f() and no call of it: that it is in mm/a.c has to be known there."""
    text = CALLS.replace("NAMES", "{g}").replace("@calls@", "@calls depends on there@")
    head, calls, rest = text.partition("@calls depends")
    between, there, end = (calls + rest).partition("// A comment")
    there, script, last = (there + end).partition("@script:python@")
    text = head + there + between + script + last
    one = Wanted(rule(tree, "depends", text), tuple(FILES))
    found = matches.find(tree, [one])
    assert found == [spatch.find(one.rule, tree, one.files)]
    assert any("mm/b.c" in line and line.startswith("SEEN g") for line in found[0])


def test_every_audit_can_be_taken_apart() -> None:
    """Else it would be slow, and nobody would notice."""
    for name in defect.names():
        audit = defect.load(name).audit
        if audit:
            parts = matches._take_apart(audit.rule)
            assert parts and parts.scripts and (parts.free or len(audit.files) == 1), name
            assert cut.names((one.variables, one.body) for one in parts.patterns.values()), name


def fake(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "bin/spatch"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def test_time_is_that_of_a_processor(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a second takes many."""
    fake(tree, "sleep 2; echo done", monkeypatch)
    path = rule(tree, "any", "")
    assert spatch.find(path, tree, ["mm/a.c"], 1) == ["done"]
    monkeypatch.setattr(spatch, "_WALL", 1)
    with pytest.raises(LabError, match="does not come to an end in 1 s"):
        spatch.find(path, tree, ["mm/a.c"], 1)


def test_it_does_not_run_for_ever(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tree, "while :; do :; done", monkeypatch)
    monkeypatch.setattr(spatch, "_WALL", 600)
    with pytest.raises(spatch.Failed, match="does not come to an end in 1 s"):
        spatch.find(rule(tree, "any", ""), tree, ["mm/a.c"], 1)


def test_the_library_of_another_python(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tree, 'case "$*" in *--python*) echo "no Python library" >&2; exit 2; esac; echo done',
         monkeypatch)
    assert spatch.find(rule(tree, "any", ""), tree, ["mm/a.c"]) == ["done"]


@needs_spatch
def test_what_is_cut_away_says_nothing(tree612: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole files say the same, of a kernel; and each audit names what it is about."""
    audits = [audit for name in defect.names() if (audit := defect.load(name).audit)]
    wanted = [Wanted(one.rule, files) for one in audits
              if (files := tuple(name for name in one.files if (tree612 / name).is_file()))]
    found = matches.find(tree612, wanted)
    asked = []

    def whole(text: str, names: object) -> str:
        asked.append(names)
        return text
    monkeypatch.setattr(cut, "cut", whole)
    monkeypatch.setattr(matches, "_KNOWN", {})
    assert matches.find(tree612, wanted) == found
    assert len(asked) == len({name for one in wanted for name in one.files})
