# SPDX-License-Identifier: GPL-2.0
"""Renders Documentation/ and the records to HTML; what Sphinx warns of is an error.

There is no conf.py: the kernel's own does for the files that go into a kernel.  The few settings
are options here.
"""

import re
import subprocess
from pathlib import Path

from lab.errors import LabError
from lab.paths import REPO, have, new_log, scratch_dir
from lab.progress import Progress
from lab.tell import record, rst

DOCUMENTATION = REPO / "Documentation"

# The kernel's conf.py has these names; the theme is the one that comes with Sphinx.
_SETTINGS = ("project=Page migration that loses writes", "root_doc=index",
             "html_theme=alabaster", "html_copy_source=0", "html_show_copyright=0")


def build(out: Path, progress: Progress, documentation: Path = DOCUMENTATION,
          records: Path = record.RECORDS) -> Path:
    """Render the documents below `documentation` and all records to `out`; returns the first page.

    LabError with the first warning where there is any.
    """
    out = out.expanduser().resolve()
    log = new_log("docs")
    progress.step("rendering the documents")
    with scratch_dir("lab-docs-") as folder:
        top, doctrees = folder / "Documentation", folder / "doctrees"
        texts = {f"{path.relative_to(documentation).with_suffix('')}": path.read_text("utf-8")
                 for path in documentation.rglob("*.rst")} | rst.pages(records)
        for name, text in ({"index": _index(sorted(texts))} | texts).items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{top / name}.rst").write_text(text, "utf-8")
        done = subprocess.run(
            ["sphinx-build", "-C", "-E", "-a", "-q", "-W", "--keep-going", "-b", "html",
             *(word for setting in _SETTINGS for word in ("-D", setting)),
             "-d", str(doctrees), str(top), str(out)],
            text=True, errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False)
        said = done.stdout.replace(f"{folder}/", "")
    log.write_text(said, encoding="utf-8")
    if done.returncode != 0:
        progress.done("failed")
        lines = [line for line in said.splitlines() if line.strip()]
        first = next((line for line in lines if re.search(r"\b(WARNING|ERROR|SEVERE)\b", line)),
                     lines[-1] if lines else "it said nothing")
        raise LabError(f"Sphinx does not accept the documents: {first}", str(log))
    if lost := [page for name in ("index", *texts) if not have(out, (page := f"{name}.html",))]:
        progress.done("failed")
        raise LabError(f"Sphinx ended with success and made no {out / lost[0]}", str(log))
    progress.done()
    return out / "index.html"


def _index(names: list[str]) -> str:
    """A page that leads to all documents, for a folder that has none."""
    title = "Documentation"
    bar = "=" * len(title)
    return "\n".join([bar, title, bar, "", ".. toctree::", "   :maxdepth: 1", "",
                      *(f"   {name}" for name in names), ""])
