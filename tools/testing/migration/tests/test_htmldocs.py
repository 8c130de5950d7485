# SPDX-License-Identifier: GPL-2.0
"""The page renders as `make htmldocs` of 7.3 renders it, without a word of warning.

With the kernel's own conf.py and its extensions, but for those that read other formats, and the
page alone: a tree has 4000 of them.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import debian_tree
from test_docs import PAGE, needs_sphinx

pytestmark = [pytest.mark.slow, needs_sphinx]

EXTENSIONS = ("automarkup", "kernel_include", "kerneldoc", "kfigure", "rstFlatTable",
              "translations", "sphinx.ext.ifconfig", "sphinx.ext.autosectionlabel")
# It would use these for figures, and the page has none.
FIGURES = re.compile(r"(?m)^WARNING: (?:dot\(1\)|.*\b(?:convert|rsvg|inkscape)\b).*\n")


def rendered(folder: Path, page: str) -> tuple[str, str]:
    """The page as HTML, and what sphinx-build says of it."""
    tree = debian_tree("7.3").tree
    top = folder / "Documentation"
    for name in ("sphinx", "sphinx-static", "images"):
        shutil.copytree(tree / "Documentation" / name, top / name)
    shutil.copyfile(tree / "Documentation" / "conf.py", top / "conf.py")
    shutil.copytree(tree / "tools/lib/python", folder / "tools/lib/python")
    (top / "mm").mkdir()
    (top / "mm" / PAGE.name).write_text(page, encoding="utf-8")
    (top / "index.rst").write_text(f"x\n=\n\n.. toctree::\n\n   mm/{PAGE.stem}\n")
    done = subprocess.run(
        ["sphinx-build", "-q", "-b", "html", "-D", f"extensions={','.join(EXTENSIONS)}",
         top, folder / "out"], text=True, capture_output=True, check=False,
        env={**os.environ, "srctree": str(folder),
             "PYTHONPATH": str(folder / "tools/lib/python")})
    html = folder / "out" / "mm" / f"{PAGE.stem}.html"
    return html.read_text(encoding="utf-8") if html.exists() else "", \
        FIGURES.sub("", done.stderr).replace("Using alabaster theme\n", "")


def test_the_page_renders(tmp_path: Path) -> None:
    html, said = rendered(tmp_path, PAGE.read_text(encoding="utf-8"))
    assert said == ""
    # automarkup has seen functions, and docutils the table at the end.
    assert "huge_pmd_unshare" in html and html.count("<tr") > 60


@pytest.mark.parametrize("old, new, reason", [
    ("`Where the code is`_", "`Where the code was`_", "Unknown target name"),
    ("\n=======\n\nThree locks", "\n=====\n\nThree locks", "Title underline too short"),
    ("hugetlb_fault()                        6.1\n",
     "hugetlb_fault() and what not, all of it 6.1\n", "Malformed table"),
])
def test_what_is_wrong_is_seen(old: str, new: str, reason: str, tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert old in page
    assert reason in rendered(tmp_path, page.replace(old, new, 1))[1]
