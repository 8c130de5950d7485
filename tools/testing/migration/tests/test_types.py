# SPDX-License-Identifier: GPL-2.0
"""The lab is typed, its tests use what they import, and what imports what goes one way."""

import ast
import graphlib
import itertools
import subprocess
from pathlib import Path

import pytest

from lab.paths import HOME

# From what is known to what is done: a kernel is made, booted, judged, and told of.
ROOMS = ("lab.kernel", "lab.guest", "lab.judge", "lab.tell", "lab.verbs", "lab.cli")


def test_mypy(tmp_path: Path) -> None:
    done = subprocess.run(["mypy", "--strict", f"--cache-dir={tmp_path}", "lab"], cwd=HOME,
                          text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyflakes() -> None:
    done = subprocess.run(["pyflakes3", "lab", "tests"], cwd=HOME, text=True, capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def imports(home: Path) -> dict[str, set[str]]:
    """What each module of the lab imports of the lab, also inside of functions."""
    modules = {".".join(path.relative_to(home).with_suffix("").parts): path
               for path in (home / "lab").rglob("*.py") if path.name != "__init__.py"}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                asked = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
                found[name] |= modules.keys() & set(asked)
            elif isinstance(node, ast.Import):
                found[name] |= modules.keys() & {one.name for one in node.names}
    return found


def circle(home: Path) -> list[str]:
    """Modules or rooms that import each other in a circle; a module beside the rooms is one.

    Each of ROOMS counts as an importer of those before it, whether it does or not.
    """
    modules = imports(home)
    rooms: dict[str, set[str]] = {later: {room} for room, later in itertools.pairwise(ROOMS)}
    for name, others in modules.items():
        room = rooms.setdefault(".".join(name.split(".")[:2]), set())
        room |= {".".join(other.split(".")[:2]) for other in others}
    for room, others in rooms.items():
        others.discard(room)
    for graph in (modules, rooms):
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as err:
            return list(err.args[1])
    return []


def test_imports_go_one_way() -> None:
    assert set(ROOMS) <= {".".join(name.split(".")[:2]) for name in imports(HOME)}
    assert circle(HOME) == []


@pytest.mark.parametrize(("name", "text"), [
    ("guest/a.py", "from lab.verbs import prove\n"),
    ("kernel/a.py", "def late():\n    import lab.judge.klog\n"),
    ("a.py", "from lab.cli import main\n"),
    ("kernel/a.py", "from lab.kernel.b import it\n"),
])
def test_what_imports_upwards_is_found(tmp_path: Path, name: str, text: str) -> None:
    for path, said in {"kernel/b.py": "from lab.kernel import a\n", "verbs/prove.py": "",
                       "judge/klog.py": "", "cli.py": "import lab.a\n", "guest/b.py": "",
                       "kernel/a.py": "", "a.py": "", name: text}.items():
        (tmp_path / "lab" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lab" / path).write_text(said)
    assert circle(tmp_path)
    (tmp_path / "lab" / name).write_text("")
    assert not circle(tmp_path)
