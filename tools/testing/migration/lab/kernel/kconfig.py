# SPDX-License-Identifier: GPL-2.0
"""Configures a kernel: fragments on tinyconfig, then a check that all of it is there.

Kconfig drops an option whose dependencies are not met without a word.  Here that stops the run,
because a kernel without, say, HUGETLB_PMD_PAGE_TABLE_SHARING passes every test.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import fragment
from lab.arch import Arch
from lab.base import Base
from lab.errors import LabError
from lab.kernel.source import Source
from lab.paths import HOME, cache_dir, disk_full, is_full
from lab.words import plural

CONFIGS = HOME / "configs"
# What is said of options that Kconfig dropped.
LOST = "did not stick in"
# In a build folder, for temporary files.
TEMPORARY = "lab.tmp"

# What other options bring along and what the tests are worth nothing without.
_DERIVED = ("NUMA", "MIGRATION", "MEMORY_FAILURE", "MEMORY_HOTREMOVE", "MMU_NOTIFIER",
            "VM_EVENT_COUNTERS", "HWPOISON_INJECT", "DEBUG_FS")
# That PMD tables are shared at all: the first of these that the tree has.
_SHARING = ("HUGETLB_PMD_PAGE_TABLE_SHARING", "ARCH_WANT_HUGE_PMD_SHARE")
# What the first of them depends on, and the files that say so.
_LOCKS = "SPLIT_PMD_PTLOCKS"
KCONFIGS = ("fs/Kconfig", "mm/Kconfig")


@dataclass(frozen=True)
class Request:
    """The options asked of a kernel."""

    options: dict[str, str]     # name without CONFIG_ -> "y", a number, a "string", "n" for off
    unknown: tuple[str, ...]    # debug options that the tree does not know, left out

    @property
    def text(self) -> str:
        """The options as one fragment."""
        return "".join(f"{fragment.line(name, value)}\n" for name, value in self.options.items())


def request(base: Base, arch: Arch, tree: Path, debug: bool,
            more: tuple[str, ...] = ()) -> Request:
    """What is asked of a kernel of `base`: the fragments, less base.drop, plus base.add.

    The architecture changes the first of them: less what it lacks, plus configs/<arch>.config.
    `more` are lines that a defect asks for; the base may drop them, too.
    """
    files = {path.stem: fragment.parse(path.read_text(encoding="utf-8"), str(path))
             for path in (CONFIGS / "base.config", CONFIGS / "debug.config")}
    if strange := sorted(set(arch.drop) - files["base"].keys()):
        raise LabError(f"{arch.name} drops what configs/base.config does not ask for: "
                       f"{' '.join(strange)}")
    known = {*files["base"], *files["debug"]}
    files["base"] = {name: value for name, value in files["base"].items()
                     if name not in arch.lacks(base.name)}
    own = CONFIGS / f"{arch.name}.config"
    files["base"] |= fragment.parse("\n".join(fragment.lines(own)), str(own))
    files["base"] |= fragment.parse("\n".join(more), "the defect's options")
    dropped = {option.removeprefix("CONFIG_") for option in base.drop}
    if strange := sorted(dropped - known - files["base"].keys()):
        raise LabError(f"bases/{base.name}.toml drops what no fragment asks for: "
                       f"{' '.join(strange)}")
    options = dict(files["base"])
    unknown: list[str] = []
    if debug:
        known = symbols(tree, arch)
        # Off is what an unknown option is already.
        unknown = [name for name, value in files["debug"].items()
                   if name not in known and value != "n" and name not in dropped]
        options |= {name: value for name, value in files["debug"].items()
                    if name not in unknown}
    options = {name: value for name, value in options.items() if name not in dropped}
    options |= fragment.parse("\n".join(base.add), f"bases/{base.name}.config")
    return Request(options, tuple(unknown))


def symbols(tree: Path, arch: Arch) -> set[str]:
    """The names that the Kconfig files of `tree` define, other architectures' left out."""
    found: set[str] = set()
    for top, folders, files in os.walk(tree):
        if Path(top) == tree:
            folders[:] = [name for name in folders if name not in ("Documentation", "tools")]
        elif Path(top) == tree / "arch":
            folders[:] = [name for name in folders if name == arch.kernel_arch]
        for name in files:
            if name.startswith("Kconfig"):
                text = Path(top, name).read_text(encoding="utf-8", errors="replace")
                found.update(re.findall(r"^\s*(?:menu)?config\s+(\w+)\s*(?:#.*)?$", text, re.M))
    return found


def missing(asked: Request, config: str, sharing: str, lacks: Sequence[str]) -> list[str]:
    """What is not in a .config (its text) as it was asked for, derived options among it, less those
    that such a kernel `lacks` in any case.

    `sharing` is the option that says whether PMD tables are shared, or "".  Each is "CONFIG_X=y", with
    what it is in its place where it has another value.
    """
    have = fragment.parse(config, ".config")
    derived = [name for name in (*_DERIVED, sharing) if name and name not in lacks]
    wanted = {**{name: "y" for name in derived}, **asked.options}
    return [f"CONFIG_{name}={value}" + (f" (is {have[name]})" if have.get(name, "n") != "n"
                                        else "")
            for name, value in wanted.items() if have.get(name, "n") != value]


def sharing_option(tree: Path, arch: Arch) -> str:
    """The option that PMD sharing hangs on in `tree`; LabError where it has none.

    "" where it is known that nothing is shared: a defect that is proved there is of something else.
    """
    if unshared(tree):
        return ""
    known = symbols(tree, arch)
    for name in _SHARING:
        if name in known:
            return name
    raise LabError(f"{tree} cannot share PMD tables on {arch.name}: its Kconfig files have none "
                   f"of {', '.join(_SHARING)}")


def unshared(tree: Path) -> str:
    """Why no kernel that is made from `tree` shares PMD tables; "" if nothing is known of it.

    6.6.72 took HUGETLB_PMD_PAGE_TABLE_SHARING over from 6.12, and not what it depends on.
    """
    texts = []
    for name in KCONFIGS:
        if not (tree / name).is_file():
            return ""
        texts.append((tree / name).read_text(encoding="utf-8", errors="replace"))
    found = re.search(rf"(?m)^config {_SHARING[0]}\n(?:[ \t].*\n)*?[ \t]+depends on .*\b{_LOCKS}\b",
                      texts[0])
    if not found or any(re.search(rf"(?m)^config {_LOCKS}$", text) for text in texts):
        return ""
    return f"no PMD table is shared: {_SHARING[0]} depends on {_LOCKS}, which there is not"


def lets_share(patch: Path) -> bool:
    """Whether a patch has PMD tables shared where they were not: it changes what that depends on."""
    text = patch.read_text(encoding="utf-8", errors="replace")
    return any(f"\n+++ b/{name}\n" in text for name in KCONFIGS) \
        and any(re.search(rf"(?m)^ config {name}$", text) for name in _SHARING)


# ccache must have no part in assembly. Where it takes the list of headers from gcc it does not see
# .incbin, and a kernel's compressed image is that of arch/x86/boot/compressed/piggy.S: it gave the
# image of another kernel whose compressed size was the same.
WRAPPER = """\
#!/bin/sh
case " $* " in
*".S "*) exec "$@" ;;
esac
exec ccache "$@"
"""


def environment(obj: Path | None = None) -> dict[str, str]:
    """A kernel build's environment: nothing of the caller's that Kbuild would listen to.

    Above all none of the outer make's: `make prove DEBUG=1` puts DEBUG, MAKEFLAGS and its job
    server there.  With a build folder `obj`, temporary files go to a folder in it: some of Kbuild's
    scripts leave theirs behind when they are ended.
    """
    keep = ("PATH", "HOME", "TMPDIR", "USER", "LOGNAME")
    return {
        **{name: os.environ[name] for name in keep if name in os.environ},
        **({"TMPDIR": _temporary(obj)} if obj else {}),
        "LC_ALL": "C",
        "CCACHE_DIR": str(cache_dir() / "ccache"),
        # Take the headers from gcc's own list, not from a run of the preprocessor: a first build
        # is a third shorter (22 s instead of 31 s for 97 objects of mm/ and what they need).
        "CCACHE_DEPEND": "1",
        # The same source makes the same image, whoever builds it, wherever and when.
        "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
        "KBUILD_BUILD_VERSION": "1",
        "KBUILD_BUILD_USER": "lab",
        "KBUILD_BUILD_HOST": "lab",
        # Set, though empty: no "+" for a tree inside some git repository.
        "LOCALVERSION": "",
    }


def _temporary(obj: Path) -> str:
    """The folder for the temporary files of a build in `obj`, which is made where it is missing."""
    folder = obj / TEMPORARY
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def compiler_wrapper() -> Path:
    """The program that Kbuild's compiler is started with, in the cache, whose path is plain."""
    path = cache_dir() / "cc"
    if not path.exists() or path.read_text("ascii") != WRAPPER:
        new = path.with_name(f".cc-{os.getpid()}")
        new.write_text(WRAPPER, "ascii")
        new.chmod(0o755)
        new.replace(path)
    return path


def make_command(source: Source, arch: Arch, obj: Path) -> list[str]:
    """The make that configures and the one that builds; the two must be the same to Kbuild."""
    # The prefix is said even if it is empty: vendors' trees have one of their own in the Makefile.
    command = ["make", "-C", str(source.tree), f"O={obj}", f"ARCH={arch.kernel_arch}",
               f"CC={compiler_wrapper()} {arch.compiler}", f"CROSS_COMPILE={arch.cross_compile}"]
    # HOSTCFLAGS would take the place of what old kernels have in it.
    if host := arch.host_compiler(source.version):
        command.append(f"HOSTCC={host}")
    if source.base.cflags:
        command.append(f"KCFLAGS={source.base.cflags}")
    return command


def make(source: Source, obj: Path, asked: Request, arch: Arch, log: Path) -> None:
    """Write obj/.config for `source`: tinyconfig, the options asked for, olddefconfig, check.

    Where obj already has the .config that the same options made, nothing is done.  What make
    says is added to `log`.  LabError names all options that did not stick, in one line.
    """
    if why := arch.too_old(source.version):
        raise LabError(f"{source.version} is too old: {why}; take a later BASE= or KERNEL=")
    fragment, stamp, config = obj / "lab.config", obj / "lab.config.stamp", obj / ".config"
    obj.mkdir(parents=True, exist_ok=True)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == _stamp(source, asked, config):
        return
    stamp.unlink(missing_ok=True)
    fragment.write_text(asked.text, encoding="utf-8")
    command = make_command(source, arch, obj)
    _run([*command, "tinyconfig"], obj, log)
    # -m: only merge.  It would otherwise run its own make, without our variables.
    merge = source.tree / "scripts" / "kconfig" / "merge_config.sh"
    _run(["sh", str(merge), "-m", "-O", str(obj), str(config), str(fragment)], obj, log)
    _run([*command, "olddefconfig"], obj, log)
    text = config.read_text(encoding="utf-8")
    sharing = sharing_option(source.tree, arch) if arch.shares(asked.options) else ""
    if lost := missing(asked, text, sharing, arch.lacks(source.base.name)):
        raise LabError(f"{plural(len(lost), 'options')} {LOST} the "
                       f"configuration of {source.version}: {', '.join(lost)} (a base that has "
                       f"no such option says so in bases/{source.base.name}.toml)", str(log))
    stamp.write_text(_stamp(source, asked, config), encoding="utf-8")


def _stamp(source: Source, asked: Request, config: Path) -> str:
    """What a checked .config was made from, and the .config itself."""
    try:
        content = hashlib.sha256(config.read_bytes()).hexdigest()
    except FileNotFoundError:
        content = "none"
    request_hash = hashlib.sha256(asked.text.encode()).hexdigest()
    return f"{source.key} {request_hash} {content}\n"


def _run(command: list[str], folder: Path, log: Path) -> None:
    with open(log, "a", encoding="utf-8") as output:
        output.write(f"+ {' '.join(command)}\n")
        output.flush()
        done = subprocess.run(command, cwd=folder, env=environment(folder),
                              stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                              check=False)
    if done.returncode != 0:
        if is_full(folder):
            raise disk_full(folder.parent)
        raise LabError(f"the kernel could not be configured ({command[-1]} ended with "
                       f"{done.returncode})", str(log))
