# SPDX-License-Identifier: GPL-2.0
"""Building: what is cached, what a killed or second run does, what a failure says.

The kernel tree here is a Makefile that takes as long and fails as often as a test wants.
"""

import dataclasses
import fcntl
import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import put, taken

from lab import arch
from lab.base import Base
from lab.errors import LabError
from lab.kernel import build, kconfig
from lab.kernel.source import Source
from lab.kernel.variant import Variant
from lab.paths import locked
from lab.progress import Progress
from lab.trial import differ

X86 = arch.load("x86_64")
IMAGE = "arch/x86/boot/bzImage"
RMAP = "int protection;\n"
# Builds as kbuild does where it matters: an object per file, newer than its source.
MAKEFILE = """\
SRC := $(CURDIR)
bzImage: $(O)/one.o $(O)/mm/rmap.o
	@mkdir -p $(O)/arch/x86/boot
	cat $^ > $(O)/arch/x86/boot/bzImage
	touch $(O)/vmlinux
	env > $(O)/env
$(O)/one.o: one.c
	@echo '  CC      one.o'
	@echo '  HOSTCC  no/object.o'
	cp $< $@
# After the other, or what a run that is ended has built would be chance.
$(O)/mm/rmap.o: mm/rmap.c | $(O)/one.o
	@mkdir -p $(O)/mm
	@echo '  CC      mm/rmap.o'
	sh $(SRC)/../compile $< $@
"""
FIXED = Variant("fixed", "as it is", "", "0" * 16, ())
VULNERABLE = Variant(
    "vulnerable", "revert.cocci (1 place)",
    "diff --git a/mm/rmap.c b/mm/rmap.c\n--- a/mm/rmap.c\n+++ b/mm/rmap.c\n"
    "@@ -1 +1 @@\n-int protection;\n+int none;\n", "1" * 16, ("mm/rmap.c:1 f",))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))

    def configure(_source: Source, obj: Path, asked: kconfig.Request, _arch: object,
                  _log: Path) -> None:
        obj.mkdir(exist_ok=True)
        (obj / ".config").write_text(asked.text)

    monkeypatch.setattr(kconfig, "make", configure)
    tree = tmp_path / "cache" / "work" / "k" / "tree"
    (tree / "mm").mkdir(parents=True)
    for name, text in {"Makefile": MAKEFILE, "one.c": "int one;\n", "mm/rmap.c": RMAP,
                       "../compile": "cp $1 $2\n"}.items():
        (tree / name).write_text(text)
    base = Base(name="0.1", package=None, suites=(), drop=(), add=(), cflags="", cmdline="")
    return taken(Source(base=base, version="0.1.2", identity={"package": "linux 0.1"}, key="k",
                        tree=tree))


def with_key(source: Source, key: str) -> Source:
    """The source after its work tree was brought up to date."""
    (source.tree.parent / "key").write_text(key)
    return dataclasses.replace(source, key=key)


def quiet() -> Progress:
    return Progress(stream=io.StringIO())


def build_it(source: Source, which: Variant = FIXED, debug: bool = False) -> build.Kernel:
    return build.kernel(source, which, X86, debug, quiet())


def log_of(source: Source, which: Variant) -> str:
    return (source.tree.parents[2] / "logs" /
            f"build-0.1.2-{which.name}-x86_64.log").read_text()


def slow_compiler(source: Source, seconds: float = 60) -> Path:
    """Make the compiler of mm/rmap.c say that it has begun, and take its time."""
    begun = source.tree.parent / "begun"
    (source.tree.parent / "compile").write_text(
        f"content=$(cat $1); touch {begun}; sleep {seconds}; echo \"$content\" > $2\n")
    return begun


def in_a_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except KeyboardInterrupt:
        status = 130
    except LabError:
        status = 2
    finally:
        os._exit(status)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "nothing happened for 20 s"
        time.sleep(0.01)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_second_variant_rebuilds_one_object_and_a_third_time_nothing(source: Source) -> None:
    fixed = build_it(source, FIXED)
    assert not fixed.cached and fixed.image.read_text() == "int one;\nint protection;\n"
    vulnerable = build_it(source, VULNERABLE)
    assert not vulnerable.cached and vulnerable.image.read_text() == "int one;\nint none;\n"
    assert log_of(source, FIXED).count("  CC  ") == 2
    assert log_of(source, VULNERABLE).count("  CC  ") == 1
    for which, before in ((FIXED, fixed), (VULNERABLE, vulnerable)):
        again = build_it(source, which)
        assert again.cached and again.image == before.image
        assert again.identity == before.identity


def test_the_identity_says_what_it_was_built_from(source: Source) -> None:
    made = build_it(source, VULNERABLE)
    assert json.loads((made.image.parent / "identity.json").read_text()) == made.identity
    assert made.identity["package"] == "linux 0.1"
    assert made.identity["variant"] == "vulnerable"
    assert made.identity["how"] == "revert.cocci (1 place)"
    assert made.identity["places"] == "mm/rmap.c:1 f"
    assert "gcc" in made.identity["compiler"]
    assert made.identity["image_sha256"] == build._sha256(made.image)
    assert "CONFIG_HUGETLBFS=y\n" in made.config.read_text()


def test_whatever_goes_into_an_image_makes_another_key(source: Source,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {build_it(source).image}

    def is_new(made: build.Kernel) -> bool:
        fresh = not made.cached and made.image not in seen
        seen.add(made.image)
        return fresh

    assert is_new(build_it(source, VULNERABLE))
    assert is_new(build_it(source, debug=True))
    assert is_new(build_it(with_key(source, "other")))
    with_key(source, "k")
    for change in ({"cflags": "-fwrapv"}, {"add": ("CONFIG_B=y",)}, {"drop": ("CONFIG_PCI",)}):
        base = dataclasses.replace(source.base, **change)
        assert is_new(build_it(dataclasses.replace(source, base=base))), change
    monkeypatch.setattr(build, "_compiler", lambda _arch: "gcc 99")
    assert is_new(build_it(source))


def test_a_tree_that_another_run_has_changed_is_not_built(source: Source) -> None:
    with_key(source, "other")
    with pytest.raises(LabError, match="changed"):
        build_it(source)
    assert not (source.tree.parent / "obj-x86_64").exists()


def test_debug_has_a_build_folder_of_its_own(source: Source) -> None:
    build_it(source)
    made = build_it(source, debug=True)
    assert (source.tree.parent / "obj-x86_64-debug" / "vmlinux").exists()
    assert made.identity["debug"] == "yes"
    build_it(source, VULNERABLE)
    assert log_of(source, VULNERABLE).count("  CC  ") == 1


def test_a_failure_gives_the_compilers_line_and_the_log(source: Source) -> None:
    (source.tree.parent / "compile").write_text("echo 'mm/rmap.c:7:3: error: no such thing'; exit 1\n")
    with pytest.raises(LabError) as caught:
        build_it(source)
    assert str(caught.value) == \
        "the kernel could not be built: mm/rmap.c:7:3: error: no such thing"
    assert caught.value.log and "make" in Path(caught.value.log).read_text()
    assert not list((source.tree.parents[2] / "images").glob("*/image"))
    # The mistake mended, what was built before the failure is still good.
    (source.tree.parent / "compile").write_text("cp $1 $2\n")
    assert build_it(source).image.read_text() == "int one;\nint protection;\n"
    assert log_of(source, FIXED).count("  CC  ") == 1


@pytest.mark.parametrize(("log", "line"), [
    ("  CC x.o\nx.c:1:2: warning: hm\nx.c:3:4: error: bad\nmake: *** [x.o] Error 1\n",
     "x.c:3:4: error: bad"),
    ("x.c:1:10: fatal error: y.h: No such file or directory\nmake: *** Error\n",
     "x.c:1:10: fatal error: y.h: No such file or directory"),
    ("ld: a.o: in function `f':\na.c:(.text+0x1): undefined reference to `g'\n",
     "a.c:(.text+0x1): undefined reference to `g'"),
    ("x.c:3:4: error: bad\nas: can't close x.o: No space left on device\n",
     "as: can't close x.o: No space left on device"),
    ("  LD x\n***\n*** The source tree is not clean\n***\n", "*** The source tree is not clean"),
    ("one\nKilled\n", "Killed"),
    ("", "make said nothing"),
])
def test_the_first_error_is_found(tmp_path: Path, log: str, line: str) -> None:
    (tmp_path / "log").write_text(log)
    assert build.first_error(tmp_path / "log") == line


def test_progress_counts_objects_against_the_last_full_build(source: Source) -> None:
    def said(which: Variant, folder_gone: bool = False) -> str:
        out = io.StringIO()
        build.kernel(source, which, X86, False, Progress(stream=out, interval=-1))
        return out.getvalue()

    assert f"1 of about {build._FIRST_GUESS} objects" in said(FIXED)
    assert "1 objects" in said(VULNERABLE)
    other = with_key(source, "other")
    for path in (source.tree.parent / "obj-x86_64").glob("**/*"):
        path.unlink() if path.is_file() else None
    out = io.StringIO()
    build.kernel(other, FIXED, X86, False, Progress(stream=out, interval=-1))
    assert "2 of 2 objects" in out.getvalue()


@pytest.mark.slow
def test_two_runs_at_once_build_once(source: Source) -> None:
    begun = slow_compiler(source, 1)
    children = [in_a_child(lambda: build_it(source)) for _ in range(2)]
    wait_for(begun.exists)
    assert [exit_code(child) for child in children] == [0, 0]
    # One of them found what the other built: the log of the one that built says so.
    assert build_it(source).cached
    assert log_of(source, FIXED).count("  CC      mm/rmap.o") == 1


def test_a_run_waits_for_the_tree_and_says_so(source: Source) -> None:
    out = io.StringIO()

    def later() -> None:
        wait_for((source.tree.parent / "held").exists)
        build.kernel(source, FIXED, X86, False, Progress(stream=out, interval=-1))
        (source.tree.parent / "said").write_text(out.getvalue())

    # Before the lock is taken: a child would inherit it.
    child = in_a_child(later)
    with locked(source.tree.parent / "lock"):
        (source.tree.parent / "held").touch()
        time.sleep(0.5)
        assert not (source.tree.parent / "obj-x86_64.unfinished").exists()
    assert exit_code(child) == 0
    assert "waiting for it" in (source.tree.parent / "said").read_text()


def test_ctrl_c_ends_make_and_its_children(source: Source) -> None:
    begun = slow_compiler(source)
    child = in_a_child(lambda: build_it(source))
    wait_for(begun.exists)
    os.kill(child, signal.SIGINT)
    assert exit_code(child) == 130
    # Nobody of that run is left to hold the build folder.
    with open(source.tree.parent / "obj-x86_64.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not (source.tree.parent / "obj-x86_64.unfinished").exists()
    (source.tree.parent / "compile").write_text("cp $1 $2\n")
    assert build_it(source).image.read_text() == "int one;\nint protection;\n"
    # What was built before is kept.
    assert log_of(source, FIXED).count("  CC  ") == 1


@pytest.mark.slow
def test_a_killed_run_leaves_no_object_of_the_old_variant(source: Source) -> None:
    """A compiler that outlives its run must not finish an old object after the switch."""
    begun = slow_compiler(source, 2)
    # It ignores that make is told to stop, as a hung disk would have it.
    compiler = (source.tree.parent / "compile")
    compiler.write_text("trap '' TERM\n" + compiler.read_text())
    child = in_a_child(lambda: build_it(source, VULNERABLE))
    wait_for(begun.exists)
    os.kill(child, signal.SIGKILL)
    assert exit_code(child) == -signal.SIGKILL
    with open(source.tree.parent / "obj-x86_64.lock", "a") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not list((source.tree.parents[2] / "images").glob("*/image"))
    compiler.write_text("cp $1 $2\n")
    assert build_it(source, FIXED).image.read_text() == "int one;\nint protection;\n"
    assert (source.tree / "mm/rmap.c").read_text() == RMAP
    # Half an object could be anywhere: all of it was built again.
    assert log_of(source, FIXED).count("  CC  ") == 2


def test_a_missing_compiler_is_named(source: Source) -> None:
    other = dataclasses.replace(X86, machine_name="nosuch", triplet="nosuch-linux-gnu")
    with pytest.raises(LabError, match="no compiler nosuch-linux-gnu-gcc for x86_64"):
        build.kernel(source, FIXED, other, False, quiet())


def test_a_full_disk_is_said_before_the_build(source: Source,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_NEEDED_MIB", 1 << 40)
    with pytest.raises(LabError, match="building a kernel needs"):
        build_it(source)


def test_the_build_is_the_same_on_every_machine(source: Source,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUILD_BUILD_HOST", "mine")
    monkeypatch.setenv("MAKEFLAGS", "--no-print-directory")
    monkeypatch.setenv("DEBUG", "1")
    build_it(source)
    env = (source.tree.parent / "obj-x86_64" / "env").read_text().splitlines()
    assert "KBUILD_BUILD_HOST=lab" in env and "KBUILD_BUILD_VERSION=1" in env
    assert not [line for line in env if line.startswith("DEBUG=")]
    assert f"CCACHE_DIR={source.tree.parents[2]}/ccache" in env


def test_a_tree_can_be_put_back_after_a_build(source: Source) -> None:
    build_it(source, VULNERABLE)
    put(source, FIXED)
    assert (source.tree / "mm/rmap.c").read_text() == RMAP


def test_two_kernels_that_are_the_same_are_an_error(source: Source) -> None:
    kernels = {"vulnerable": build_it(source, VULNERABLE), "fixed": build_it(source, FIXED)}
    differ(kernels)
    with pytest.raises(LabError, match="the vulnerable and the fixed kernel came out the same"):
        differ({**kernels, "fixed": kernels["vulnerable"]})
