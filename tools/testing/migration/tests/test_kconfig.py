# SPDX-License-Identifier: GPL-2.0
"""Configuration: fragments, what a base changes in them, and the check of what came out."""

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from lab import arch, base as bases, cli, defect, fragment, options
from lab.base import Base
from lab.errors import LabError
from lab.kernel import kconfig
from lab.kernel.source import Source
from lab.paths import HOME

X86 = arch.load("x86_64")
DERIVED = "".join(f"CONFIG_{name}=y\n" for name in kconfig._DERIVED)


def a_base(**changes: object) -> Base:
    fields: dict[str, object] = {"name": "0.1", "package": None, "suites": (), "drop": (),
                                 "add": (), "cflags": "", "cmdline": ""}
    return Base(**(fields | changes))       # type: ignore[arg-type]


@pytest.fixture
def fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "base.config").write_text(
        "# CONFIG_OLD is a comment\nCONFIG_A=y\nCONFIG_N=8\n# CONFIG_OFF is not set\n")
    (folder / "debug.config").write_text("CONFIG_CHECK=y\nCONFIG_NEWER=y\n")
    monkeypatch.setattr(kconfig, "CONFIGS", folder)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return folder


def configure(source: Source, obj: Path, log: Path, debug: bool = False,
              more: tuple[str, ...] = ()) -> None:
    asked = kconfig.request(source.base, X86, source.tree, debug, more)
    kconfig.make(source, obj, asked, X86, log)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that configures: an option listed in the file `refused` does not stick."""
    folder = tmp_path / "work" / "tree"
    for name, text in {
        "Kconfig": "config A\n\tbool\n",
        "lib/Kconfig.debug": "menuconfig CHECK\n\tbool\n",
        "arch/x86/Kconfig": "config ARCH_WANT_HUGE_PMD_SHARE\n\tdef_bool y\n",
        "arch/arm/Kconfig": "config NEWER\n\tbool\n",
        "refused": "nothing\n",
        "env": "",
        "scripts/kconfig/merge_config.sh":
            '[ "$1 $2 $3" = "-m -O $(dirname "$4")" ] || exit 3\ncat "$5" >> "$4"\n',
        "Makefile":
            "tinyconfig:\n\techo '# tiny' > $(O)/.config\n"
            "olddefconfig:\n\t@echo level=$(MAKELEVEL) debug=$(DEBUG) flags=$(KCFLAGS)\n"
            f"\tprintf '{DERIVED.replace(chr(10), chr(92) + 'n')}"
            "CONFIG_ARCH_WANT_HUGE_PMD_SHARE=y\\n' >> $(O)/.config\n"
            "\tgrep -vwFf refused $(O)/.config > $(O)/new; mv $(O)/new $(O)/.config\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def a_source(tree: Path, base: Base) -> Source:
    return Source(base=base, version="0.1.2", identity={}, key="k", tree=tree)


@pytest.mark.usefixtures("fragments")
def test_a_defect_asks_for_more_and_a_base_may_drop_that(tree: Path) -> None:
    base = a_base(drop=("CONFIG_Y",))
    asked = kconfig.request(base, X86, tree, False,
                            ("CONFIG_X=y", "CONFIG_Y=y", "# CONFIG_Z is not set"))
    assert asked.options == {"A": "y", "N": "8", "OFF": "n", "X": "y", "Z": "n"}


def test_a_fragment_is_read_and_anything_strange_in_it_named() -> None:
    text = "# why\nCONFIG_A=y\n\n# CONFIG_B is not set\nCONFIG_C=\"a b\"\n# CONFIG_D is needed\n"
    assert fragment.parse(text, "f") == {"A": "y", "B": "n", "C": '"a b"'}
    for wrong in ("CONFIG_A = y", "A=y", "CONFIG_A=y\nCONFIG_A=n"):
        with pytest.raises(LabError, match="f:"):
            fragment.parse(wrong, "f")


def test_a_base_drops_and_adds(fragments: Path, tree: Path) -> None:
    base = a_base(drop=("CONFIG_A", "CONFIG_OFF"),
                  add=("CONFIG_B=y", "CONFIG_N=4"))
    asked = kconfig.request(base, X86, tree, False)
    assert asked.options == {"N": "4", "B": "y"} and asked.unknown == ()
    assert asked.text == "CONFIG_N=4\nCONFIG_B=y\n"
    assert kconfig.request(a_base(), X86, tree, False).text == \
        "CONFIG_A=y\nCONFIG_N=8\n# CONFIG_OFF is not set\n"


def test_dropping_what_nobody_asks_for_is_an_error(fragments: Path, tree: Path) -> None:
    with pytest.raises(LabError, match="bases/0.1.toml drops.*TYPO"):
        kconfig.request(a_base(drop=("CONFIG_TYPO",)), X86, tree, False)
    kconfig.request(a_base(drop=("CONFIG_NEWER",)), X86, tree, False)


def test_only_debug_options_that_the_tree_does_not_know_are_left_out(fragments: Path,
                                                                     tree: Path) -> None:
    # NEWER is there, and in another architecture only.
    asked = kconfig.request(a_base(), X86, tree, True)
    assert asked.unknown == ("NEWER",)
    assert asked.options == {"A": "y", "N": "8", "OFF": "n", "CHECK": "y"}


def test_every_base_fits_the_real_fragments(tree: Path) -> None:
    for name in bases.names():
        base = bases.load(name)
        asked = kconfig.request(base, X86, tree, False)
        for option in base.drop:
            assert option.removeprefix("CONFIG_") not in asked.options, name


def test_a_doctored_config_is_found_out() -> None:
    asked = kconfig.Request({"A": "y", "N": "8", "OFF": "n", "S": '"x"'}, ())
    good = DERIVED + "CONFIG_SHARE=y\nCONFIG_A=y\nCONFIG_N=8\n# CONFIG_OFF is not set\n" \
        "CONFIG_S=\"x\"\nCONFIG_OTHER=m\n"
    assert kconfig.missing(asked, good, "SHARE", X86.drop) == []
    assert kconfig.missing(asked, good.replace("# CONFIG_OFF is not set\n", ""), "SHARE", X86.drop) == []
    for old, new, lost in (
            ("CONFIG_A=y\n", "", "CONFIG_A=y"),
            ("CONFIG_A=y", "# CONFIG_A is not set", "CONFIG_A=y"),
            ("CONFIG_A=y", "CONFIG_A=m", "CONFIG_A=y (is m)"),
            ("CONFIG_N=8", "CONFIG_N=2", "CONFIG_N=8 (is 2)"),
            ("# CONFIG_OFF is not set", "CONFIG_OFF=y", "CONFIG_OFF=n (is y)"),
            ("CONFIG_SHARE=y\n", "", "CONFIG_SHARE=y"),
            *((f"CONFIG_{name}=y\n", "", f"CONFIG_{name}=y") for name in kconfig._DERIVED)):
        doctored = good.replace(old, new, 1)
        assert doctored != good
        assert kconfig.missing(asked, doctored, "SHARE", X86.drop) == [lost]
    # What an architecture does not have is not missed.
    row = dataclasses.replace(X86, drop=("MEMORY_FAILURE",))
    doctored = good.replace("CONFIG_MEMORY_FAILURE=y\n", "").replace("CONFIG_NUMA=y\n", "")
    assert kconfig.missing(asked, doctored, "SHARE", row.drop) == ["CONFIG_NUMA=y"]


def test_a_kernel_that_is_too_old_for_the_architecture(tree: Path, tmp_path: Path) -> None:
    """One line, before anything is configured."""
    row = dataclasses.replace(X86, since="6.11", before="has no such thing")
    asked = kconfig.Request({}, ())
    for version in ("6.1.192", "6.10", "5.18-rc1"):
        old = dataclasses.replace(a_source(tree, a_base()), version=version)
        with pytest.raises(LabError, match=f"{version} is too old: before 6.11 a kernel "
                                           "has no such thing on x86_64; take a later BASE="):
            kconfig.make(old, tmp_path / "obj", asked, row, tmp_path / "log")
    assert not (tmp_path / "obj").exists()
    new = dataclasses.replace(a_source(tree, a_base()), version="6.11.0")
    kconfig.make(new, tmp_path / "obj", asked, row, tmp_path / "log")
    assert (tmp_path / "obj" / ".config").exists()


def test_derived_options_are_those_that_the_proof_needs() -> None:
    assert set(kconfig._DERIVED) == {
        "NUMA", "MIGRATION", "MEMORY_FAILURE", "MEMORY_HOTREMOVE", "MMU_NOTIFIER",
        "VM_EVENT_COUNTERS", "HWPOISON_INJECT", "DEBUG_FS"}


def test_sharing_hangs_on_the_newer_option_where_there_is_one(tree: Path) -> None:
    assert kconfig.sharing_option(tree, X86) == "ARCH_WANT_HUGE_PMD_SHARE"
    (tree / "fs").mkdir()
    (tree / "fs/Kconfig").write_text("config HUGETLB_PMD_PAGE_TABLE_SHARING\n\tdef_bool y\n")
    assert kconfig.sharing_option(tree, X86) == "HUGETLB_PMD_PAGE_TABLE_SHARING"
    (tree / "fs/Kconfig").unlink()
    (tree / "arch/x86/Kconfig").unlink()
    with pytest.raises(LabError, match="cannot share PMD tables on x86_64"):
        kconfig.sharing_option(tree, X86)


@pytest.mark.parametrize("pages", ["4K", "64K"])
def test_sharing_is_not_asked_for_where_pages_are_too_large(tree: Path, tmp_path: Path, pages: str
                                                            ) -> None:
    """Such a kernel can be made, and its tests skip; any other without sharing stops the run."""
    (tree / "refused").write_text("CONFIG_ARCH_WANT_HUGE_PMD_SHARE")
    row = dataclasses.replace(X86, unshared_with=("ARM64_64K_PAGES",))
    asked = kconfig.Request({f"ARM64_{pages}_PAGES": "y"}, ())

    def configured() -> None:
        kconfig.make(a_source(tree, a_base()), tmp_path / "obj", asked, row, tmp_path / "log")
    if pages == "64K":
        configured()
    else:
        with pytest.raises(LabError, match="stick .*: CONFIG_ARCH_WANT_HUGE_PMD_SHARE=y"):
            configured()


def test_a_tree_whose_tables_cannot_be_shared(tree: Path) -> None:
    """As 6.6.72 and later, where nothing defines what the option depends on."""
    (tree / "fs").mkdir()
    (tree / "mm").mkdir(exist_ok=True)
    depends = "config HUGETLB_PMD_PAGE_TABLE_SHARING\n\tdef_bool HUGETLB_PAGE\n" \
        "\tdepends on ARCH_WANT_HUGE_PMD_SHARE && SPLIT_PMD_PTLOCKS\n\n"
    (tree / "fs/Kconfig").write_text(depends)
    # What is not there says nothing.
    assert kconfig.unshared(tree) == ""
    (tree / "mm/Kconfig").write_text("config ARCH_ENABLE_SPLIT_PMD_PTLOCK\n\tbool\n")
    assert "depends on SPLIT_PMD_PTLOCKS, which there is not" in kconfig.unshared(tree)
    assert kconfig.sharing_option(tree, X86) == ""
    asked = kconfig.Request({"A": "y"}, ())
    assert kconfig.missing(asked, DERIVED + "CONFIG_A=y\n", "", ()) == []
    # Another option may depend on it.
    (tree / "fs/Kconfig").write_text(depends.replace("SPLIT_PMD_PTLOCKS\n", "SMP\n\nconfig X\n"
                                                     "\tdepends on SPLIT_PMD_PTLOCKS\n"))
    assert kconfig.unshared(tree) == ""
    (tree / "fs/Kconfig").write_text(depends)
    (tree / "mm/Kconfig").write_text("config SPLIT_PMD_PTLOCKS\n\tdef_bool y\n")
    assert kconfig.unshared(tree) == ""


def test_all_that_did_not_stick_is_in_one_line(fragments: Path, tree: Path,
                                               tmp_path: Path) -> None:
    (tree / "refused").write_text("CONFIG_A\nCONFIG_MMU_NOTIFIER\nCONFIG_ARCH_WANT_HUGE_PMD_SHARE")
    log, obj = tmp_path / "log", tmp_path / "obj"
    with pytest.raises(LabError) as caught:
        configure(a_source(tree, a_base()), obj, log)
    says = str(caught.value)
    assert says.startswith("3 options did not stick in the configuration of 0.1.2: ")
    for option in ("CONFIG_A=y", "CONFIG_MMU_NOTIFIER=y", "CONFIG_ARCH_WANT_HUGE_PMD_SHARE=y"):
        assert option in says
    assert "\n" not in says and caught.value.log == str(log)
    # And it is no better the next time.
    with pytest.raises(LabError, match="3 options"):
        configure(a_source(tree, a_base()), obj, log)


@pytest.mark.parametrize(("asked", "got", "lost"), [
    ("CONFIG_CMA=y", "", "CONFIG_CMA=y"),
    ("# CONFIG_CMA is not set", "CONFIG_CMA=y", "CONFIG_CMA=n (is y)"),
])
def test_an_option_of_a_defect_or_base_that_did_not_stick_is_named(
        fragments: Path, tree: Path, tmp_path: Path, asked: str, got: str, lost: str) -> None:
    (tmp_path / "config").write_text(f"# why\n{asked}\n")
    makefile = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(makefile.replace(
        "mv $(O)/new", f"sed -i 's/^{asked}$$/{got}/' $(O)/new; mv $(O)/new"))
    more = fragment.lines(tmp_path / "config")
    assert more == (asked,)
    for number, (base, lines) in enumerate(((a_base(), more), (a_base(add=more), ()))):
        with pytest.raises(LabError, match=re.escape(lost)):
            configure(a_source(tree, base), tmp_path / f"obj{number}", tmp_path / "log", more=lines)


@pytest.mark.parametrize(("text", "says"), [
    ("CONFIG_A\n", "config:1: neither an option nor a comment: CONFIG_A"),
    ("CONFIG_A=y\n# CONFIG_A is not set\n", "config:2: CONFIG_A is there twice"),
    ("# CONFIG_A is not wanted\n", "config has no option in it"),
    ("", "config has no option in it"),
])
def test_a_fragment_that_says_nothing_or_too_much(tmp_path: Path, text: str, says: str) -> None:
    assert fragment.lines(tmp_path / "config") == ()
    (tmp_path / "config").write_text(text)
    with pytest.raises(LabError, match=says):
        fragment.lines(tmp_path / "config")


def test_a_checked_configuration_is_not_made_again(fragments: Path, tree: Path,
                                                   tmp_path: Path) -> None:
    log, obj = tmp_path / "log", tmp_path / "obj"

    def runs(base: Base, debug: bool = False) -> int:
        log.write_text("")
        configure(a_source(tree, base), obj, log, debug)
        return log.read_text().count("+ make")

    assert runs(a_base()) == 2
    assert runs(a_base()) == 0
    assert runs(a_base(add=("CONFIG_B=y",))) == 2
    assert runs(a_base(add=("CONFIG_B=y",)), debug=True) == 2
    assert runs(a_base()) == 2
    with open(obj / ".config", "a") as config:
        config.write("CONFIG_BY_HAND=y\n")
    assert runs(a_base()) == 2
    assert "BY_HAND" not in (obj / ".config").read_text()


def test_the_outer_make_does_not_reach_the_kernels(fragments: Path, tree: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DEBUG": "1", "MAKEFLAGS": "n -- DEBUG=1", "MAKELEVEL": "3",
                        "KCFLAGS": "-O0", "ARCH": "arm"}.items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "log"
    configure(a_source(tree, a_base(cflags="-fwrapv")), tmp_path / "obj", log)
    assert "level=0 debug= flags=-fwrapv\n" in log.read_text()


def test_a_tree_that_names_a_compiler_of_its_own_is_built_with_ours(
        fragments: Path, tree: Path, tmp_path: Path) -> None:
    makefile = tree / "Makefile"
    makefile.write_text("ARCH = arm\nCROSS_COMPILE = /vendor/arm-\n" + makefile.read_text()
                        + "\t@echo arch=$(ARCH) prefix=$(CROSS_COMPILE)\n")
    log = tmp_path / "log"
    configure(a_source(tree, a_base()), tmp_path / "obj", log)
    assert "arch=x86 prefix=\n" in log.read_text()


def test_a_make_that_fails_is_an_error_with_its_log(fragments: Path, tree: Path,
                                                    tmp_path: Path) -> None:
    (tree / "Makefile").write_text("tinyconfig:\n\tfalse\n")
    with pytest.raises(LabError, match="tinyconfig ended with 2") as caught:
        configure(a_source(tree, a_base()), tmp_path / "obj", tmp_path / "log")
    assert caught.value.log == str(tmp_path / "log")


def test_every_option_of_the_real_fragments_says_why() -> None:
    files = [kconfig.CONFIGS / "base.config", kconfig.CONFIGS / "debug.config",
             *sorted(defect.DEFECTS.glob("*/config")), *sorted(bases.BASES.glob("*.config"))]
    assert len(files) > 10
    for path in files:
        name = str(path.relative_to(HOME))
        lines = path.read_text().splitlines()
        fragment.parse("\n".join(lines), name)
        explained = False
        for line in lines:
            option = line.startswith("CONFIG_") or line.endswith(" is not set")
            if not line:
                explained = False
            elif not option:
                explained = not line.startswith("# ---")
            assert explained or not option or name == "configs/base.config" and \
                _in_a_named_section(lines, line), f"{name}: {line} stands alone"


def _in_a_named_section(lines: list[str], option: str) -> bool:
    """Whether the option follows a "# --- title ---" line that says what its section is for."""
    return any(line.startswith("# --- ") for line in lines[:lines.index(option)])


def test_what_assembly_includes_is_built_anew(tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """As piggy.S, which includes the compressed kernel and does not change itself."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "piggy.S").write_text('.incbin "image"\n')
    objects = []
    for image in (b"one", b"two"):
        (tmp_path / "image").write_bytes(image)
        subprocess.run([kconfig.compiler_wrapper(), "gcc", "-Wp,-MMD,.piggy.d", "-c", "-o",
                        "piggy.o", "piggy.S"], cwd=tmp_path, env=kconfig.environment(), check=True)
        objects.append((tmp_path / "piggy.o").read_bytes())
    assert [image in data for image, data in zip((b"one", b"two"), objects)] == [True, True]


# ---- KCONFIG= --------------------------------------------------------------------------------

def wanted(*words: str) -> defect.Defect:
    """The defect, as the command line asks for its kernels."""
    return cli._wanted(options.parse(["prove", *words])).defect


@pytest.mark.parametrize(("text", "lines"), [
    ("USERFAULTFD", ("CONFIG_USERFAULTFD=y",)),
    ("CONFIG_USERFAULTFD=y,NR_CPUS=16", ("CONFIG_NR_CPUS=16", "CONFIG_USERFAULTFD=y")),
    ("KSM=n  KSM", None),
    ("KSM=n", ("# CONFIG_KSM is not set",)),
])
def test_more_options_of_both_kernels(text: str, lines: tuple[str, ...] | None) -> None:
    if lines is None:
        with pytest.raises(LabError, match="KCONFIG: KSM is there with two values, n and y"):
            wanted(f"KCONFIG={text}")
    else:
        assert wanted("DEFECT=pmd-share-migrate", f"KCONFIG={text}").kernel.options == lines


def test_more_options_are_part_of_the_command_that_repeats_it() -> None:
    given = options.parse(["prove", "KCONFIG=USERFAULTFD,KSM=n"])
    assert cli._wanted(given).command == "make prove KCONFIG='USERFAULTFD=y KSM=n'"


@pytest.mark.parametrize(("words", "says"), [
    (["KCONFIG=-x"], "KCONFIG=-x: an option is wanted, such as USERFAULTFD or NR_CPUS=16"),
    (["KCONFIG=A=\"b c\""], 'KCONFIG=A="b: an option is wanted'),
    (["DEFECT=pmd-share-split", "KCONFIG=DEBUG_KERNEL=n"],
     "defects/pmd-share-split/config says CONFIG_DEBUG_KERNEL=y, which "
     "# CONFIG_DEBUG_KERNEL is not set contradicts"),
])
def test_options_that_are_none_or_contradict(words: list[str], says: str) -> None:
    with pytest.raises(LabError, match=re.escape(says)):
        wanted(*words)
