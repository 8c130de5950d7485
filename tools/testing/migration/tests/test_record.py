# SPDX-License-Identifier: GPL-2.0
"""make record: what a proof showed, as a file that says no more and no less."""

import json
import re
from pathlib import Path

import pytest
from test_result import boot, run

from lab.errors import LabError
from lab.paths import REPO
from lab.tell import record, result


@pytest.fixture
def report() -> dict[str, object]:
    """A report as verdict.json has it, of two boots of each kernel."""
    made = run([boot("vulnerable", 1), boot("vulnerable", 2)], [boot("fixed", 1), boot("fixed", 2)],
               2)
    loaded: dict[str, object] = json.loads(json.dumps(result.report(made)))
    return loaded | {"verdict": "PROVED"}


def save(folder: Path, report: dict[str, object]) -> Path:
    (folder / "verdict.json").write_text(json.dumps(report))
    return folder


def test_the_figures_are_those_of_the_run(tmp_path: Path, report: dict[str, object]) -> None:
    path = record.write(save(tmp_path, report), tmp_path / "proofs")
    text = path.read_text()
    assert path.parent.name == report["defect"]
    variant = report["variants"]["vulnerable"]                      # type: ignore[index]
    assert f"{variant['lost_migrations']} of {variant['migrations']} (" in text
    assert f"{variant['failed']} of {variant['tests']}" in text
    assert re.search(r"(?m)^migrate\.hugetlbfs_migrate_pages_2 +78 of 80 +0 of \d+", text)


def test_a_record_names_nobodys_folder(tmp_path: Path, report: dict[str, object]) -> None:
    mine = report | {"command": "make prove KERNEL=/home/me/secret BOOTS=2"}
    text = record.write(save(tmp_path, mine), tmp_path / "proofs").read_text()
    assert "secret" not in text and "make prove KERNEL=/path/to/" in text


def test_debug_is_a_record_of_its_own(tmp_path: Path, report: dict[str, object]) -> None:
    one = record.write(save(tmp_path, report), tmp_path / "proofs")
    two = record.write(save(tmp_path, report | {"debug": True}), tmp_path / "proofs")
    assert one != two and two.name.endswith("-debug.rst")


def test_only_a_proof_is_recorded(tmp_path: Path, report: dict[str, object]) -> None:
    with pytest.raises(LabError, match="says MISSED: only what is PROVED"):
        record.write(save(tmp_path, report | {"verdict": "MISSED"}), tmp_path / "proofs")
    with pytest.raises(LabError, match="run make prove first"):
        record.write(tmp_path / "nowhere")
    (tmp_path / "verdict.json").write_text("{")
    with pytest.raises(LabError, match="cannot be read"):
        record.write(tmp_path)
    assert not (tmp_path / "proofs").exists()


@pytest.mark.parametrize("path", sorted((REPO / "Documentation" / "proofs").glob("*/*.rst")),
                         ids=str)
def test_what_is_recorded_is_a_proof(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "\nPROVED: " in text
    assert "Made by ``make record``" in text
    assert re.search(r"(?m)^:Repeat: ``make prove ", text)
    assert not re.search(r"/(tmp|root|home)/", text)


@pytest.mark.parametrize("path", sorted((REPO / "Documentation" / "proofs").glob("*/*.rst")),
                         ids=str)
def test_every_record_can_be_read(path: Path) -> None:
    told = record.read(path)
    assert (told.defect, told.debug) == (path.parent.name, path.stem.endswith("-debug"))
    assert told.verdict == "PROVED" and told.fields["Repeat"].startswith("make prove ")
    assert {"boots", "tests that failed"} < {row[0] for row in told.figures}
    assert len(told.by_test) > 1


def test_what_is_written_can_be_read(tmp_path: Path, report: dict[str, object]) -> None:
    variants = json.loads(json.dumps(report["variants"]))
    variants["vulnerable"]["runs"][0]["symptoms"] = [{"kind": "BUG", "line": 1,
                                                      "text": "BUG: a: b"}]
    full = report | {"variants": variants, "debug": True}
    told = record.read(record.write(save(tmp_path, full), tmp_path / "proofs"))
    assert told.figures == record.figures(full) and told.by_test == record.by_test(full)
    assert (told.defect, told.debug, told.why) == (report["defect"], True, report["why"])
    assert told.version == report["source"]["version"]              # type: ignore[index]
    assert told.fields["Repeat"] == report["command"]
    assert told.fields["Vulnerable"].split("\n") == [variants["vulnerable"]["how"],
                                                     *variants["vulnerable"]["places"]]
    own = "The vulnerable kernel's own checks"
    assert told.fields[own] == "in 1 of 2 boots, ``BUG: a: b``"
    variants["vulnerable"]["runs"][1]["symptoms"] = [{"kind": "oops", "line": 1, "text": "c"}]
    told = record.read(record.write(save(tmp_path, full), tmp_path / "proofs"))
    assert told.fields[own] == "in 1 of 2 boots, ``BUG: a: b``; something else in 1"


@pytest.mark.parametrize("pattern, becomes", [
    (r"do not edit", "edit it"), (r"===\npmd", "===\n\npmd"), (r"(?m)^PROVED: ", "MISSED: "),
    (r"(?m)^PROVED: ", ""), (r"(?m)^:Repeat: .*\n", ""), (r"(?m)^:Date: ", ":Day: "),
    (r"(?m)^(:Source: .*\n)", r"\1\1"), (r"(?m)^    mm/", "mm/"), (r"(?m)^boots .*\n", "\n"),
    (r"(?m)^boots ( +)", r"boots and more \1"), (r"(?m)^(boots  ?)", r"\1 "),
    (r"(?m)^(tests skipped).*", r"\1"), (r"vulnerable  ", "fixed       "),
    (r"By test", "Some tests"), (r"\n=[= ]+\n$", "\n"), (r"\Z", "typed\n"), (r"\n\Z", ""),
    (r"(?s).*", ""), (r"6\.12\.57-1", "6.12.58-1")])
def test_a_record_that_somebody_touched(tmp_path: Path, report: dict[str, object], pattern: str,
                                        becomes: str) -> None:
    path = record.write(save(tmp_path, report), tmp_path / "proofs")
    text = path.read_text()
    changed = re.sub(pattern, becomes, text, count=1)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(LabError, match="is not as make record writes it"):
        record.read(path)


def test_what_only_the_fixed_kernel_ran_is_in_the_table(tmp_path: Path, report: dict[str, object]
                                                        ) -> None:
    variants = json.loads(json.dumps(report["variants"]))
    name = next(name for name, test in variants["vulnerable"]["by_test"].items()
                if test["lost_migrations"])
    del variants["vulnerable"]["by_test"][name]
    path = record.write(save(tmp_path, report | {"variants": variants}), tmp_path / "proofs")
    short = name.rsplit(".", 1)[0].removeprefix("hugetlb_pmd_")
    assert re.search(rf"(?m)^{short} +not run +0 of \d",
                     path.read_text())
    assert any("not run" in row for row in record.read(path).by_test)


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No such file"):
        record.read(tmp_path / "x.rst")


def test_what_a_test_does_not_say_has_no_column(tmp_path: Path, report: dict[str, object]) -> None:
    text = record.write(save(tmp_path, report), tmp_path / "proofs").read_text()
    assert "hot calls" not in text and "also counted" not in text and "until it was" not in text
    variants = json.loads(json.dumps(report["variants"]))
    variants["vulnerable"]["runs"][0]["first_ms"] = 5400
    variants["vulnerable"]["runs"][1]["first_ms"] = 7000
    for test in variants["fixed"]["by_test"].values():
        test["also"] = {"execs": 12}
    text = record.write(save(tmp_path, report | {"variants": variants}),
                        tmp_path / "proofs").read_text()
    assert re.search(r"(?m)^seconds until it was seen +5\.4 to 7\.0 +-$", text)
    assert "fixed: also counted" in text and "execs 12" in text
