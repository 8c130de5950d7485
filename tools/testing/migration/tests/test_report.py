# SPDX-License-Identifier: GPL-2.0
"""make report: what the page says, that it says nothing else, and how a browser shows it.

The timelines are those of golden/timeline-*.ktap, which were made up.
"""

import dataclasses
import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import make
from runs import boot, golden, run, told as told_by
from test_timeline import log

from lab import cli, defect
from lab.errors import LabError
from lab.judge.summary import Summary
from lab.tell import page, record, report, result
from lab.tell.page import Proof
from lab.tell.html import element, text
from lab.tell.picture import Scale, draw

EVIL = "<script>alert(1)</script>\"'><img src=http://evil/x>&\x1b[31m\ud800\u202e"


def made(kind: str, version: str, day: int, **changes: object) -> Summary:
    """A run of `version` that ended as `kind` says, on a day of 2026."""
    old, new = log("vulnerable"), log("fixed")
    texts, console = {"PROVED": (old, new), "MISSED": (new, new), "REGRESSED": (old, old),
                      "INCOMPLETE": (old, ""), "CRASHED": (old, new)}[kind], ""
    if kind == "CRASHED":
        console = golden("bug.console")
    whole = run([boot("vulnerable", text=texts[0])], [boot("fixed", text=texts[1], log=console)])
    assert whole.verdict == kind
    values: dict[str, object] = {
        "base": version.rpartition(".")[0], "command": f"make prove KERNEL=/tree/{version}",
        "source": {"version": version, "git": "0123abc", "dirty": "no", "sha256": "5a" * 32},
        "started": f"2026-03-{day:02}T12:00:00+01:00"}
    return dataclasses.replace(whole, **(values | changes))


def put(out: Path, *runs: Summary) -> Path:
    """The runs in `out`, as make prove leaves them."""
    for one in runs:
        home = f"{datetime.fromisoformat(one.started):%Y%m%d-%H%M%S}-{one.defect}-" \
               f"{one.source['version']}"
        result.write(one, out / home)
        result.write(one, out)
    return out


def write(out: Path, proofs: Path | None = None) -> str:
    return report.write(out, None, proofs or out / "none").read_text()


class Page(HTMLParser):
    """The elements of a page, each with its attributes and the text in it; all are closed."""

    VOID = {"meta", "br", "line", "rect", "circle", "path"}

    def __init__(self, said: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[int] = []
        self.feed(said)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in self.VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for place in self.open:
            self.elements[place][2].append(data)

    def all(self, tag: str, **having: str) -> list[str]:
        """The texts of all elements `tag` whose attributes begin so."""
        return [" ".join("".join(said).split()) for name, attributes, said in self.elements
                if name == tag and all(attributes.get(key.rstrip("_"), "").startswith(value)
                                       for key, value in having.items())]


def cells(said: str) -> dict[tuple[str, str], str]:
    """The matrix: texts by defect and version."""
    table = said[said.index('<table class="matrix">'):]
    table = table[:table.index("</table>")]
    versions = re.findall(r'<th scope="col">([^<]+)</th>', table)
    found = {}
    for row in re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", table, re.DOTALL):
        name = re.search(r"<b>([^<]+)</b>", row)
        assert name
        texts = [" ".join(re.sub("<[^>]+>", " ", cell).split())
                 for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        assert len(texts) == len(versions)
        found.update({(name[1], version): cell for version, cell in zip(versions, texts)})
    return found


# ---- what it says --------------------------------------------------------------------------


def test_the_matrix_is_never_green_by_default(tmp_path: Path) -> None:
    said = write(put(tmp_path, made("PROVED", "6.12.57", 1), made("MISSED", "6.1.192", 2),
                     made("CRASHED", "4.18.0", 3)))
    matrix = cells(said)
    assert {name for name, _ in matrix} == set(defect.names())
    assert {"6.12.57", "6.1.192", "4.18.0", "7.3", "4.4"} <= {version for _, version in matrix}
    assert not {"6.12", "6.1", "4.18"} & {version for _, version in matrix}
    proved = matrix.pop(("pmd-share-migrate", "6.12.57"))
    assert proved.startswith("✓ PROVED 20 of 20 0 of 20 1 boot, run")
    assert matrix.pop(("pmd-share-migrate", "6.1.192")).startswith("○ MISSED 0 of 20 0 of 20")
    assert matrix.pop(("pmd-share-migrate", "4.18.0")).startswith("! CRASHED")
    assert set(matrix.values()) == {"not proved"}
    assert said.count('class="verdict proved" href') == 1
    assert said.count('class="verdict other" href') == 2


def test_versions_are_in_order_newest_first() -> None:
    one = made("PROVED", "6.12.57", 1)
    proofs = [Proof(dataclasses.replace(one, source={"version": version}))
              for version in ("6.2.0", "6.12.9", "6.12.57", "4.18.0-553.el8", "4.18.0", "6.1")]
    assert page.columns(["6.12", "6.1", "7.3", "4.4"], proofs) == \
        ["7.3", "6.12.57", "6.12.9", "6.2.0", "6.1", "4.18.0-553.el8", "4.18.0", "4.4"]


def test_a_run_says_all_that_is_asked_of_it(tmp_path: Path) -> None:
    one = made("PROVED", "4.18.0", 1)
    found = Page(write(put(tmp_path, one)))
    assert found.all("h3") == ["pmd-share-migrate on 4.18.0"]
    [article] = found.all("article")
    for piece in (one.why[1:], "make prove KERNEL=/tree/4.18.0", "5a" * 32, "0123abc, dirty: no",
                  "gcc 12.2.0", "x86_64, QEMU with tcg", "revert.cocci (2 places)",
                  "mm/rmap.c:2164 try_to_migrate_one", "2026-03-01 11:00 UTC",
                  "One lost write, on the vulnerable kernel", "0x100000000002a80"):
        assert piece in article, piece
    for cell in ("2 of 2", "20 of 20 (100 %)", "0 of 20"):
        assert cell in found.all("td")
    for head in ("boots", "tests that failed", "migrations that lost writes"):
        assert head in found.all("th", scope="row")
    # A run is in OUT twice, in its folder and as the last one.
    assert "from 1 run and 0 records" in found.all("header")[0]


def test_what_went_wrong_is_told(tmp_path: Path) -> None:
    found = Page(write(put(tmp_path, made("CRASHED", "4.18.0", 1), made("INCOMPLETE", "4.9.1", 2))))
    assert "fixed kernel: CRASHED in 1 of 1 boots, see out/fixed-1: BUG: " \
           "kernel BUG at include/linux/swapops.h:129!" in found.all("li")
    assert any(line.startswith("fixed kernel: INCOMPLETE in 1 of") for line in found.all("li"))
    head = "What the fixed kernel said first, without its registers"
    assert head in found.all("h4")
    assert any(said.startswith("of boot out/fixed-1 kernel BUG at inc") for said in found.all("div"))


def test_the_newest_run_is_what_the_cell_says(tmp_path: Path) -> None:
    put(tmp_path, made("PROVED", "6.12.57", 1), made("REGRESSED", "6.12.57", 5),
        made("PROVED", "6.12.57", 3))
    said = write(tmp_path)
    cell = cells(said)["pmd-share-migrate", "6.12.57"]
    assert cell.startswith("✗ REGRESSED 20 of 20 20 of 20 1 boot, run") and "2 older runs" in cell
    assert "PROVED" not in cell
    assert len(Page(said).all("article")) == 3


def test_debug_is_told_apart(tmp_path: Path) -> None:
    put(tmp_path, made("PROVED", "6.12.57", 1), made("MISSED", "6.12.57", 2, debug=True))
    said = write(tmp_path)
    cell = cells(said)["pmd-share-migrate", "6.12.57"]
    assert "✓ PROVED" in cell and re.search(r"○ MISSED .* DEBUG=1, 1 boot", cell)
    assert "pmd-share-migrate on 6.12.57, DEBUG=1" in Page(said).all("h3")


def test_another_architecture_is_told_apart(tmp_path: Path) -> None:
    put(tmp_path, made("PROVED", "6.12.57", 1), made("MISSED", "6.12.57", 2, arch="arm64"))
    said = write(tmp_path)
    cell = cells(said)["pmd-share-migrate", "6.12.57"]
    assert re.search(r"✓ PROVED .* 1 boot.*○ MISSED .* arm64, 1 boot", cell) and "x86" not in cell
    assert "pmd-share-migrate on 6.12.57, arm64" in Page(said).all("h3")


def test_a_record_is_a_proof_too(tmp_path: Path) -> None:
    one, two = made("PROVED", "6.12.57", 1), made("PROVED", "4.18.0", 2)
    for recorded in (one, two):
        result.write(recorded, tmp_path / "saved")
        record.write(tmp_path / "saved", tmp_path / "proofs")
    out = put(tmp_path / "out", one, made("MISSED", "4.18.0", 3))
    said = write(out, tmp_path / "proofs")
    matrix = cells(said)
    # The record of this very run says nothing more; that of another stands beside what is newer.
    assert matrix["pmd-share-migrate", "6.12.57"].count("PROVED") == 1
    assert "1 boot, run, recorded, stale" in matrix["pmd-share-migrate", "6.12.57"]
    assert re.search("MISSED .* run, stale ✓ PROVED .* recorded, stale$", matrix["pmd-share-migrate", "4.18.0"])
    found = Page(said)
    assert found.all("h2")[2] == "Recorded proofs" and len(found.all("h3")) == 4
    assert found.all("article")[-1].count("make prove KERNEL=/path/to/") == 1


def test_the_records_of_the_project_are_all_there(tmp_path: Path) -> None:
    put(tmp_path, made("MISSED", "6.99.1", 1))
    said = report.write(tmp_path).read_text()
    recorded = [path for path in record.RECORDS.glob("*/*.json")
                if path.parent.name not in ("mutants", "bench")]
    assert f"from 1 run and {len(recorded)} records" in said
    matrix = cells(said)
    places = {(path.parent.name, record.load(path).source["version"]) for path in recorded}
    for place in places:
        assert "✓ PROVED" in matrix[place]
    assert {key for key, cell in matrix.items() if "PROVED" in cell} == places


def test_a_record_that_cannot_be_read_is_no_proof(tmp_path: Path) -> None:
    put(tmp_path / "out", made("MISSED", "6.12.57", 1))
    path = tmp_path / "proofs" / "pmd-share-migrate" / "6.1.1.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"verdict": "PROVED"}\n')
    with pytest.raises(LabError, match="6.1.1.json cannot be read"):
        write(tmp_path / "out", tmp_path / "proofs")
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_run_of_an_older_lab(tmp_path: Path) -> None:
    """Its verdict.json has no timelines, and some figures are not there; it said LOST."""
    told = told_by(made("PROVED", "6.12.57", 1))
    del told["harm"]
    for variant in told["variants"].values():
        del variant["timelines"]
        for test in variant["by_test"].values():
            del test["also"]
    told["verdict"] = "LOST"
    (tmp_path / "verdict.json").write_text(json.dumps(told))
    said = write(tmp_path)
    assert "No timeline: none of the tests of this run printed one." in said
    assert "\u2205 INCOMPLETE" in cells(said)["pmd-share-migrate", "6.12.57"] and "LOST" not in said


def test_what_is_stale_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made("PROVED", "6.12.57", 1)
    result.write(one, tmp_path / "saved")
    record.write(tmp_path / "saved", tmp_path / "proofs")
    out = put(tmp_path / "out", made("MISSED", "6.1.192", 3))
    for reason in ("", "the selftests have changed since"):
        monkeypatch.setattr(record, "stale", lambda _run, reason=reason: reason)
        said = write(out, tmp_path / "proofs")
        for version, origin in (("6.12.57", "recorded"), ("6.1.192", "run")):
            cell = cells(said)["pmd-share-migrate", version]
            assert cell.endswith(f"1 boot, {origin}, stale" if reason else f"1 boot, {origin}")
        for article in Page(said).all("article"):
            assert (f"Stale: {reason}." in article) == bool(reason)


def test_folders_without_a_verdict_are_named(tmp_path: Path) -> None:
    put(tmp_path, made("PROVED", "6.12.57", 1))
    (tmp_path / "20260101-000000-exec-temp-stack-6.1.1" / "vulnerable").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    said = write(tmp_path)
    assert "interrupted or still at work: 20260101-000000-exec-temp-stack-6.1.1." in said


# ---- the pictures --------------------------------------------------------------------------


def test_both_kernels_are_drawn_on_one_scale(tmp_path: Path) -> None:
    said = write(put(tmp_path, made("PROVED", "6.12.57", 1)))
    figure = said[said.index("<figure>"):said.index("</figure>")]
    drawn = re.findall(r"<svg class=\"timeline\" width=\"100%\".*?</svg>", figure, re.DOTALL)
    assert len(drawn) == 2
    ids = [re.search(r'aria-labelledby="(\S+) (\S+)"', one) for one in drawn]
    for one, named in zip(drawn, ids):
        assert named and f'<title id="{named[1]}">' in one and f'<desc id="{named[2]}">' in one
    axes = [re.findall(r'<line class="axis" x1="([\d.]+%)"', one) for one in drawn]
    begins = [re.findall(r'<rect class="call" x="([\d.]+%)"', one) for one in drawn]
    assert axes[0] == axes[1] and begins[0] == begins[1]
    vulnerable, fixed = drawn
    assert vulnerable.count('<line class="lost"') > 20 and "the window: 5.9 ms" in vulnerable
    assert '<rect class="open"' in vulnerable
    assert 'class="lost"' not in fixed and "no window: every write is found" in fixed
    assert fixed.count('<line class="pause"') == 3 and "no write for 5.2 ms" in fixed


def test_a_mark_is_where_its_write_was(tmp_path: Path) -> None:
    """Each is a write of the log, at its time, on its side of the line; none is invented."""
    found = report.gather(put(tmp_path, made("PROVED", "6.12.57", 1)), tmp_path / "none")
    [picture, _] = page.pictures(found.runs[0])
    assert picture.vulnerable and picture.fixed and picture.processes() == 3
    scale = Scale.of(picture.timelines())
    for timeline in picture.timelines():
        drawn = draw(timeline, scale, "x", "", "")
        for fate in ("kept", "lost"):
            marks = set(re.findall(rf'<line class="{fate}" x1="([\d.]+%)"', drawn))
            places = {scale.x(write.us) for writer in timeline.writers for write in writer.known
                      if write.lost == (fate == "lost")}
            assert marks <= places and bool(marks) == bool(places)
        for writer in timeline.writers:
            for one, two in zip(writer.known, writer.known[1:]):
                if one.lost != two.lost:
                    assert f'<line class="{"lost" if two.lost else "kept"}" ' \
                           f'x1="{scale.x(two.us)}"' in drawn


def test_a_loss_that_no_mark_shows_is_not_denied(tmp_path: Path) -> None:
    """The journals can lack a few writes of which no time is known."""
    told = told_by(made("MISSED", "6.12.57", 1))
    lines = told["variants"]["fixed"]["timelines"][0]["lines"]
    lines[0] = lines[0].replace("lost_words=0", "lost_words=2")
    (tmp_path / "verdict.json").write_text(json.dumps(told))
    said = write(tmp_path)
    assert "writes are lost, but none of these" in said
    assert "are found, though the page lacked 2 writes of others" in said


def test_the_words_are_those_of_the_data(tmp_path: Path) -> None:
    found = Page(write(put(tmp_path, made("PROVED", "6.12.57", 1))))
    [large, small] = [words for words in found.all("p") if "to one huge page" in words]
    assert large.startswith("Three processes write") and small.startswith("One process writes")
    assert "from 1.4 ms to 7.3 ms writes fall into it" in large
    assert "Of 180 writes of which the test can tell, 88 are lost." in large
    assert "On the fixed kernel each of them takes page faults, with no write for 5.2 ms" in large
    assert "On the fixed kernel it takes page faults, with no write for 3.3 ms at most" in small
    missed = Page(write(put(tmp_path / "2", made("MISSED", "6.12.57", 1))))
    assert "One migration, as a test saw it" in missed.all("h4")
    [large, _] = [words for words in missed.all("p") if "to one huge page" in words]
    assert "fall into it" not in large and "On the vulnerable kernel each of them takes" in large
    worse = Page(write(put(tmp_path / "3", made("REGRESSED", "6.12.57", 1))))
    [large, _] = [words for words in worse.all("p") if "to one huge page" in words]
    assert large.count("fall into it") == 2


# ---- what it must not do -------------------------------------------------------------------


def test_what_a_log_says_stays_text(tmp_path: Path) -> None:
    told = told_by(made("CRASHED", "4.18.0", 1))

    def spoil(value: object) -> object:
        if isinstance(value, dict):
            return {key: spoil(inner) if key not in ("started", "folder", "boots") else inner
                    for key, inner in value.items()}
        if isinstance(value, list):
            return [spoil(inner) for inner in value]
        return value + EVIL if isinstance(value, str) else value

    bad = spoil(told)
    assert isinstance(bad, dict)
    for variant in bad["variants"].values():
        variant["by_test"] = {name + EVIL: test for name, test in variant["by_test"].items()}
        variant["timelines"] = told["variants"]["vulnerable"]["timelines"]
        variant["timelines"][0]["test"] = EVIL
    (tmp_path / "verdict.json").write_text(json.dumps(bad))
    said = write(tmp_path)
    found = Page(said)
    names = {tag for tag, _, _ in found.elements}
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", said)
    assert any("<script>alert(1)</script>\"'><img src=http://evil/x>&?[31m??" in words
               for words in found.all("article"))
    for _, attributes, _ in found.elements:
        assert not any(key.startswith("on") for key in attributes)
    assert_self_contained(said)


def assert_self_contained(said: str) -> None:
    for tag, attributes, _ in Page(said).elements:
        assert tag not in ("script", "link", "img", "iframe", "use", "image", "foreignobject")
        for key, value in attributes.items():
            assert key not in ("src", "srcset", "xlink:href", "data", "poster", "style")
            assert key != "href" or value.startswith("#")
            assert key == "content" or "url(" not in value
    style = said[said.index("<style>"):said.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style
    assert "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';" in said


def test_it_needs_nothing_else(tmp_path: Path) -> None:
    said = report.write(put(tmp_path, made("PROVED", "6.12.57", 1))).read_text()
    assert_self_contained(said)
    found = Page(said)
    ids = [attributes["id"] for _, attributes, _ in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes, _ in found.elements:
        if tag == "a":
            assert attributes["href"].removeprefix("#") in ids
        for name in attributes.get("aria-labelledby", "").split():
            assert name in ids


def test_it_can_be_read_aloud(tmp_path: Path) -> None:
    found = Page(write(put(tmp_path, made("PROVED", "6.12.57", 1))))
    tags = [tag for tag, _, _ in found.elements]
    assert found.elements[0][1] == {"lang": "en"} and tags.count("h1") == tags.count("title") - 4
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:]))
    for tag, attributes, said in found.elements:
        if tag == "th":
            assert attributes.get("scope") in ("row", "col") and "".join(said).strip()
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("role") == "img"
    assert tags.count("table") == tags.count("caption")


def test_elements() -> None:
    assert text("a<b>\"'&\x00\n\tü\u2713") == "a&lt;b&gt;&quot;&#x27;&amp;?\n\tü\u2713"
    assert element("a", "<b>", class_='"', aria_label="x", href=None) == \
        '<a class="&quot;" aria-label="x"><b></a>'


# ---- files and errors ----------------------------------------------------------------------


def test_nothing_to_report_is_one_line(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "nowhere"):
        done = make("report", f"OUT={out}")
        errors = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
        assert done.returncode != 0
        assert errors == [f"error: there is no run in {out}: run make prove first, or name its "
                          "OUT="]
    assert list(tmp_path.iterdir()) == []


def test_the_records_alone_make_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    """As in a new clone, which has no out/; an OUT= without a run is a mistake."""
    monkeypatch.setattr(cli, "REPO", tmp_path)
    assert cli.main(["report"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/report.html\n"
    said = (tmp_path / "out/report.html").read_text()
    assert "from 0 runs and " in said and "this page is of records alone" in said
    assert '<h2 id="records">' in said
    with pytest.raises(LabError, match="there is no run in"):
        report.write(tmp_path, None, tmp_path / "none", runs=False)


def test_make_report(tmp_path: Path) -> None:
    put(tmp_path / "out", made("PROVED", "6.12.57", 1))
    done = make("report", f"OUT={tmp_path}/out")
    assert done.stdout == f"{tmp_path}/out/report.html\n", done.stderr
    done = make("report", f"OUT={tmp_path}/out", f"O={tmp_path}/a b.html")
    assert (tmp_path / "a b.html").read_text().startswith("<!DOCTYPE html>\n")
    done = make("report", f"OUT={tmp_path}/out", f"O={tmp_path}")
    assert f"error: {tmp_path} is a folder: name a file with O=" in done.stderr


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"source": 1}', "null", "\xff"])
def test_a_verdict_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    put(tmp_path, made("PROVED", "6.12.57", 1))
    home = tmp_path / "20260101-000000-pmd-share-migrate-6.1.1"
    home.mkdir()
    (home / "verdict.json").write_text(content, encoding="latin-1")
    with pytest.raises(LabError, match=f"{home}/verdict.json cannot be read: run make prove again"):
        write(tmp_path)
    assert not (tmp_path / "report.html").exists()


# ---- in a browser --------------------------------------------------------------------------


# Loads the page four times and writes down what came of it.  A frame's color-scheme is what a page
# in it is told that its reader prefers.
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body><pre id="told"></pre><script>
const told = {};
const rgb = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const light = color => rgb(color).slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
const contrast = (one, two) => (Math.max(light(one), light(two)) + 0.05)
                             / (Math.min(light(one), light(two)) + 0.05);

function measure(frame) {
    const view = frame.contentWindow, doc = frame.contentDocument, wide = view.innerWidth;
    for (const one of doc.querySelectorAll("details")) one.open = true;
    const told = {asked: parseInt(frame.style.width), wide, page: doc.documentElement.scrollWidth,
                  background: view.getComputedStyle(doc.body).backgroundColor,
                  outside: [], faint: [], clipped: [], pictures: [], boxes: 0, marks: []};
    for (const one of doc.body.querySelectorAll("*")) {
        const style = view.getComputedStyle(one), at = one.getBoundingClientRect();
        if (!one.closest(".box") && at.right > wide + 0.5)
            told.outside.push(one.outerHTML.slice(0, 99));
        if (one.matches("svg")) told.pictures.push([at.width, at.height]);
        if (one.matches(".box") && one.scrollWidth > one.clientWidth) {
            if (style.overflowX === "auto") told.boxes++;
            else told.outside.push(one.outerHTML.slice(0, 99));
        }
        if (![...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
        if (one.matches("title, desc")) continue;
        const svg = one.closest("svg");
        let ground = one;
        while (ground && rgb(view.getComputedStyle(ground).backgroundColor)[3] === 0)
            ground = ground.parentElement;
        const behind = view.getComputedStyle(ground || doc.body).backgroundColor;
        const grounds = [behind];
        const open = svg && svg.querySelector(".open");
        if (open) grounds.push(view.getComputedStyle(open).fill);
        for (const color of grounds) {
            const much = contrast(svg ? style.fill : style.color, color);
            if (much < 4.5) told.faint.push([one.outerHTML.slice(0, 99), much]);
        }
        if (svg) {
            const frame = svg.getBoundingClientRect();
            if (at.left < frame.left - 1 || at.right > frame.right + 1
                || at.bottom > frame.bottom + 1)
                told.clipped.push(one.textContent);
        }
    }
    const seen = [...doc.querySelectorAll("h1, svg text, .verdict")]
        .filter(one => one.checkVisibility() && one.getBoundingClientRect().height > 5);
    told.seen = seen.map(one => one.textContent.trim());
    return told;
}
function done() {
    for (const frame of document.querySelectorAll("iframe"))
        told[frame.id] = measure(frame);
    document.getElementById("told").textContent = JSON.stringify(told);
}
let loading = 0;
function load(page, id, width, scheme) {
    const frame = document.createElement("iframe");
    frame.id = id;
    frame.style = `width: ${width}px; height: 600px; border: 0; color-scheme: ${scheme}`;
    frame.onload = () => --loading || done();
    frame.src = page;
    loading++;
    document.body.append(frame);
}
load("bad.html", "bad", 320, "dark");
for (const width of [320, 1280]) for (const scheme of ["light", "dark"])
    load("report.html", `${width}-${scheme}`, width, scheme);
</script>"""
# What all that must find something in, or it would find nothing anywhere.
BAD = """<!DOCTYPE html><meta name="color-scheme" content="light dark">
<body style="background: #fff">
<h1 hidden>not to be seen</h1><p style="color: #999">faint</p><p style="width: 400px">wide</p>
<div class="box" style="width: 200px"><p style="width: 300px">it does not scroll</p></div>
<svg width="100" height="20"><text x="80" y="15">cut off</text></svg>
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []

    def log_message(self, *_: object) -> None:
        Quiet.asked.append(self.path)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, object]]]:
    """What a browser makes of a page with a bit of everything, on a phone and on a desk."""
    if not shutil.which("chromium"):
        pytest.skip("no chromium: apt install chromium")
    top = tmp_path_factory.mktemp("browser")
    put(top, made("PROVED", "6.12.57", 1), made("MISSED", "6.1.192", 2),
        made("CRASHED", "4.18.0", 3), made("REGRESSED", "4.9.115", 4, compiler="c" * 90,
                                           command="make prove KERNEL=/" + "long/" * 30))
    report.write(top)
    (top / "measure.html").write_text(MEASURE)
    (top / "bad.html").write_text(BAD)
    Quiet.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                             functools.partial(Quiet, directory=str(top)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # Its sandbox is not to be had as root.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    try:
        done = subprocess.run(
            ["nice", "-n", "19", "chromium", "--headless", *root, "--disable-gpu",
             "--hide-scrollbars", "--no-first-run", f"--user-data-dir={top}/profile",
             "--virtual-time-budget=20000",
             "--dump-dom", f"http://127.0.0.1:{server.server_port}/measure.html"],
            text=True, errors="replace", capture_output=True, check=False, timeout=120)
    finally:
        server.shutdown()
        server.server_close()
    match = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match and match[1], done.stderr[-2000:]
    yield json.loads(html.unescape(match[1]))


VIEWS = [f"{width}-{scheme}" for width in (320, 1280) for scheme in ("light", "dark")]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.slow
def test_nothing_is_wider_than_the_screen(shown: dict[str, dict[str, object]], view: str) -> None:
    told = shown[view]
    assert told["wide"] == told["asked"] == int(view.split("-")[0])
    assert told["page"] == told["wide"] and told["outside"] == []
    # On a phone the matrix cannot fit, and scrolls by itself.
    assert view.startswith("1280") or int(str(told["boxes"])) >= 1


@pytest.mark.parametrize("view", VIEWS)
def test_pictures_have_a_size_and_their_words_fit(shown: dict[str, dict[str, object]],
                                                  view: str) -> None:
    told = shown[view]
    sizes = told["pictures"]
    assert isinstance(sizes, list) and len(sizes) > 20
    assert all(width > 20 and height > 10 for width, height in sizes)
    assert sum(width > 250 and height > 100 for width, height in sizes) == 16
    assert told["clipped"] == []


@pytest.mark.parametrize("view", VIEWS)
def test_words_can_be_seen(shown: dict[str, dict[str, object]], view: str) -> None:
    told = shown[view]
    seen = told["seen"]
    assert isinstance(seen, list)
    for words in (page.TITLE, "✓ PROVED", "○ MISSED", "the window: 5.9 ms",
                  "no window: every write is found", "old place: node 1, PFN 0x178200"):
        assert words in seen, words
    assert told["faint"] == []


def test_dark_is_dark_and_light_is_light(shown: dict[str, dict[str, object]]) -> None:
    def ground(view: str) -> int:
        return sum(map(int, re.findall(r"\d+", str(shown[view]["background"]))[:3]))

    for width in (320, 1280):
        assert ground(f"{width}-light") > 700 and ground(f"{width}-dark") < 100


def test_what_is_wrong_would_be_seen(shown: dict[str, dict[str, object]]) -> None:
    told = shown["bad"]
    assert int(str(told["page"])) > 320 == told["wide"]
    for key, count in (("outside", 2), ("clipped", 1)):
        found = told[key]
        assert isinstance(found, list) and len(found) == count, told[key]
    assert any("faint" in words for words, _ in told["faint"])      # type: ignore[attr-defined]
    assert told["seen"] == ["cut off"] and told["background"] == "rgb(255, 255, 255)"


def test_a_browser_asks_for_nothing_else(shown: dict[str, dict[str, object]]) -> None:
    assert shown
    assert set(Quiet.asked) - {"/favicon.ico"} == {"/bad.html", "/measure.html", "/report.html"}
