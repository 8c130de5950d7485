# SPDX-License-Identifier: GPL-2.0
"""A kernel image is read to sections and symbols, or refused in one line."""

import bz2
import lzma
import os
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import kernels
import pytest

from lab.binary import container, unpack
from lab.binary.image import Image
from lab.binary.load import load
from lab.errors import LabError

VMLINUX = kernels.vmlinux()


def loaded(path: Path, data: bytes, symbols: bytes | None = None) -> Image:
    (path / "kernel").write_bytes(data)
    if symbols is None:
        return load(path / "kernel")
    (path / "symbols").write_bytes(symbols)
    return load(path / "kernel", path / "symbols")


def refused(path: Path, data: bytes, symbols: bytes | None = None) -> str:
    with pytest.raises(LabError) as caught:
        loaded(path, data, symbols)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_right(image: Image) -> bool:
    return (image.banner == kernels.BANNER and image.build_id == "11" * 20
            and image.release == "6.1.0-9-test" and image.symbols_from == "kallsyms"
            and [(one.name, one.address, one.kind) for one in image.symbols] == kernels.names())


def sized(packed: bytes) -> bytes:
    """With the size of VMLINUX behind it, as the kernel's build has it."""
    return packed + struct.pack("<I", len(VMLINUX))


def tool(*command: str) -> Callable[[bytes], bytes]:
    def run(data: bytes) -> bytes:
        if not shutil.which(command[0]):
            pytest.skip(f"{command[0]} is not installed")
        return sized(subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout)
    return run


@pytest.mark.parametrize("how", (
    kernels.packed, lambda data: sized(lzma.compress(data)), lambda data: sized(bz2.compress(data)),
    lambda data: sized(lzma.compress(data, lzma.FORMAT_ALONE)), tool("zstd", "-cq"),
    tool("lz4", "-lcq"), tool("lzop", "-cq")),
    ids=("gzip", "xz", "bzip2", "lzma", "zstd", "lz4", "lzo"))
def test_a_bzimage_whose_first_elf_file_is_not_the_kernel(
        tmp_path: Path, how: Callable[[bytes], bytes]) -> None:
    assert is_right(loaded(tmp_path, kernels.bzimage(how(VMLINUX))))


def test_a_vmlinux_with_and_without_symbols(tmp_path: Path) -> None:
    assert is_right(loaded(tmp_path, VMLINUX))
    banner = kernels.BANNER.encode() + b"\n\0"
    image = loaded(tmp_path, kernels.elf(banner, symbols=[("f", kernels.TEXT + 16, "t"),
                                                          ("g", kernels.TEXT + 48, "T")]))
    assert image.symbols_from == "symbol table"
    assert [(one.name, one.kind) for one in image.symbols] == [("f", "t"), ("g", "T")]
    assert image.code(kernels.TEXT + 16) == b"\x90" * 32
    assert image.code(0x1000) == b""


@pytest.mark.parametrize("form", (
    kernels.deb, kernels.rpm, lambda data: kernels.android(data, 0), lambda data: kernels.android(data, 4), kernels.packed,
    lambda data: kernels.zboot(kernels.packed(data)),
    lambda data: kernels.android(kernels.packed(data) + b"dtb", 2),
    lambda data: kernels.unified(kernels.bzimage(kernels.packed(data)))),
    ids=("deb", "rpm", "boot.img", "boot.img 4", "gz", "zboot", "gz-dtb", "uki"))
def test_forms(tmp_path: Path, form: Callable[[bytes], bytes]) -> None:
    assert is_right(loaded(tmp_path, form(VMLINUX)))
    whole = form(VMLINUX)
    for end in (10, 60, len(whole) // 2):
        refused(tmp_path, whole[:end])


@pytest.mark.parametrize("arch", ("arm64", "riscv64"))
def test_an_image_without_elf_headers(tmp_path: Path, arch: str) -> None:
    image = loaded(tmp_path, kernels.packed(kernels.raw_image(arch)))
    assert (image.arch, image.banner, image.build_id) == (arch, kernels.BANNER, "11" * 20)
    function, = image.by_name["function_00003"]
    assert function.address & 0x1fffff == 0x10030
    assert image.code(function.address) == b"\1" * 48
    assert [one.executable for one in image.sections] == [False, True, False]


@pytest.mark.parametrize("arch", ("arm64", "riscv64"))
def test_an_image_that_is_cut(tmp_path: Path, arch: str) -> None:
    """Its end may be data that no rule needs: it must be told by its length."""
    whole = kernels.raw_image(arch, efi=True)
    for data in (kernels.packed(whole), whole + b"a signature"):
        assert loaded(tmp_path, data).build_id == "11" * 20
    for end in (len(whole) - 8, len(whole) - 0x400, 0x11000):
        assert "cut short (Image)" in refused(tmp_path, whole[:end])


SUSE = (("./boot/vmlinux-6.1-default%s", "./boot/vmlinuz-6.1-default"),
        ("./usr/lib/modules/6.1-default/vmlinux%s", "./usr/lib/modules/6.1-default/vmlinuz"),
        ("./usr/lib/modules/6.1-default/vmlinux%s", "./usr/lib/modules/6.1-default/Image"))


@pytest.mark.parametrize("form", (kernels.deb, kernels.rpm))
@pytest.mark.parametrize("plain,booted", SUSE)
@pytest.mark.parametrize("packed", ("", ".xz", ".gz", ".zst"))
def test_a_package_with_both_images_of_a_build(
        tmp_path: Path, form: Callable[..., bytes], plain: str, booted: str, packed: str) -> None:
    """What is booted counts, wherever it stands; its vmlinux is beside it in SUSE's."""
    boot = (booted, kernels.bzimage(kernels.packed(VMLINUX)))
    elf = (plain % packed, b"not looked at")
    assert is_right(loaded(tmp_path, form(boot[1], boot[0], elf)))
    assert is_right(loaded(tmp_path, form(elf[1], elf[0], boot)))
    # Of another build, it is another kernel.
    if "/boot/" in plain:
        other = (boot[0].replace("6.1-", "6.2-"), boot[1])
        assert "several kernels" in refused(tmp_path, form(elf[1], elf[0], other))


def test_an_image_whose_address_is_unknown(tmp_path: Path) -> None:
    data = kernels.raw_image("arm64")
    assert "address" in refused(tmp_path, data.replace(struct.pack("<Q", 0x403), bytes(8)))


def test_texts_that_only_look_like_the_banner(tmp_path: Path) -> None:
    other = "Linux version 2.6.0 (x@y) (gcc) #1 SMP\n\0"
    for text in ("Linux version %s\n\0", "Linux version 6.1.0 (a@b) (gcc) # SMP\n\0"):
        assert is_right(loaded(tmp_path, kernels.vmlinux(banner=text + kernels.BANNER)))
    assert "2 banners" in refused(tmp_path, kernels.vmlinux(banner=other + kernels.BANNER))


def test_a_version_that_is_no_text(tmp_path: Path) -> None:
    """A damaged header has any bytes there, and they are told."""
    path = tmp_path / "vmlinuz"
    path.write_bytes(kernels.bzimage(kernels.packed(kernels.vmlinux()), "\x1b[2J\x7f\x01 x"))
    with pytest.raises(LabError, match=r"says it is \?\[2J\?\?, but the kernel in it is 6\.1\.0"):
        load(path)
    path.write_bytes(kernels.bzimage(kernels.packed(kernels.vmlinux()), "  "))
    assert load(path).release == "6.1.0-9-test"


def test_a_payload_of_another_version(tmp_path: Path) -> None:
    assert "6.1.0-8-test" in refused(
        tmp_path, kernels.bzimage(kernels.packed(VMLINUX), "6.1.0-8-test (a@b) #1"))


def test_system_map(tmp_path: Path) -> None:
    where = kernels.RODATA
    good = f"{kernels.TEXT:016x} T _text\n{where:016x} D linux_banner\n".encode()
    image = loaded(tmp_path, VMLINUX, good)
    assert image.symbols_from == "System.map" and len(image.symbols) == 2
    other = good.replace(b"82000000", b"82000010")
    assert "not of this kernel" in refused(tmp_path, VMLINUX, other)
    # Debian's says where the real one is.
    assert "no System.map" in refused(tmp_path, VMLINUX, b"ffffffffffffffff B The real System.map")


NAMELESS = kernels.elf(kernels.BANNER.encode() + b"\n\0")


def test_without_kallsyms_names_are_looked_for(tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the kernel's release, beside it and where systems have it; what is of another is not
    taken."""
    monkeypatch.setattr("lab.binary.load.ROOT", tmp_path)
    release, where = "6.1.0-9-test", kernels.RODATA
    good = f"{kernels.TEXT:016x} T _text\n{where:016x} D linux_banner\n"
    assert "name its System.map" in refused(tmp_path, NAMELESS)
    beside = tmp_path / f"System.map-{release}"
    beside.write_text(good)
    assert loaded(tmp_path, NAMELESS).symbols_from == "System.map"
    assert loaded(tmp_path, VMLINUX).symbols_from == "kallsyms"
    beside.write_text("ffffffffffffffff B The real System.map is elsewhere\n")
    said = refused(tmp_path, NAMELESS)
    assert f"{beside} is no System.map" in said and "CONFIG_KALLSYMS is off" in said
    debug = tmp_path / f"usr/lib/debug/boot/vmlinux-{release}"
    debug.parent.mkdir(parents=True)
    debug.write_bytes(kernels.elf(b"", b"\x33" * 20, symbols=[("f", kernels.TEXT, "t")]))
    assert "they are not of one build" in refused(tmp_path, NAMELESS)
    debug.write_bytes(kernels.elf(b"", symbols=[("f", kernels.TEXT, "t")]))
    assert [one.name for one in loaded(tmp_path, NAMELESS).symbols] == ["f"]
    odd = kernels.BANNER.replace(release, f"6.1/../{'x' * 300}")
    refused(tmp_path, kernels.elf(odd.encode() + b"\n\0"))
    refused(tmp_path, kernels.elf(odd.replace("/", "").encode() + b"\n\0"))
    # What is named is taken, and nothing else.
    assert "not of this kernel" in refused(
        tmp_path, NAMELESS, good.replace("82000000", "82000010").encode())


def test_a_debug_file(tmp_path: Path) -> None:
    names = [("f", kernels.TEXT, "t")]
    image = loaded(tmp_path, VMLINUX, kernels.elf(b"", symbols=names))
    assert [one.name for one in image.symbols] == ["f"]
    assert "one build" in refused(tmp_path, VMLINUX, kernels.elf(b"", b"\x33" * 20, symbols=names))


def test_a_config(tmp_path: Path) -> None:
    config = b"IKCFG_ST" + kernels.packed(b"CONFIG_SMP=y\n") + b"IKCFG_ED"
    image = loaded(tmp_path, kernels.elf(kernels.BANNER.encode() + b"\n\0" + config,
                                         symbols=[("f", kernels.TEXT, "t")]))
    assert image.config == "CONFIG_SMP=y\n"


def test_an_efi_program_with_several_kernels(tmp_path: Path) -> None:
    other = kernels.vmlinux(build_id=b"\x33" * 20)
    assert "holds 2 kernels" in refused(tmp_path, kernels.unified(VMLINUX, other))
    assert is_right(loaded(tmp_path, kernels.unified(VMLINUX, VMLINUX)))


def test_the_config_of_another_kernel_in_it(tmp_path: Path) -> None:
    """In an initramfs, which may come first: that one has no NUMA."""
    other, own = (b"IKCFG_ST" + kernels.packed(text) + b"IKCFG_ED" for text in (
        b"CONFIG_SMP=y\n", b"CONFIG_SMP=y\nCONFIG_NUMA=y\n"))
    head = kernels.BANNER.encode() + b"\n\0"
    names = [("f", kernels.TEXT, "t"), ("kernel_config_data",
                                        kernels.RODATA + len(head + other) + 8, "r")]
    image = loaded(tmp_path, kernels.elf(head + other + own, symbols=names))
    assert image.config == "CONFIG_SMP=y\nCONFIG_NUMA=y\n"
    # Without the name nobody knows.
    assert loaded(tmp_path, kernels.elf(head + other + own, symbols=names[:1])).config is None


@pytest.mark.parametrize("data,said", (
    (kernels.unified(), "EFI program without a kernel"),
    (b"MZ" + bytes(200), "EFI program"),
    (b"", "empty"), (b"\x5a" * 4096, "no kernel image"), (b"\x7fELF\1\1" + bytes(100), "32-bit"),
    (b"\x7fELF\2\2" + bytes(100), "big-endian"), (b"\x7fELF\2\1", "damaged"),
    (kernels.elf(b"x", machine=8), "EM_MIPS"),
    (kernels.elf(kernels.BANNER.encode() + b"\n\0"), "CONFIG_KALLSYMS is off"),
    (kernels.bzimage(b"\xa5" * 999), "encrypted"), (kernels.bzimage(b""), "no kernel"),
    (kernels.bzimage(kernels.packed(VMLINUX))[:-2000], "cut short"),
    (kernels.bzimage(kernels.packed(VMLINUX)[:3000]), "damaged"),
    (kernels.deb(b"x", "./usr/bin/x"), "without a kernel"),
    (kernels.zboot(b"\xa5" * 99), "encrypted"),
    ), ids=range(15))
def test_bad_input_is_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refused(tmp_path, data)


def test_of_a_large_vmlinux_only_what_is_needed_is_read(tmp_path: Path) -> None:
    """The rest of one is debugging information, of which there may be more than memory."""
    (tmp_path / "vmlinux").write_bytes(VMLINUX)
    os.truncate(tmp_path / "vmlinux", 1900 << 20)
    tracemalloc.start()
    try:
        assert is_right(load(tmp_path / "vmlinux"))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    for name, start, most in (("vmlinux", VMLINUX, 2048), ("deb", b"!<arch>\n", 1024)):
        (tmp_path / name).write_bytes(start)
        os.truncate(tmp_path / name, (most << 20) + 1)
        with pytest.raises(LabError, match=f"has more than {most} MiB: that is no kernel"):
            load(tmp_path / name)


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "LIMIT", 4 << 20)
    for data in (kernels.packed(bytes(8 << 20)), lzma.compress(bytes(8 << 20))):
        with pytest.raises(LabError, match="unpacks to more than 4 MiB"):
            unpack.whole(data, str(unpack.method(data)), "it", 4 << 20)
    nested = VMLINUX
    for _depth in range(10):
        nested = kernels.packed(nested)
    with pytest.raises(LabError, match="packed more than"):
        container.kernel(nested, "it")
    assert "no file" in str(pytest.raises(LabError, load, tmp_path).value)
