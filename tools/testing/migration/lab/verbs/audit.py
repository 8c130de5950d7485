# SPDX-License-Identifier: GPL-2.0
"""Says from a kernel's source, or from its image, which of the defects it has.  Builds nothing.

A defect's audit.cocci is run on the files that its [audit] section names, and prints what it finds,
a line each:

    EXISTS function file:line   code that the defect cannot do without
    SEEN function file:line     a function in which the protection may have to be
    NEEDS function file:line    a place that must be protected
    HAS function file:line      the protection of such a place

A rule that matches nothing may be one that coccinelle could not parse the code for, and silence
must not pass for safety.  So what the rules do not find is looked for in the text as well: a
function that is there in the text and that coccinelle does not see makes the answer "unknown".

An image is disassembled, and the [binary] section of a defect says what must be seen in its code:
lab/binary/rules.py.
"""

import dataclasses
import glob
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import base as bases, decide, defect as defects
from lab.arch import Arch
from lab.binary import bounded, code, container, load, running
from lab.binary.image import Image
from lab.defect import Defect
from lab.errors import LabError, NotInstalled
from lab.finding import BINARY, BOTH, NOT_AFFECTED, PROTECTED, UNKNOWN, VULNERABLE, Finding
from lab.kernel import kconfig, matches, spatch, variant
from lab.kernel.source import kernel_version
from lab.paths import INSTALLED, shown
from lab.tell import audited
from lab.tell.audited import Audited

_LINE = re.compile(r"(EXISTS|SEEN|NEEDS|HAS) (\w+) (\S+):(\d+)")


# Where what mends a kernel goes, in commands that are told.
_SERIES = "O=/tmp/series"


def audit(tree: Path, arch: Arch | None = None, names: Sequence[str] = ()
          ) -> tuple[str, list[Finding]]:
    """The version of the kernel in `tree`, and a finding a defect, or a defect of `names`.  The
    tree is only read.

    With `arch`, nothing has to be protected in the folders of other architectures.  LabError
    where it is no kernel tree, or where coccinelle is not installed.
    """
    version = kernel_version(tree)
    return version, _looked(tree, version, _known(names), arch)


def of_tree(tree: Path, arch: Arch | None = None, names: Sequence[str] = ()) -> Audited:
    """The same, with the command that writes what mends it."""
    version, findings = audit(tree, arch, names)
    return _mended(Audited(str(tree), version, findings, some=bool(names)), tree)


def _known(names: Sequence[str]) -> list[Defect]:
    return [one for one in map(defects.load, defects.names())
            if one.audit and (not names or one.name in names)]


def look(tree: Path, version: str, defect: Defect, arch: Arch | None = None) -> Finding:
    """What the source of kernel `version` in `tree` says about `defect`."""
    return _looked(tree, version, [defect], arch)[0]


def _looked(tree: Path, version: str, known: Sequence[Defect], arch: Arch | None
            ) -> list[Finding]:
    wanted = []
    for one in known:
        assert one.audit is not None
        wanted.append(matches.Wanted(one.audit.rule, tuple(
            name for name in one.audit.files if (tree / name).is_file())))
    found = iter(matches.find(tree, [one for one in wanted if one.files]))
    return [_titled(_judged(tree, version, defect, one.files, next(found) if one.files else [],
                            arch), defect)
            for defect, one in zip(known, wanted)]


def _judged(tree: Path, version: str, defect: Defect, files: Sequence[str],
            said: list[str] | spatch.Failed, arch: Arch | None) -> Finding:
    """What the lines that the rules of `defect` printed of `files` say about it."""
    rules = defect.audit
    assert rules is not None
    if not files:
        return _unknown(defect, f"none of {' '.join(rules.files)} is there")
    if isinstance(said, spatch.Failed):
        return _unknown(defect, f"coccinelle {said.did}")
    found: dict[str, dict[str, list[str]]] = {
        "EXISTS": {}, "SEEN": {}, "NEEDS": {}, "HAS": {}}
    foreign = False
    for kind, name, path, line in (match.groups() for match in map(_LINE.fullmatch, said) if match):
        # Only these: what exists in one architecture may be a macro in the other, unseen by rules.
        if kind == "NEEDS" and not _of(path, arch):
            foreign = True
            continue
        found[kind].setdefault(name, []).append(f"{path}:{line} {name}")

    text = "\n".join((tree / path).read_text(encoding="utf-8", errors="replace") for path in files)
    for names in rules.exist:
        either = names.split("|")
        if any(name in found["EXISTS"] for name in either):
            continue
        if blind := [name for name in either if _defines(text, name)]:
            return _unknown(defect, f"coccinelle cannot parse {blind[0]}()")
        return Finding(defect.name, NOT_AFFECTED, rules.lacks(names), (), ())
    if defect.shares_tables and (why := kconfig.unshared(tree)):
        return Finding(defect.name, NOT_AFFECTED, why, (), ())
    if blind := [name for name in rules.see
                if name not in found["SEEN"] and _defines(text, name)]:
        return _unknown(defect, f"coccinelle cannot parse {blind[0]}()")
    if not found["NEEDS"] and foreign:
        return Finding(defect.name, NOT_AFFECTED, "it is one of another architecture", (), ())
    if not found["NEEDS"]:
        return _unknown(defect, "nothing was found that would have to be protected")
    lacking = [place for name, places in found["NEEDS"].items() if name not in found["HAS"]
               for place in places]
    if lacking:
        return mendable(Finding(defect.name, VULNERABLE, "not protected", tuple(lacking), ()),
                        version, defect)
    return Finding(defect.name, PROTECTED, "protected",
                   tuple(places[0] for name, places in found["HAS"].items()
                         if name in found["NEEDS"]), ())


# What images in a folder are called, in /boot and in the lab's cache.
_IMAGES = ("vmlinu[xz]*", "Image*", "bzImage*", "kernel*", "*/image", "*.efi",
           "linux-image-*.deb", "linux-binary-*.deb")
# A kernel in /boot that is kept for rescue is one as well; what comes with it is none.
_NO_IMAGES = re.compile(r"\.(?:hmac|sig|efi\.extra\.d|txt|map|old\.sig)$")


def of_images(named: str, symbols: Path | None,
              reading: Callable[[str], None] = lambda _what: None,
              names: Sequence[str] = ()) -> list[Audited]:
    """A finding a defect, or a defect of `names`, of each image that `named` names.

    `reading` is told which one is read.  One image of several that cannot be read does not keep the
    others from being told.  LabError where there is none, where there is one, which cannot be read,
    and where all lack the same program.
    """
    paths = images(named)
    if symbols:
        _alone(named, paths, "SYMBOLS")
    found: list[Audited] = []
    lacking: list[LabError] = []
    for path in paths:
        reading(f"reading {path}")
        try:
            with bounded.time_of(str(path)):
                found.append(of_image(load.load(path, symbols), names))
        except LabError as err:
            if len(paths) == 1:
                raise
            lacking += [err] if isinstance(err, NotInstalled) else []
            # The path is told beside it.
            found.append(Audited(str(path), error=str(err).removeprefix(f"{path} "), tree=False))
    if lacking and len(lacking) == len(paths):
        raise lacking[0]
    return _marked(found, names)


def of_both(tree: Path, named: str, symbols: Path | None, arch: Arch | None = None,
            reading: Callable[[str], None] = lambda _what: None,
            names: Sequence[str] = ()) -> Audited:
    """The same of a tree and of the image that was made from it, by what both of them say.

    LabError where that cannot be: this is known before anything is looked at.
    """
    paths = images(named)
    _alone(named, paths, "KERNEL")
    version = kernel_version(tree)
    reading(f"reading {paths[0]}")
    with bounded.time_of(str(paths[0])):
        image = load.load(paths[0], symbols)
    _same_kernel(str(tree), version, image.path, image.release)
    reading(f"reading {tree}")
    source = of_tree(tree, arch, names)
    reading(f"reading {paths[0]}")
    with bounded.time_of(str(paths[0])):
        made = of_image(image, names)
    return _marked([both(source, made)], names)[0]


def _alone(named: str, paths: Sequence[Path], variable: str) -> None:
    if len(paths) > 1:
        raise LabError(f"{variable}= is of one kernel, and IMAGE={named} "
                       f"names {len(paths)}: name one of them")


def _marked(found: list[Audited], names: Sequence[str]) -> list[Audited]:
    """With a mark at the kernel that runs here; at none where that is not known.

    Its rows are those of RUNNING=1: what a livepatch replaces is not in its image.
    """
    try:
        now = running.running()
    except LabError:
        return found
    ids = {id(one): one.also.get("build_id", "") for one in found}
    same = [one for one in found if not one.error
            and running.is_of(now, one.also.get("banner", ""), ids[id(one)])]
    if exact := [one for one in same if now.build_id and ids[id(one)] == now.build_id]:
        same = exact
    # A banner alone may be that of two builds.
    elif len(same) > 1 and (len({ids[id(one)] for one in same}) > 1 or not ids[id(same[0])]):
        return found
    replaced = _replaced() if same else {}
    return [dataclasses.replace(patched(one, replaced), runs=True) if one in same else one
            for one in found]


def _replaced() -> dict[str, str]:
    """The functions that livepatch modules replace now, and by which module."""
    return {one.function: one.module for one in running.livepatches()
            if one.enabled and one.object == "vmlinux"}


def images(named: str) -> list[Path]:
    """The files that IMAGE= names: one, several, or those of folders; "*" stands for any name.

    What is named and is not there is among them, if it is not all that is named: who reads it says
    so.  LabError where there is nothing to be read.
    """
    paths = [Path(named).expanduser()]
    if not os.path.exists(paths[0]):
        try:
            paths = [Path(one).expanduser() for one in shlex.split(named)]
        except ValueError as err:
            raise LabError(f"IMAGE={named}: there is no such file") from err
    found: list[Path] = []
    for path in paths:
        if os.path.isdir(path):
            try:
                found += _inside(path)
            except LabError:
                if len(paths) == 1:
                    raise
                # Who reads it says so: the others are told.
                found.append(path)
        elif not os.path.lexists(path) and (matching := sorted(glob.glob(str(path)))):
            found += map(Path, matching)
        else:
            found.append(path)
    if len(found) == 1 and not os.path.lexists(found[0]):
        why = os.path.isdir(found[0].parent) and not os.access(
            found[0].parent, os.X_OK, effective_ids=True)
        raise LabError(f"IMAGE={named}: " + (f"{found[0].parent} cannot be entered: permission "
                                             "denied" if why else f"there is no {found[0]}"))
    return found


def _inside(folder: Path) -> list[Path]:
    """The images in a folder."""
    if not os.access(folder, os.R_OK | os.X_OK, effective_ids=True):
        raise LabError(f"{folder} cannot be read: permission denied")
    inside = sorted({one for pattern in _IMAGES for one in folder.glob(pattern)
                     # A link to nothing is named: who reads it says so.
                     if (one.is_file() or one.is_symlink() and not one.exists())
                     and not _NO_IMAGES.search(one.name)
                     # Most EFI programs are none.
                     and (one.suffix != ".efi" or not one.exists() or _has_kernel(one))
                     # A link to another of them would be told twice.
                     and not (one.is_symlink() and one.exists()
                              and one.resolve().parent == folder.resolve())})
    if not inside:
        raise LabError(f"{folder} has no kernel image: nothing in it is named vmlinuz*, "
                       "vmlinux*, Image* or kernel*; name the file")
    return inside


def _has_kernel(program: Path) -> bool:
    try:
        with program.open("rb") as file:
            return bool(container.linux_parts(file.read(4096)))
    except OSError:
        return False


def of_image(kernel: Image, names: Sequence[str] = ()) -> Audited:
    """A finding a defect, or a defect of `names`, decided from the code of an image.

    LabError where its code cannot be read.
    """
    read = code.Code(kernel)
    read.check()
    release = kernel.release
    found = [binary(read, release, one) for one in _known(names)]
    return _mended(Audited(kernel.path, release, found, tree=False, some=bool(names),
                           also={"banner": kernel.banner, "build_id": kernel.build_id,
                                 "symbols": kernel.symbols_from,
                                 **({"missing": kernel.missing, "how": _how(kernel)}
                                    if kernel.missing else {})}))


def _how(kernel: Image) -> str:
    """How the code of a kernel that runs can be read after all, in lines."""
    release = kernel.release
    return "\n".join([
        "To have it read, one of these:",
        *([f"  sudo {audited.COMMAND} RUNNING=1"] if "be root" in kernel.missing else []),
        f"  apt download linux-image-{release}     (Debian, Ubuntu)",
        f"  dnf download kernel-core-{release}     (Fedora, RHEL)",
        "  zypper download kernel-default=VERSION     (SUSE: zypper search -s lists them)",
        f"      and then {audited.COMMAND} IMAGE=FILE, with the .deb or .rpm",
        f"  {audited.COMMAND} IMAGE=FILE, with vmlinuz-{release}",
        "      out of /boot of a machine that has a file of the same kernel"])


def of_running(names: Sequence[str] = ()) -> Audited:
    """The same of the kernel that runs; what a livepatch replaces is not in its image."""
    with bounded.time_of("the kernel that runs"):
        return dataclasses.replace(patched(of_image(running.image(), names), _replaced()),
                                   runs=True)


def patched(one: Audited, replaced: dict[str, str]) -> Audited:
    """Unknown where a rule asks for a function that a livepatch module replaces."""
    if not replaced:
        return one
    return dataclasses.replace(
        one, findings=[_patched(found, replaced) for found in one.findings],
        also={**one.also, "livepatches": " ".join(sorted(set(replaced.values())))})


def _patched(found: Finding, replaced: dict[str, str]) -> Finding:
    defect = defects.load(found.defect)
    for function, module in sorted(replaced.items()):
        if decide.asks_for(defect, function):
            return dataclasses.replace(
                found, status=UNKNOWN, why=f"the livepatch {module} replaces {function}(): ask who "
                f"made it; of the image: {found.status}", places=(), apply=(), note="", source=BINARY)
    return found


def binary(read: code.Code, version: str, defect: Defect) -> Finding:
    """What the code of a kernel `version` says about `defect`."""
    said = decide.decide(read, defect)
    found = Finding(defect.name, said.status, said.why, said.places, (), BINARY)
    return _titled(mendable(found, version, defect) if said.status == VULNERABLE else found, defect)


def both(source: Audited, made: Audited) -> Audited:
    """What a tree and an image that is said to be made from it say together.

    LabError where their versions differ: then it was not.
    """
    _same_kernel(source.path, source.version, made.path, made.version)
    return _mended(Audited(f"{source.path} and {made.path}", made.version,
                           [_together(one, other) for one, other in
                            zip(source.findings, made.findings, strict=True)],
                           also=made.also, some=made.some), Path(source.path))


def _same_kernel(tree: str, source: str, image: str, made: str) -> None:
    """LabError where the image of version `made` cannot be of the tree of version `source`."""
    if not _same_version(source, made):
        raise LabError(f"{image} is Linux {made} and {tree} is "
                       f"{source}: name the tree that it was made from")


def _together(source: Finding, made: Finding) -> Finding:
    """One of the two where the other does not know, and never the better one of two."""
    if made.status == UNKNOWN:
        return source
    if source.status == UNKNOWN:
        return made
    if source.status == made.status:
        return dataclasses.replace(source, places=source.places + made.places, source=BOTH)
    if made.status == NOT_AFFECTED:
        # A tree says what its kernels may be; of this one it is known how it was made.
        return dataclasses.replace(made, why=f"{made.why}; of its source: {source.status}")
    why = f"the source says {source.status} and the image {made.status}: it was made from " \
          "another source"
    if source.status == VULNERABLE or made.status == VULNERABLE:
        worse = source if source.status == VULNERABLE else made
        return dataclasses.replace(worse, why=why, places=(*worse.places, why), source=BOTH)
    return dataclasses.replace(source, status=UNKNOWN, why=why, places=source.places + made.places,
                               apply=(), note="", source=BOTH)


def _same_version(source: str, image: str) -> bool:
    """Whether an image's release can be that of a tree: Debian's says 6.1.0 of all 6.1."""
    tree, made = (re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text) for text in (source, image))
    if not tree or not made or tree.group(1, 2) != made.group(1, 2):
        return False
    return made[3] in (None, "0") or (tree[3] or "0") == made[3]


def report(tree: Path, version: str, findings: Sequence[Finding]) -> dict[str, object]:
    """What `make audit AUDIT=json` prints of a tree."""
    return audited.report(Audited(str(tree), version, findings))


def summary(version: str, findings: Sequence[Finding], width: int = 80) -> str:
    """The same for a person."""
    return audited.summary(Audited("", version, findings), width)


def _titled(found: Finding, defect: Defect) -> Finding:
    return dataclasses.replace(found, title=defect.title, risk=defect.risk,
                               only_slow=defect.only_slow)


def _unknown(defect: Defect, why: str) -> Finding:
    return Finding(defect.name, UNKNOWN, why, (), ())


def _defines(text: str, name: str) -> bool:
    """Whether the text looks as if it had a function `name`, however broken."""
    return re.search(rf"(?m)^(?:[A-Za-z_].*\b)?{name}\s*\([^;]*?\{{", text) is not None


def mendable(found: Finding, version: str, defect: Defect) -> Finding:
    """A finding of what is vulnerable, with what mends it.

    That is the patches of the nearest queue, those before them, too, which they need; or else the
    upstream commits, or another form of the queue.
    """
    try:
        base = bases.for_version(version).name
    except LabError:
        return dataclasses.replace(found, apply=defect.upstream)
    queue = variant.series(base)
    if own := variant.mending(queue, defect):
        apply, note = queue[:queue.index(own[-1]) + 1], ""
        if shares := next(filter(kconfig.lets_share, apply), None):
            apply = queue
            note = f"{shown(shares.parent)}/{shares.name[:4]} lets hugetlb mappings share PMD " \
                   "tables again. What is wrong with that comes back with it, and the patches " \
                   "after it mend that: apply all of the queue, or nothing of it."
        return dataclasses.replace(found, apply=tuple(map(shown, apply)), note=note)
    if defect.upstream:
        return dataclasses.replace(found, apply=defect.upstream)
    return dataclasses.replace(found, note=_other_form(base, defect))


def _other_form(base: str, defect: Defect) -> str:
    """What another form of the queue of a base does for a defect; "" where there is none."""
    for file in sorted((variant.QUEUE / base).glob("series.*")):
        if variant.mending(variant.series(base, file.name), defect):
            how = f"in the order of {shown(file)}" if INSTALLED else \
                f"make series BASE={base} FORM={file.suffix[1:]} {_SERIES}"
            return f"what mends it is for review, and not to be used yet: {how}"
    return ""


def _mended(one: Audited, tree: Path | None = None) -> Audited:
    """With the command that writes the patches that are to be applied, where a queue has some; to
    `tree`, if there is one."""
    patches = [Path(what) for found in one.findings if found.status == VULNERABLE
               for what in found.apply if what.endswith(".patch")]
    if not patches:
        return one
    if INSTALLED:
        how = f"the patches of {patches[0].parent}, in the order of its file series"
    else:
        kernel = shlex.quote(str(tree)) if tree else "/path/to/its/source"
        how = f"make series KERNEL={kernel} SERIES=fixes {_SERIES}"
    return dataclasses.replace(one, mend=how)


def _of(path: str, arch: Arch | None) -> bool:
    """Whether a file of a kernel tree is compiled for `arch`, as far as its folder says."""
    return arch is None or not path.startswith("arch/") \
        or path.startswith(f"arch/{arch.kernel_arch}/")
