# SPDX-License-Identifier: GPL-2.0
"""The real thing: kernels built, booted and judged. Needs QEMU and Debian's sources.

FULL=1 also proves 6.1, and boots the debug configuration.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECK_ARCH, NO_TREES, debian_tree, outside_make
from test_queue import released_tree

from lab.guest import initramfs, qemu, selftest
from lab.judge import klog, ktap, verdict
from lab.paths import REPO
from lab.progress import Progress
from lab.trial import Trial

LONG = os.environ.get("FULL") == "1"
FULL = pytest.mark.skipif(not LONG, reason="takes long: make check FULL=1 runs it")
# Two kernels, one boot each.
PROOF = pytest.mark.proof(2)


def run_prove(out: Path, *words: str) -> tuple[int, dict[str, object]]:
    with open(out.parent / "log", "w", encoding="utf-8") as log:
        done = subprocess.run(["make", "--no-print-directory", "prove", f"OUT={out}",
                               f"ARCH={CHECK_ARCH}", *words],
                              cwd=REPO, env=outside_make(), stdout=log, stderr=subprocess.STDOUT,
                              check=False)
    print((out.parent / "log").read_text())
    return done.returncode, json.loads((out / "verdict.json").read_text())


def check_proof(out: Path, status: int, report: dict[str, object]) -> None:
    assert report["verdict"] == "PROVED" and status == 0, report["why"]
    variants = report["variants"]
    assert isinstance(variants, dict)
    vulnerable, fixed = variants["vulnerable"], variants["fixed"]
    assert vulnerable["image"] != fixed["image"]
    for variant in (vulnerable, fixed):
        for name in ("image", "initrd", "config"):
            assert Path(variant[name]).stat().st_size > 0
        assert variant["tests"] == variant["boots"] * 38
        assert variant["control_migrations"] > 0
    main = "hugetlb_pmd_migrate.hugetlbfs_2.migrate_pages"
    seen = vulnerable["by_test"][main]
    assert seen["lost_migrations"] >= 0.9 * seen["migrations"] > 0
    assert fixed["by_test"][main]["migrations"] > 0
    assert (vulnerable["lost_migrations"] > 0, fixed["lost_migrations"]) == (True, 0)
    assert "0x" in vulnerable["example"]["wrote"] and fixed["example"] is None
    boot = Path(fixed["runs"][0]["folder"])
    for name in ("console.log", "ktap.log", "qemu.sh", "config", "identity.json"):
        assert (boot / name).stat().st_size > 0, name
    assert (out / "junit.xml").exists()


@PROOF
@FULL
def test_61_is_proved(tmp_path: Path) -> None:
    debian_tree("6.1")
    check_proof(tmp_path / "out", *run_prove(tmp_path / "out", "BASE=6.1"))


@PROOF
@FULL
@pytest.mark.usefixtures("tree612")
def test_612_is_proved_with_debug(tmp_path: Path) -> None:
    check_proof(tmp_path / "out", *run_prove(tmp_path / "out", "DEBUG=1"))


@PROOF
@pytest.mark.usefixtures("tree612")
def test_the_flush_is_proved(tmp_path: Path) -> None:
    status, report = run_prove(tmp_path / "out", "DEFECT=pmd-share-flush")
    assert report["verdict"] == "PROVED" and status == 0, report["why"]
    fixed = report["variants"]["fixed"]                             # type: ignore[index]
    for test in ("munmap_first", "munmap_middle", "mprotect_first", "mprotect_middle",
                 "punch_hole_first", "punch_hole_middle"):
        assert fixed["by_test"][f"hugetlb_pmd_flush.{test}.lost_write"]["migrations"] > 0
    assert fixed["control_migrations"] > 0


@PROOF
@pytest.mark.usefixtures("tree612")
def test_the_stack_of_exec_is_proved(tmp_path: Path) -> None:
    """By compaction; with FULL=1 the fixed kernel is tried with all triggers."""
    triggers = ("compaction", "move_pages", "block_offline") if LONG else ("compaction",)
    words = [] if LONG else [f"TESTS=-v {triggers[0]}"]
    status, report = run_prove(tmp_path / "out", "DEFECT=exec-temp-stack", *words)
    assert report["verdict"] == "PROVED" and status == 0, report["why"]
    vulnerable, fixed = (report["variants"][name]                   # type: ignore[index]
                         for name in ("vulnerable", "fixed"))
    # It may die of it before a test can say what it saw.
    assert vulnerable["lost_migrations"] >= 1 or "died of it" in str(report["why"])
    for trigger in triggers:
        assert fixed["by_test"][f"exec_temp_stack.{trigger}.exec"]["migrations"] >= 10


@FULL
@PROOF
@pytest.mark.usefixtures("tree612")
def test_the_isolation_of_thps_is_proved(tmp_path: Path) -> None:
    status, report = run_prove(tmp_path / "out", "DEFECT=thp-cow-isolation")
    assert report["verdict"] == "PROVED" and status == 0, report["why"]
    vulnerable, fixed = (report["variants"][name]["by_test"]        # type: ignore[index]
                         for name in ("vulnerable", "fixed"))
    for trigger in ("gigantic", "virtio_mem"):
        for cause in ("child_writes", "child_writes_subpage", "parent_writes", "mprotect"):
            name = f"thp_cow_isolation.{trigger}.{cause}"
            assert vulnerable[name]["lost_migrations"] == vulnerable[name]["migrations"] > 0
            assert fixed[name]["migrations"] > 0
        for control in ("child_waits", "vmsplice", "io_uring"):
            name = f"thp_cow_isolation.{trigger}.{control}"
            assert (vulnerable[name]["failed"], fixed[name]["failed"]) == (0, 0)


@PROOF
@pytest.mark.usefixtures("tree612")
@pytest.mark.parametrize("defect", [
    # Its vulnerable kernel is there already, and its boots take seconds.  The others need one more
    # kernel each, and a race takes a minute a boot.
    "pmd-share-move-pages",
    pytest.param("hugetlb-fork-sizes", marks=FULL),
    pytest.param("hugetlb-punch-poison", marks=FULL),
    pytest.param("hugetlb-mremap-hang", marks=FULL),
    pytest.param("hugetlb-mremap-private", marks=FULL),
    pytest.param("hugetlb-punch-private", marks=FULL),
    pytest.param("hugetlb-truncate-fault", marks=FULL),
    pytest.param("pmd-share-protect", marks=FULL)])
def test_what_6_12_has_is_proved(defect: str, tmp_path: Path) -> None:
    """6.12 as it is released has it, and with its queue it has not."""
    status, report = run_prove(tmp_path / "out", f"DEFECT={defect}")
    assert report["verdict"] == "PROVED" and status == 0, report["why"]
    vulnerable, fixed = (report["variants"][name]                   # type: ignore[index]
                         for name in ("vulnerable", "fixed"))
    assert re.match(r"as it is$|queue/6.12 \((patches 1 |without 1 of )", vulnerable["how"])
    assert fixed["how"].startswith("queue/6.12 (") and fixed["migrations"] > 0


@PROOF
@FULL
@pytest.mark.parametrize(("base", "defect", "how"), [
    # 5.10 is the last long-term kernel that needs the protection of thp-numa-notifier.
    ("5.10", "thp-numa-notifier", "revert.cocci"),
    ("5.10", "exec-temp-stack", "revert.cocci"),
    ("5.10", "thp-cow-isolation", "as it is"),
    ("5.10", "pmd-share-split", "queue/5.10 (patches 1 to 1)"),
    ("6.1", "pmd-share-split", "as it is"),
])
def test_an_older_one_is_proved(base: str, defect: str, how: str, tmp_path: Path) -> None:
    """Of a defect that 6.12 does not have in this form, or that shows itself in another way."""
    debian_tree(base)
    status, report = run_prove(tmp_path / "out", f"BASE={base}", f"DEFECT={defect}")
    assert report["verdict"] == "PROVED" and status == 0, report["why"]
    vulnerable, fixed = (report["variants"][name]                   # type: ignore[index]
                         for name in ("vulnerable", "fixed"))
    assert vulnerable["how"].startswith(how)
    if defect == "pmd-share-split":
        # It died in this one, or found lost writes.
        name = "hugetlb_pmd_churn.churn_split.lost_write"
        assert (vulnerable["by_test"][name]["failed"], fixed["by_test"][name]["failed"]) == (1, 0)
        assert fixed["by_test"][name]["migrations"] > 0


@PROOF
@pytest.mark.skipif(not os.environ.get("TREES"), reason=NO_TREES)
@pytest.mark.parametrize("defect", ["pmd-share-migrate", "pmd-share-flush", "thp-numa-notifier"])
@pytest.mark.parametrize("base", ["4.18", "4.14", "4.9", "4.4"])
def test_a_queue_is_proved(base: str, defect: str, tmp_path: Path) -> None:
    """On the released tree, where TREES= has it: most of the time goes into building it once."""
    tree = released_tree(base)
    status, report = run_prove(tmp_path / "out", f"KERNEL={tree}", f"DEFECT={defect}")
    assert report["verdict"] == "PROVED" and status == 0, report["why"]
    fixed = report["variants"]["fixed"]                             # type: ignore[index]
    assert fixed["how"].startswith(f"queue/{base} (")


SELFTEST = "hugetlb_pmd_migrate"


@pytest.fixture(scope="module")
def program(fixed: Trial) -> Path:
    """The selftest.  To find out that it is built already takes seconds."""
    return selftest.build(fixed.arch, Progress(), fixed.source).programs[SELFTEST]


Boot = Callable[..., tuple[str, ktap.Transcript, str]]


@pytest.fixture
def boot(fixed: Trial, program: Path, tmp_path: Path) -> Boot:
    """Boots the fixed kernel with a shell script instead of the selftest, the selftest beside it.

    Returns the boot's state, what came over the KTAP line, and the kernel's log.
    """
    def booted(text: str, limit: float = 60) -> tuple[str, ktap.Transcript, str]:
        script = tmp_path / "script"
        script.write_text("#!/bin/sh\n" + text)
        # All the others would be packed, and unpacked in the guest, at each boot.
        initrd = initramfs.initramfs({"script": script, SELFTEST: program}, fixed.arch, Progress())
        what = qemu.Guest(fixed.arch, "tcg", fixed.kernel.image, initrd, "lab.run=script")
        folder = tmp_path / "boot"
        folder.mkdir()
        ended = qemu.boot(what, folder, limit, lambda _log, _ktap: False)
        said = (folder / "ktap.log").read_text("utf-8", "replace")
        console = (folder / "console.log").read_text("utf-8", "replace")
        transcript = ktap.read(said)
        state = verdict.boot_state(transcript, klog.read(console), ended.timed_out, ended.status)
        return state, transcript, said

    return booted


class TestGuestThatGoesWrong:
    """Each way of going wrong has its name, and none is a pass."""

    def test_panic(self, boot: Boot) -> None:
        state, _, _ = boot("echo 1..1; echo c > /proc/sysrq-trigger; sleep 9\n")
        assert state == "CRASHED"

    def test_silence(self, boot: Boot) -> None:
        state, _, _ = boot("echo 1..2; echo ok 1 a; poweroff -f\n")
        assert state == "INCOMPLETE"

    def test_hang(self, boot: Boot) -> None:
        state, _, _ = boot("echo 1..2; echo ok 1 a; sleep 1000\n", limit=15)
        assert state == "TIMEOUT"

    def test_all_well(self, boot: Boot) -> None:
        state, seen, _ = boot("echo TAP version 13; echo 1..1; echo ok 1 a\n")
        assert state == "DONE" and [test.outcome for test in seen.tests()] == ["pass"]


# The pool of a node starts with a size that nobody would choose, and must end with it.
POOL = """
for node in 0 1; do
	pool=/sys/devices/system/node/node$node/hugepages/hugepages-2048kB/nr_hugepages
	echo $((node + 3)) > $pool
done
pools() { cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages | xargs; }
echo before $(pools)
"""


def pools(said: str, when: str) -> list[str]:
    return [line.removeprefix(when + " ") for line in said.splitlines()
            if line.startswith(when + " ")]


KILLED = ("hugetlbfs_4.migrate_pages", "hugetlbfs_2.soft_offline", "sysv_2.block_offline")


@pytest.mark.parametrize("ends", [
    # Nothing catches KILL: the others are less.
    [*(f"KILL:{test}" for test in KILLED), f"INT:{KILLED[0]}", f"TERM:{KILLED[2]}"],
    pytest.param([f"{name}:{test}" for name in ("INT", "TERM") for test in KILLED], marks=FULL)],
    ids=["KILL", "INT and TERM"])
def test_a_killed_selftest_puts_the_pool_back(boot: Boot, ends: list[str]) -> None:
    """Also memory that went offline, and no process, mount or file stays behind."""
    _, _, said = boot(POOL + f"""
export HUGETLB_PMD_MIGRATE_OFFLINE=1 HUGETLB_PMD_MIGRATE_CALLS=100000
for end in {' '.join(ends)}; do
	(for i in 1 2 3 4 5; do
		sleep 1
		[ "$(pools)" != "3 4" ] && echo during $(pools) && break
	done) &
	timeout -s ${{end%:*}} 6 /tests/hugetlb_pmd_migrate \\
		-r hugetlb_pmd_migrate.${{end#*:}} > /dev/null 2>&1
	for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
		sleep 1
		[ "$(pools)" = "3 4" ] && ! ps | grep -q '[h]ugetlb_pmd_migrate' && break
	done
	echo after $(pools)
done
echo left $(ps | grep -c '[h]ugetlb_pmd_migrate') $(grep -c hugetlbfs- /proc/mounts) \\
	$(ls /tmp | wc -l) $(tail -n +2 /proc/sysvipc/shm | wc -l) \\
	$(grep -l offline /sys/devices/system/memory/memory*/state | wc -l)
""", limit=60 * len(ends))
    print(said)
    assert pools(said, "before") == ["3 4"]
    assert pools(said, "during")
    assert pools(said, "after") == ["3 4"] * len(ends)
    assert pools(said, "left") == ["0 0 0 0 0"]


def test_the_selftest_puts_the_pool_back(boot: Boot) -> None:
    _, _, said = boot(POOL + """
/tests/hugetlb_pmd_migrate -r hugetlb_pmd_migrate.memfd_2.mbind > /dev/null 2>&1
echo after $(pools)
""")
    assert (pools(said, "before"), pools(said, "after")) == (["3 4"], ["3 4"])


@pytest.mark.parametrize("command, variant, reason", [
    ("taskset 1 $test", "sysv_2.mbind", "needs two CPUs"),
    ("su -s /bin/sh nobody -c \"$test\"", "sysv_2.mbind", "needs root"),
    ("$test", "sysv_2.soft_offline", "takes memory offline"),
    ("umount /sys/kernel/debug; umount /sys; $test", "sysv_2.mbind",
     "needs CONFIG_NUMA, and sysfs"),
])
def test_what_is_missing_is_said(boot: Boot, command: str, variant: str, reason: str) -> None:
    _, seen, _ = boot(f"""
mkdir /etc
echo 'nobody:x:65534:65534:nobody:/:/bin/sh' > /etc/passwd
test="/tests/hugetlb_pmd_migrate -r hugetlb_pmd_migrate.{variant}"
{command}
""")
    assert [test.outcome for test in seen.tests()] == ["skip"]
    assert reason in seen.tests()[0].reason
