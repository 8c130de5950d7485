# SPDX-License-Identifier: GPL-2.0
"""With each patch of what is mailed, the kernel still compiles: who bisects stops at any of them.
So it does with each of series.flush that is not a fix, also without hugetlb or shared tables.

Only the objects are made whose source a patch changes, in the lab's own configuration with
tracepoints and KUnit: no whole kernel, no allmodconfig.  Programs are built by test_selftest_steps.py.
"""

import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FULL, debian_tree

from lab import arch
from lab.kernel import kconfig, testseries, variant
from lab.kernel.source import Source
from lab.progress import Progress
from lab.verbs import mailing

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.skipif(
    not FULL, reason="configures a kernel: minutes, with FULL=1")]

MORE = ("CONFIG_TEST_MMU_NOTIFIER=y", "CONFIG_RUNTIME_TESTING_MENU=y", "CONFIG_KUNIT=y",
        "CONFIG_HUGETLB_PMD_SHARE_KUNIT_TEST=y", "CONFIG_FTRACE=y",
        "CONFIG_ENABLE_DEFAULT_TRACERS=y", "CONFIG_USERFAULTFD=y", "CONFIG_CGROUPS=y",
        "CONFIG_MEMCG=y")
Step = Callable[[list[str], list[str]], str]


def objects(mail: str) -> list[str]:
    """What is compiled of the kernel's files that a patch changes or adds."""
    return sorted({f"{name[:-2]}.o" for name in re.findall(r"(?m)^\+\+\+ b/(\S+\.c)$", mail)
                   if not name.startswith("tools/")})


@pytest.fixture(scope="module", params=testseries.names())
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
          ) -> tuple[Source, Step]:
    """A source, and what makes objects of it with some patches: what the compiler says, or ""."""
    base: str = request.param
    source, machine, quiet = debian_tree(base), arch.load("x86_64"), Progress(io.StringIO())
    work = tmp_path_factory.mktemp(f"steps-{base}")
    obj, log = work / "obj", work / "log"

    def step(mails: list[str], names: list[str]) -> str:
        paths = []
        for number, mail in enumerate(mails):
            paths.append(work / f"{number:04}.patch")
            paths[-1].write_text(mail, encoding="utf-8")
        with source.kept.lock(quiet):
            variant.put(source, variant.make("step", "", variant.queue_diff(source, paths)))
            # Some options come with the patches.
            known = kconfig.symbols(source.tree, machine)
            options = tuple(line for line in MORE if line[len("CONFIG_"):].split("=")[0] in known)
            asked = kconfig.request(source.base, machine, source.tree, False, options)
            kconfig.make(source, obj, asked, machine, log)
            done = subprocess.run([*kconfig.make_command(source, machine, obj), "-j2", *names],
                                  env=kconfig.environment(obj), text=True, capture_output=True,
                                  check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    return source, step


def test_each_patch_compiles(build: tuple[Source, Step]) -> None:
    source, step = build
    base, seen = source.base.name, set()
    for part in mailing.parts(base):
        before = [text for need in mailing.first(base, part)
                  for _name, text in mailing.patches(base, need)]
        mails = [text for _name, text in mailing.patches(base, part)]
        for number, mail in enumerate(mails, 1):
            names = objects(mail)
            if not names:
                continue
            said = step([*before, *mails[:number]], names)
            assert said == "", (part, number, said[-2000:])
            seen.update(names)
    assert {"mm/hugetlb.o", "mm/rmap.o", "lib/test_mmu_notifier.o",
            "mm/tests/hugetlb_pmd_share_kunit.o"} <= seen


# Of series.flush: what scripts/config is asked for, and what no .config has then.
CONFIGS: dict[str, tuple[tuple[str, ...], str]] = {
    "as it is": ((), ""),
    "no hugetlb": (("-d", "HUGETLBFS"), "CONFIG_HUGETLB_PAGE=y"),
    # The locks of PMD tables are their own on four CPUs and more.
    "no sharing": (("--set-val", "NR_CPUS", "2"), "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING=y"),
}
FORMS = sorted(path.parent.name for path in variant.QUEUE.glob("*/series.flush"))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("base", FORMS)
def test_each_step_of_the_other_form_compiles(base: str, config: str, tmp_path: Path) -> None:
    source, machine, quiet = debian_tree(base), arch.load("x86_64"), Progress(io.StringIO())
    patches, obj, log = variant.series(base, "series.flush"), tmp_path / "obj", tmp_path / "log"
    fixes = len(variant.series(base))
    assert patches[:fixes] == variant.series(base) and len(patches) > fixes + 4
    changes, gone = CONFIGS[config]
    names: set[str] = set()
    # After the fixes, too: what is wrong then was so before.
    for number in range(fixes, len(patches) + 1):
        step = patches[number - 1].read_text(encoding="utf-8")
        names |= set(objects(step)) - ({"mm/hugetlb.o", "fs/hugetlbfs/inode.o"}
                                       if config == "no hugetlb" else set())
        # They look at a header that may have changed.
        names |= {"mm/rmap.o", "mm/migrate.o"}
        with source.kept.lock(quiet):
            diff = variant.queue_diff(source, patches[:number])
            variant.put(source, variant.make("step", "", diff))
            command = kconfig.make_command(source, machine, obj)
            if number == fixes:
                asked = kconfig.request(source.base, machine, source.tree, False)
                kconfig.make(source, obj, asked, machine, log)
                if changes:
                    subprocess.run([source.tree / "scripts" / "config", "--file", obj / ".config",
                                    *changes], check=True)
                    subprocess.run([*command, "olddefconfig"], env=kconfig.environment(obj),
                                   check=True, capture_output=True)
                have = (obj / ".config").read_text(encoding="utf-8").splitlines()
                assert not gone or gone not in have
            done = subprocess.run([*command, "-j2", *sorted(names)], text=True, check=False,
                                  env=kconfig.environment(obj), capture_output=True)
        assert done.returncode == 0, (patches[number - 1].name, done.stderr[-2000:])
        assert "warning:" not in done.stderr, patches[number - 1].name
    assert {"mm/rmap.o", "mm/migrate.o", "mm/memory-failure.o"} <= names


def test_one_that_does_not_would_be_seen(build: tuple[Source, Step]) -> None:
    source, step = build
    lines = variant.text_of(source, variant.make("as it is", "", ""), "mm/rmap.c").splitlines()
    broken = ("diff --git a/mm/rmap.c b/mm/rmap.c\n--- a/mm/rmap.c\n+++ b/mm/rmap.c\n"
              f"@@ -{len(lines)} +{len(lines)},2 @@\n {lines[-1]}\n+no_such_type x;\n")
    assert "error:" in step([broken], objects(broken))
