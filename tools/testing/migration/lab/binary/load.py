# SPDX-License-Identifier: GPL-2.0
"""From a file to an Image."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lab.binary import container, elf, kallsyms, raw, text
from lab.binary.image import Image, Section, Symbol
from lab.errors import LabError

# A vmlinux with debugging information has some 700 MiB, and is read in parts.
_LARGEST = 2 << 30
# The largest of other forms are packages with all modules: Debian's have 110 MiB.
_LARGEST_OTHER = 1 << 30
# Where a kernel's names are, under its release, if it has none itself; and from where that is.
ROOT = Path("/")
_NAMES = ("boot/System.map-{0}", "lib/modules/{0}/System.map", "usr/lib/modules/{0}/System.map",
          "usr/lib/debug/boot/System.map-{0}", "usr/lib/debug/boot/vmlinux-{0}",
          "usr/lib/debug/lib/modules/{0}/vmlinux", "lib/modules/{0}/build/vmlinux")
_MAP_LINE = re.compile(r"(?m)^([0-9a-f]{16}) ([A-Za-z]) (\S+)$")


def load(path: Path, symbols: Path | None = None) -> Image:
    """The kernel in the file `path`.

    `symbols` is a System.map, or a vmlinux of the same build: names are taken from there, and else
    from the image.  LabError, of one line, for everything that is no kernel that can be read.
    """
    what = str(path)
    data, version, read = b"", "", None
    with _opened(path) as file:
        # Of an ELF file not all is needed.
        if _is_elf(file):
            read = elf.read(file, what)
        else:
            data = _all(file, path)
    if read is None:
        # Not above: who cannot unpack it has read it.
        data, version = container.kernel(data, what)
        read = None if container.is_raw(data) else elf.read(io.BytesIO(data), what)
    return _image(what, read, data, version, symbols)


def _image(what: str, file: elf.Elf | None, data: bytes, version: str, symbols: Path | None
           ) -> Image:
    """Of an ELF file, or of the bytes of an Image."""
    if file is None:
        arch = container.raw_arch(data)
        read, found = raw.read(data, arch, what)
        sections, names, source = tuple(read), tuple(found), "kallsyms"
        ids = list(dict.fromkeys(text.build_ids(data)))
        build_id = ids[0] if len(ids) == 1 else ""
    else:
        if not file.loaded:
            raise LabError(f"{what} has no code in it: it is a debug file or a module; name the "
                           "kernel image")
        arch, sections, build_id = file.arch, file.sections, file.build_id
        names, source = file.symbols, "symbol table"
        if not names:
            names, source = _kallsyms(sections), "kallsyms"
    if symbols:
        names, source = _named(symbols, what, sections, build_id)
    if not names:
        names, source = _found(what, sections, build_id)
    banner = _banner(what, sections, names)
    said = version.split()[:1]
    if said and said[0] != banner.split()[2]:
        raise LabError(f"{what} says it is {said[0]}, but the kernel in it is "
                       f"{banner.split()[2]}: it is damaged, or glued together")
    return Image(what, arch, banner, build_id, sections, names, source, text.config(sections, names))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if not path.exists():
            raise LabError(f"{path} is a link to {os.readlink(path)}, which is not there"
                           if path.is_symlink() else f"{path} is not there")
        if not path.is_file():
            raise LabError(f"{path} is no file: name a kernel image, as /boot/vmlinuz-...")
        if path.stat().st_size > _LARGEST:
            raise LabError(f"{path} has more than {_LARGEST >> 20} MiB: that is no kernel")
        with open(path, "rb") as file:
            yield file
    except OSError as err:
        # Ubuntu's are for root alone.
        who = ": be root" if isinstance(err, PermissionError) else ""
        raise LabError(f"cannot read {path} ({err.strerror}){who}") from err


def _is_elf(file: BinaryIO) -> bool:
    start = file.read(len(elf.MAGIC))
    file.seek(0)
    return start == elf.MAGIC


def _all(file: BinaryIO, path: Path) -> bytes:
    if os.fstat(file.fileno()).st_size > _LARGEST_OTHER:
        raise LabError(f"{path} has more than {_LARGEST_OTHER >> 20} MiB: that is no kernel")
    return file.read()


def _banner(what: str, sections: tuple[Section, ...], names: tuple[Symbol, ...]) -> str:
    """Not the first text that looks like one: that may be another's."""
    if found := text.banner_at(sections, names):
        return found
    every = text.banners(sections)
    if not every:
        raise LabError(f"{what} does not say which Linux it is: it is no Linux kernel")
    if len(every) > 1:
        raise LabError(f"{what} has {len(every)} banners, and no symbol says which is its own: "
                       "name its System.map with SYMBOLS=")
    return every[0]


def _kallsyms(sections: tuple[Section, ...]) -> tuple[Symbol, ...]:
    # .rodata has it; in a file without section headers it is somewhere.
    for one in sorted(sections, key=lambda one: (one.name != ".rodata", one.executable)):
        if table := kallsyms.read(one.data, one.address):
            return tuple(table.symbols)
    return ()


def _found(what: str, sections: tuple[Section, ...],
           build_id: str) -> tuple[tuple[Symbol, ...], str]:
    """The names of a kernel that has none, from a file that is called after its release."""
    banners = text.banners(sections)
    if not banners:
        raise LabError(f"{what} does not say which Linux it is: it is no Linux kernel")
    said = ""
    # Which of several is its own, names say.
    for release in {one.split()[2] for one in banners} if len(banners) == 1 else ():
        for path in (Path(what).parent / f"System.map-{release}",
                     *(ROOT / name.format(release) for name in _NAMES)):
            # A banner may have any text there.
            if "/" in release or not os.path.isfile(path):
                continue
            try:
                return _named(path, what, sections, build_id)
            except LabError as err:
                said += f"; {err}"
    raise LabError(f"{what} has no symbols: its CONFIG_KALLSYMS is off; name its System.map or "
                   f"the vmlinux of the same build with SYMBOLS={said}")


def _named(path: Path, what: str, sections: tuple[Section, ...],
           build_id: str) -> tuple[tuple[Symbol, ...], str]:
    """The names in a System.map or a vmlinux, which must be of this kernel."""
    with _opened(path) as opened:
        if _is_elf(opened):
            file = elf.read(opened, str(path))
            if not file.symbols:
                raise LabError(f"{path} has no symbol table: name a vmlinux that is not stripped")
            if not build_id or file.build_id != build_id:
                raise LabError(f"{path} has the build id {file.build_id or 'none'}, and {what} "
                               f"{build_id or 'none'}: they are not of one build")
            return file.symbols, "symbol table"
        data = _all(opened, path)
    names = tuple(sorted(
        (Symbol(match[3], int(match[1], 16), match[2])
         for match in _MAP_LINE.finditer(data.decode("latin-1"))), key=lambda one: one.address))
    if not any(one.name == "linux_banner" for one in names):
        raise LabError(f"{path} is no System.map: it has no linux_banner (Debian's is in the "
                       "package with -dbg)")
    if not text.banner_at(sections, names):
        raise LabError(f"{path} is not of this kernel: no banner is where it says in {what}")
    return names, "System.map"
