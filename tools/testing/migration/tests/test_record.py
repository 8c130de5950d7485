# SPDX-License-Identifier: GPL-2.0
"""make record: what a run showed, as data that says no more and no less; and what is stale."""

import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import make, wanted
from runs import boot, golden, run, told

from lab import arch, base, defect, provenance, trial
from lab.errors import LabError
from lab.guest import qemu, selftest
from lab.judge import klog, summary
from lab.judge.summary import Said, Summary
from lab.kernel import build, variant
from lab.kernel.source import Source
from lab.paths import REPO
from lab.progress import Progress
from lab.tell import cells, record, rst, tables
from lab.verbs import listing, prove

DEFECT = defect.load("pmd-share-migrate")


def made(**changes: Any) -> Summary:
    """Two boots of each kernel, with the tests and patches of today."""
    origin = provenance.of_run(arch.load(), DEFECT.show.selftests, ["queue/4.14 (9 patches)"],
                               provenance.rules_of(DEFECT))
    left, right = ([boot(name, 1), boot(name, 2)] for name in ("vulnerable", "fixed"))
    whole = run(left, right, 2, provenance=origin)
    assert whole.verdict == "PROVED"
    return dataclasses.replace(whole, **changes)


def save(folder: Path, one: Summary) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "verdict.json").write_text(json.dumps(told(one)))
    return folder


def recorded(folder: Path, one: Summary) -> Path:
    return record.write(save(folder, one), folder / "records")


# ---- proofs --------------------------------------------------------------------------------


def test_a_record_says_what_the_run_said(tmp_path: Path) -> None:
    whole = made(debug=True)
    path = recorded(tmp_path, whole)
    assert (path.parent.name, path.name) == (whole.defect, "6.12.57-1-debug.json")
    back = record.load(path)
    assert tables.figures(back) == tables.figures(whole)
    assert tables.by_test(back) == tables.by_test(whole)
    assert tables.facts(back.report(), tables.kernels(back)) == \
        tables.facts(whole.report(), tables.kernels(whole))
    assert dataclasses.replace(back, variants={}, seconds=whole.seconds) == \
        dataclasses.replace(whole, variants={})
    # Written again it is the same.
    assert back.record() == Summary.load(back.record()).record()
    assert json.loads(path.read_text()) == back.record()


def test_a_record_can_be_rendered(tmp_path: Path) -> None:
    whole = made()
    recorded(tmp_path, whole)
    pages = rst.pages(tmp_path / "records")
    assert list(pages) == ["proofs/pmd-share-migrate/6.12.57-1", "proofs/boots"]
    text = pages["proofs/pmd-share-migrate/6.12.57-1"]
    one = whole.variants["vulnerable"]
    assert f"{one.lost_migrations} of {one.migrations} (" in text
    assert f"{one.failed} of {one.tests}" in text
    assert re.search(r"(?m)^migrate\.hugetlbfs_migrate_pages_2 +78 of 80 +0 of \d+", text)
    assert "\n:Repeat: ``make prove BASE=6.12``\n" in text and ":Made with: lab " in text
    assert "\n:Vulnerable: revert.cocci (2 places)\n    mm/rmap.c:1775 try_to_unmap_one\n" in text
    assert "One lost write, on the vulnerable kernel::" in text and "0x2000000000003602" in text
    assert "**Stale**" not in text
    skipped = re.search(r"(?m)^:Skipped on the fixed kernel: in 2 of 2 boots ``(.+?)``", text)
    assert skipped and skipped[1].startswith("no removable memory block")


def test_what_make_prove_leaves_can_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    """All of it but for what builds and boots."""
    for name in ("image", "config", "initrd"):
        (tmp_path / name).write_text(name)
    identity = {"version": "6.12.117", "sha256": "5a" * 32}
    source = Source(base.load("6.12"), "6.12.117", identity, "k", tmp_path)
    kernel = build.Kernel(tmp_path / "image", tmp_path / "config", {"compiler": "gcc 12"}, True,
                          0.0)
    both = (variant.make("vulnerable", "queue/4.18/series.unshare (11 patches)", "-", ("a:1 b",)),
            variant.make("fixed", "queue/4.18 (28 patches)", "+"))
    asked = wanted(tmp_path / "out", boots=2)
    ready = [trial.Trial(asked, source, one, kernel, tmp_path / "initrd", arch.load(), "tcg")
             for one in both]

    def qemu_boot(_what: qemu.Guest, folder: Path, *_rest: object) -> qemu.Outcome:
        (folder / "console.log").write_text("")
        text = golden(f"{folder.parent.name}.ktap")
        (folder / "ktap.log").write_text(text)
        return qemu.Outcome(0, False, 9.0, False)

    monkeypatch.setattr(trial, "prepare", lambda *_: ready)
    monkeypatch.setattr(qemu, "boot", qemu_boot)
    whole = prove.run(asked, arch.load(), Progress(io.StringIO()))
    assert whole.verdict == "PROVED" and Summary.load(told(whole)) == whole
    [home] = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    for folder in (tmp_path / "out", home):
        assert record.load(folder / "verdict.json") == whole and (folder / "junit.xml").is_file()
    assert whole.variants["fixed"].diff == str(home / "fixed" / "variant.diff")
    assert Path(whole.variants["fixed"].image).read_text() == "image"
    one = record.load(record.write(tmp_path / "out", tmp_path / "records"))
    assert record.stale(one) == "" and one.provenance == whole.provenance
    assert one.provenance.series == ["queue/4.18/series", "queue/4.18/series.unshare"]


def test_a_record_shows_the_trace(tmp_path: Path) -> None:
    """The first that the vulnerable kernel said of itself; nothing of a fixed one's noise."""
    said = klog.read(golden("bug.console").replace("kernel BUG at ", "kernel BUG at /my/6.1/tree/"))
    left = [boot("vulnerable", 1), boot("vulnerable", 2, symptoms=said)]
    whole = run(left, [boot("fixed", number, symptoms=said) for number in (1, 2)], 2)
    assert whole.verdict == "PROVED"
    one = whole.variants["vulnerable"].trace
    assert one and one.folder == "out/vulnerable-2" and not whole.variants["fixed"].trace
    recorded(tmp_path, whole)
    text = rst.pages(tmp_path / "records")["proofs/pmd-share-migrate/6.12.57-1"]
    assert "the vulnerable kernel said first, without its registers::\n\n    kernel BUG at inc" in text
    assert " Call Trace:\n" in text and "RAX: " not in text and "/my/" not in text
    assert "out/vulnerable" not in text and text.count("said first") == 1


@pytest.mark.parametrize("given, kept", [
    ("KERNEL=/home/me/secret BOOTS=2", "KERNEL=/path/to/6.12.57-1 BOOTS=2"),
    ("KERNEL='/home/me/my secret' BOOTS=2", "KERNEL=/path/to/6.12.57-1 BOOTS=2"),
    ("BASE=6.1 HARNESS=/home/me/secret TESTS='-t a'",
     "BASE=6.1 HARNESS=/path/to/linux TESTS='-t a'"),
])
def test_a_record_names_nobodys_folder(tmp_path: Path, given: str, kept: str) -> None:
    text = recorded(tmp_path, made(command=f"make prove {given}")).read_text()
    assert "secret" not in text and json.loads(text)["command"] == f"make prove {kept}"
    assert "out/" not in text


def test_debug_is_a_record_of_its_own(tmp_path: Path) -> None:
    assert recorded(tmp_path, made()) != recorded(tmp_path, made(debug=True))
    assert len(record.proofs(tmp_path / "records")) == 2


def test_another_architecture_is_a_record_of_its_own(tmp_path: Path) -> None:
    paths = [recorded(tmp_path, made(arch=name, debug=debug))
             for name in ("x86_64", "arm64") for debug in (False, True)]
    assert [path.name for path in paths] == [
        "6.12.57-1.json", "6.12.57-1-debug.json",
        "6.12.57-1-arm64.json", "6.12.57-1-arm64-debug.json"]
    titles = [rst.proof(record.load(path)).splitlines()[3] for path in paths]
    assert titles == [f"pmd-share-migrate: 6.12.57-1{more}" for more in (
        "", ", DEBUG=1", ", arm64", ", arm64, DEBUG=1")]
    assert len(record.proofs(tmp_path / "records")) == 4


FORM = "make prove BASE=6.12 FORM=flush"


def test_another_form_of_the_queue_is_a_record_of_its_own(tmp_path: Path) -> None:
    """And says which, wherever it is told: it is of other patches."""
    usual = recorded(tmp_path, made()).read_bytes()
    paths = [recorded(tmp_path, made(command=FORM, arch=name, debug=debug))
             for name, debug in (("x86_64", False), ("arm64", False), ("arm64", True))]
    assert [path.name for path in paths] == [
        "6.12.57-1-flush.json", "6.12.57-1-arm64-flush.json", "6.12.57-1-arm64-flush-debug.json"]
    assert (tmp_path / "records/pmd-share-migrate/6.12.57-1.json").read_bytes() == usual
    titles = [rst.proof(record.load(path)).splitlines()[3] for path in paths]
    assert titles == [f"pmd-share-migrate: 6.12.57-1{more}" for more in (
        ", FORM=flush", ", arm64, FORM=flush", ", arm64, FORM=flush, DEBUG=1")]
    assert "proofs/pmd-share-migrate/6.12.57-1-flush" in rst.pages(tmp_path / "records")
    assert record.versions("pmd-share-migrate", tmp_path / "records") == [
        "6.12.57-1-arm64-flush-debug", "6.12.57-1-arm64-flush", "6.12.57-1-flush", "6.12.57-1"]
    assert len({run.name() for run in record.proofs(tmp_path / "records")}) == 4


@pytest.mark.parametrize("command, asked", [
    ("make prove BASE=6.12", ""), (FORM, "flush"), (f"{FORM} KCONFIG='A=y B=y'", "flush"),
    # What is no word of its own is none of make's variables.
    ("make prove KCONFIG='A=y FORM=y' TESTS='-t FORM=x'", ""), ("make prove PLATFORM=a", ""),
])
def test_which_form_a_command_asks_for(command: str, asked: str) -> None:
    assert summary.form(command) == asked == made(command=command).form()


def test_another_size_of_pages_is_a_record_of_its_own(tmp_path: Path) -> None:
    """And it is not what the matrix asks for."""
    made = run([boot("vulnerable")], [boot("fixed")], arch="arm64")
    large = dataclasses.replace(made, command="make prove ARCH=arm64 KCONFIG='ARM64_4K_PAGES=n "
                                              "ARM64_16K_PAGES=y'")
    assert [record.keep(one, tmp_path).name for one in (made, large)] == [
        "6.12.57-1-arm64.json", "6.12.57-1-arm64-ARM64_16K_PAGES.json"]
    assert [cells.counts(one) for one in record.proofs(tmp_path)] == [False, True]
    assert large.name() == made.name() + ", ARM64_16K_PAGES"
    assert rst.proof(large).splitlines()[3].endswith(": 6.12.57-1, arm64, ARM64_16K_PAGES")


def test_a_run_with_the_kernels_own_check_is_a_record_of_its_own(tmp_path: Path) -> None:
    """Of kernels that the usual record is not of.  DEBUG=1 has the check with all others."""
    usual = recorded(tmp_path, made()).read_bytes()
    word = "make prove BASE=6.12{} WITNESS=1"
    paths = [recorded(tmp_path, made(command=word.format(more), debug=bool("DEBUG" in more)))
             for more in ("", " FORM=flush", " DEBUG=1")]
    assert [path.name for path in paths] == [
        "6.12.57-1-check.json", "6.12.57-1-flush-check.json", "6.12.57-1-debug.json"]
    assert (tmp_path / "records/pmd-share-migrate/6.12.57-1.json").read_bytes() == usual
    titles = [rst.proof(record.load(path)).splitlines()[3] for path in paths]
    assert titles == [f"pmd-share-migrate: 6.12.57-1{more}" for more in (
        ", WITNESS=1", ", FORM=flush, WITNESS=1", ", DEBUG=1")]
    assert len({run.name() for run in record.proofs(tmp_path / "records")}) == 4
    # It is not what the matrix wants of a cell.
    clean = dataclasses.replace(made().provenance, dirty=False)
    assert [cells.counts(made(command=word.format(more), provenance=clean))
            for more in ("", " DEBUG=1")] == [False, True]
    assert not summary.witness("make prove KCONFIG='A=y WITNESS=1'")


def test_only_a_proof_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="says MISSED: only what is PROVED"):
        recorded(tmp_path, made(verdict="MISSED"))
    with pytest.raises(LabError, match="run make prove first"):
        record.write(tmp_path / "nowhere")
    (tmp_path / "verdict.json").write_text("{")
    with pytest.raises(LabError, match="cannot be read"):
        record.write(tmp_path)
    assert not (tmp_path / "records").exists()


def test_what_only_the_fixed_kernel_ran_is_in_the_table() -> None:
    whole = made()
    name = next(name for name, test in whole.variants["vulnerable"].by_test.items()
                if test.lost_migrations)
    del whole.variants["vulnerable"].by_test[name]
    short = name.rsplit(".", 1)[0].removeprefix("hugetlb_pmd_")
    assert re.search(rf"(?m)^{short} +not run +0 of \d", rst.proof(whole))


def test_what_a_test_does_not_say_has_no_column() -> None:
    whole = made()
    text = rst.proof(whole)
    assert "hot calls" not in text and "also counted" not in text and "until it was" not in text
    variants = dict(whole.variants)
    variants["vulnerable"] = dataclasses.replace(variants["vulnerable"], first_seconds=[5.4, 7.0])
    for test in variants["fixed"].by_test.values():
        test.also["execs"] = 12
    text = rst.proof(dataclasses.replace(whole, variants=variants))
    assert re.search(r"(?m)^seconds until it was seen +5\.4 to 7\.0 +-$", text)
    assert "fixed: also counted" in text and "execs 12" in text


@pytest.mark.parametrize("said, told_", [
    ([Said("a: b", 1)], 'in 1 of 9 boots "a: b"'),
    ([Said("a", 7), Said("b", 2)], 'in 7 of 9 boots "a"; in 2 of 9 boots "b"'),
    # What else it was was not recorded once, or is too much.
    ([Said("a", 7), Said(None, 2)], 'in 7 of 9 boots "a"; in 2 something else'),
    ([Said("a", 4), Said("b", 2), Said("c", 1), Said("d", 1), Said("e", 1)],
     'in 4 of 9 boots "a"; in 2 of 9 boots "b"; in 1 of 9 boots "c"; in 2 something else'),
    ([], ""),
])
def test_what_boots_say_is_told_once(said: list[Said], told_: str) -> None:
    one = dataclasses.replace(made().variants["vulnerable"], boots=9, symptoms=said)
    assert tables.checks(one) == told_


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return rst.pages()


def test_where_the_tree_was_is_not_recorded(tmp_path: Path) -> None:
    one = made()
    one = dataclasses.replace(one, source={**one.source, "path": "/home/me/secret/linux"})
    text = recorded(tmp_path, one).read_text()
    assert "secret" not in text and '"path": "/path/to/' in text


@pytest.mark.parametrize("path", sorted(record.RECORDS.glob("*/*.json")), ids=str)
def test_every_record_is_whole_and_renders(path: Path, pages: dict[str, str]) -> None:
    text = path.read_text()
    assert text == record.dump(json.loads(text)) + "\n"
    assert not re.search(r"/(tmp|root|home)/", text)
    kind, home = path.parent.name, {"mutants": "mutants", "bench": "bench"}
    page = pages[f"{home.get(kind, f'proofs/{kind}')}/{path.stem}"]
    one = json.loads(text)
    asked = summary.form(one["command"])
    # A kernel with pages or addresses of another size is of another kind.
    sizes = "".join(f"-{word}" for word in arch.load(one["arch"]).unusual(one["command"]))
    assert path.stem.removesuffix("-check").removesuffix("-debug").removesuffix(sizes) == \
        f"{one['source']['version']}{arch.tag(one['arch'])}{f'-{asked}' if asked else ''}"
    assert bool(one.get("debug")) == path.stem.removesuffix("-check").endswith("-debug")
    assert path.stem.endswith("-check") == bool(
        one.get("witness") or summary.witness(one["command"]))
    assert f":Repeat: ``make {home.get(kind, 'prove')}" in page
    if kind not in home:
        back = record.load(path)
        assert (back.defect, back.verdict) == (kind, "PROVED") and f"PROVED: {back.why}." in \
            " ".join(page.split())
        assert len(tables.by_test(back)) > 1


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No such file"):
        record.load(tmp_path / "x.json")
    path = recorded(tmp_path, made())
    one = json.loads(path.read_text())
    for key in ("verdict", "source", "variants"):
        path.write_text(json.dumps({name: value for name, value in one.items() if name != key}))
        with pytest.raises(LabError, match="6.12.57-1.json cannot be read"):
            record.load(path)


# ---- what they speak of --------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what records speak of, instead of the repository's."""
    for name in ("queue/4.14", str(selftest.FOLDER), "lib"):
        shutil.copytree(REPO / name, tmp_path / "copy" / name)
    for module in (selftest, provenance):
        monkeypatch.setattr(module, "REPO", tmp_path / "copy")
    monkeypatch.setattr(variant, "QUEUE", tmp_path / "copy" / "queue")
    return tmp_path / "copy"


def reworded(text: str) -> str:
    """A patch with another changelog, or C with another comment, that does what it did before."""
    if text.startswith("From "):
        return text.replace("\nindex ", "\nindex 0").replace("\n\n", "\n\nPut otherwise.\n\n", 1)
    return text.replace("\n\n", "\n\n/* Put \"otherwise\". */\n", 1).replace("\t", "\t\t", 1)


NONE = ""
TESTS = "the selftests have changed since"
QUEUE = "the patches or rules have changed since"


@pytest.mark.parametrize("name, reason", [
    (f"{selftest.FOLDER}/hugetlb_pmd_migrate.c", TESTS),
    # What all selftests share.
    (f"{selftest.FOLDER}/migrate_util.c", TESTS), (f"{selftest.FOLDER}/migrate_util.h", TESTS),
    (f"{selftest.FOLDER}/migrate_guard.c", TESTS),
    # What this one uses, by a header that it includes, and by one that this one includes.
    (f"{selftest.FOLDER}/migrate_round.c", TESTS), (f"{selftest.FOLDER}/migrate_timeline.c", TESTS),
    (f"{selftest.FOLDER}/migrate_writers.c", TESTS),
    # Those of other defects, and what only they use.
    (f"{selftest.FOLDER}/hugetlb_pmd_churn.c", NONE), (f"{selftest.FOLDER}/migrate_notifier.c", NONE),
    ("lib/test_mmu_notifier_uapi.h", NONE),
    ("queue/4.14/series", QUEUE), ("queue/4.14/patch", QUEUE), ("nothing", NONE),
])
def test_a_record_of_what_has_changed_is_stale(copy: Path, tmp_path: Path, name: str, reason: str
                                               ) -> None:
    path = recorded(tmp_path, made())
    assert record.stale(record.load(path)) == ""
    if name == "queue/4.14/series":
        lines = (copy / name).read_text().splitlines()
        (copy / name).write_text("\n".join(lines[:-1]) + "\n")
    elif name != "nothing":
        patch = min((copy / "queue/4.14").glob("*.patch"))
        file = patch if name.endswith("/patch") else copy / name
        # What is only put otherwise changes nothing that a run shows.
        file.write_text(reworded(file.read_text()))
        assert record.stale(record.load(path)) == ""
        file.write_text(file.read_text().replace("\n+", "\n+ ", 1) if file == patch
                        else file.read_text() + "int more;\n")
    one = record.load(path)
    assert record.stale(one) == reason
    assert bool(reason) == (f"**Stale**: {reason}." in rst.proof(one))


def test_what_of_a_patch_decides(tmp_path: Path) -> None:
    patch = tmp_path / "a.patch"
    code = "--- a/x\n+++ b/x\n{}+\t*p = 1;\n {{\n+\ta = b /* c */ + 1;\n-\t/* d */ e = 1;\n{}"
    hashes = set()
    for head, one, more in (
            ("", "", ""), ("index 1..2\n", "@@ -1 +2 @@ f\n", "-- \n2.30\n"),
            ("", "+\t/*\n+\t * Who *joins*.\n+\t *\n+\t */\n", "+\n \n"),
            ("", "-\t/* Who takes */\n", " /* more\n  * text. */\n")):
        patch.write_text(f"From a\n\n{one}\n\ndiff --git a/x b/x\n{head}"
                         + code.format(one, more))
        hashes.add(provenance.queue([], [patch]))
    assert len(hashes) == 1
    for change in ("*p = 1", "b /*"), ("e = 1", "e = 2"), ("-\t/* d", "+\t/* d"), (" {", " }"):
        patch.write_text("\ndiff --git a/x b/x\n" + code.format("", "").replace(*change))
        hashes.add(provenance.queue([], [patch]))
    assert len(hashes) == 5


def test_a_rule_is_part_of_what_a_record_speaks_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                   ) -> None:
    path = recorded(tmp_path, made())
    shutil.copytree(DEFECT.folder, tmp_path / "defect")
    other = dataclasses.replace(DEFECT, folder=tmp_path / "defect")
    monkeypatch.setattr(defect, "load", lambda _name: other)
    # What `make audit` looks for makes no kernel.
    audit, *rules = sorted((tmp_path / "defect").glob("*.cocci"))
    assert audit.name == "audit.cocci" and len(rules) == 1
    audit.write_text("")
    assert record.stale(record.load(path)) == ""
    rules[0].write_text("")
    assert record.stale(record.load(path)) == QUEUE


@pytest.mark.parametrize("key", ["selftests", "queue"])
def test_what_was_not_recorded_is_stale(tmp_path: Path, key: str) -> None:
    whole = made()
    less = dataclasses.replace(whole.provenance, **{key: None})
    one = record.load(recorded(tmp_path, dataclasses.replace(whole, provenance=less)))
    assert record.stale(one) == "with which tests and patches it was made was not recorded"


def test_a_record_of_no_defect_is_stale() -> None:
    assert record.stale(made(defect="nothing")) == "there is no such defect any more"


def test_what_a_run_was_made_with() -> None:
    origin = made().provenance
    assert re.fullmatch("[0-9a-f]{40}", origin.lab or "") and origin.dirty in (True, False)
    assert origin.series == ["queue/4.14/series"] and (origin.qemu or "").startswith("QEMU")
    for hows, lists in ((["as it is", "revert.cocci (2 places)"], []),
                        (["queue/4.18/series.unshare (11 patches)", "queue/4.18 (28 patches)"],
                         ["queue/4.18/series", "queue/4.18/series.unshare"]),
                        (["queue/6.1 (patches 1 to 3), and amplifier.cocci: x (y)",
                          "queue/6.1 (patches 1 to 5), and amplifier.cocci: x (y)"],
                         ["queue/6.1/series, patches 1 to 5"]),
                        (["queue/6.1 (patches 1 to 3)", "queue/6.1 (without 1 of its 5 patches)"],
                         ["queue/6.1/series"]),
                        (["queue/6.1 (patches 1 to 3)", "queue/6.1 (10 patches)"],
                         ["queue/6.1/series"])):
        assert provenance.of_run(arch.load(), (), hows, ()).series == lists


def test_patches_after_those_of_a_defect_make_no_record_stale(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant, "QUEUE", tmp_path)
    (tmp_path / "6.1").mkdir()
    lines = []
    for number in range(1, 4):
        name = f"000{number}-x.patch"
        (tmp_path / "6.1" / name).write_text(f"x\n\ndiff --git a/x b/x\n+{number}\n")
        lines.append(name)
        (tmp_path / "6.1" / "series").write_text("\n".join(lines) + "\n")
        now = [provenance.queue([name], ()) for name in
               ("queue/6.1/series, patches 1 to 2", "queue/6.1/series")]
        if number == 2:
            before = now
            assert now[0] == now[1]
    assert now[0] == before[0] and now[1] != before[1]
    (tmp_path / "6.1" / "0001-x.patch").write_text("x\n\ndiff --git a/x b/x\n+other\n")
    assert provenance.queue(["queue/6.1/series, patches 1 to 2"], ()) != before[0]


def test_make_list_says_what_is_stale() -> None:
    """Of each defect once, in words."""
    done = make("list", "FULL=1")
    assert done.returncode == 0, done.stderr
    parts = {part.partition("\n")[0]: part for part in done.stdout.split("\n\n")}
    for path in record.RECORDS.glob("*/*.json"):
        kind = path.parent.name
        head = {"mutants": "Tried by make mutants: ", "bench": "Measured by make bench: "}.get(kind)
        if head:
            told_ = re.search(rf"(?m)^{head}(.*)$", done.stdout)
            assert told_ and path.stem in told_[1].replace(" (stale)", "").split(", ")
            continue
        assert path.stem in re.findall(r"[^\s,]+", parts[kind].partition("  proved ")[2])
        assert len(re.findall(r"(?:were|was)\s+made\s+with", parts[kind])) == 1
        if record.stale(record.load(path)):
            assert parts[kind].count("(stale)") == 1


@pytest.mark.parametrize(("stale", "says"), [
    ((), "All of them were made with the selftests and patches of today."),
    ((1,), "1 of them was made with selftests or patches that have changed since (stale)."),
    ((0, 2), "2 of them were made with selftests or patches that have changed since (stale)."),
    ((0, 1, 2), "All of them were made with selftests or patches that have changed since (stale)."),
])
def test_how_many_are_stale(stale: tuple[int, ...], says: str) -> None:
    some = [listing.Record("6.1", made(), "changed" if at in stale else "") for at in range(3)]
    assert listing.old(some) == says


# ---- which run -----------------------------------------------------------------------------


def test_what_ran_last_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("write", "write_mutants", "write_bench"):
        monkeypatch.setattr(record, name, lambda _out, _folder, name=name: Path(name))
    for name, day in (("mutants", "02"), ("verdict", "01"), ("bench", "03"), ("verdict", "04")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"started": f"2026-01-{day}T00:00:00"}))
        wanted = {"01": "mutants", "02": "mutants", "03": "bench", "04": ""}[day]
        assert record.last(tmp_path).name == "_".join(filter(None, ["write", wanted]))
