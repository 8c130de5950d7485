# SPDX-License-Identifier: GPL-2.0
"""The kernel's own symbol table, found in an image: every layout from 4.4 to 7.3."""

import json
from pathlib import Path

import kernels
import pytest

from lab.binary import kallsyms
from lab.binary.load import load
from lab.paths import cache_dir

LAYOUTS = ("4.4", "4.9", "4.9 percpu", "4.20", "6.2", "6.2 percpu", "6.4", "6.4 percpu", "6.18",
           "7.3")
PERCPU = [("fixed_percpu_data", 0, "D"), ("irq_stack", 0x40, "D")]


def table(layout: str, count: int = 600, before: bytes = b"\1" * 64) -> tuple[
        list[tuple[str, int, str]], kallsyms.Table | None]:
    """What was written, and what was read of it."""
    symbols = [*(PERCPU if "percpu" in layout else []), *kernels.names(count)]
    data = before + kernels.kallsyms(symbols, layout, kernels.RODATA + len(before))
    return symbols, kallsyms.read(data + b"\2" * 64, kernels.RODATA)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", (257, 512, 600, 2000))
def test_every_layout_is_read(layout: str, count: int) -> None:
    written, found = table(layout, count)
    assert found is not None
    assert [(one.name, one.address, one.kind) for one in found.symbols] == written


def test_a_name_of_more_than_127_bytes() -> None:
    symbols = [*kernels.names(300), ("x" * 400, kernels.TEXT + 0x9000, "t")]
    found = kallsyms.read(bytes(64) + kernels.kallsyms(symbols, "6.4"), kernels.RODATA)
    assert found is not None and found.symbols[-1].name == "x" * 400


def test_a_base_that_only_a_relocation_gives() -> None:
    data = kernels.kallsyms(kernels.names(), "6.4")
    base = kernels.TEXT.to_bytes(8, "little")
    assert data.count(base) == 1
    found = kallsyms.read(bytes(64) + data.replace(base, bytes(8)), 0)
    assert found is not None and found.base_at == 64 + data.index(base)
    assert found.symbols[0].address == 0 and found.symbols[-1].address == 16 * 597


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_cut_short_is_none(layout: str) -> None:
    data = kernels.kallsyms(kernels.names(), layout)
    order = 3 * 600 if layout in ("6.4", "6.18", "7.3") else 0
    for end in (0, 100, len(data) // 2, len(data) - order - 64):
        assert kallsyms.read(data[:end], kernels.RODATA) is None


def test_tokens_that_do_not_agree_with_their_index() -> None:
    data = bytes(64) + kernels.kallsyms(kernels.names(), "6.4")
    assert kallsyms.read(data, 0) is not None
    assert kallsyms.read(data.replace(b"a\0b\0c\0", b"a\0bb\0\0"), 0) is None


def test_addresses_that_are_not_sorted() -> None:
    symbols = kernels.names()
    symbols[10] = ("function_late", kernels.TEXT + 0x100000, "t")
    assert kallsyms.read(bytes(64) + kernels.kallsyms(symbols, "6.4"), kernels.RODATA) is None


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    table = bytes(64) + kernels.kallsyms(kernels.names(), "6.4")
    assert kallsyms.read(table, kernels.RODATA)
    monkeypatch.setattr(kallsyms, "_SECONDS", -1)
    assert kallsyms.read(table, kernels.RODATA) is None


def test_tables_without_end_are_given_up() -> None:
    decoy = kernels.kallsyms(kernels.names(), "6.4")[:-8192]
    assert kallsyms.read(decoy * 40, kernels.RODATA) is None


def _built() -> dict[str, Path]:
    """An image of each version that the lab has built."""
    found: dict[str, Path] = {}
    for identity in sorted((cache_dir() / "images").glob("*/identity.json")):
        said = json.loads(identity.read_text(encoding="utf-8"))
        if (identity.parent / "image").is_file():
            found.setdefault(f"{said['version']} {said['arch']}", identity.parent / "image")
    return found


def test_what_the_lab_has_built() -> None:
    built = _built()
    if not built:
        pytest.skip("the lab's cache has no kernel: make prove builds one")
    for name, path in built.items():
        version, arch = name.split()
        image = load(path)
        assert (image.release, image.arch) == (version, arch)
        assert len(image.symbols) > 5000 and len(image.build_id) == 40
        function, = image.by_name["try_to_unmap_one"]
        section = image.section_at(function.address)
        assert section is not None and section.executable


def test_equal_to_the_system_map_of_the_build() -> None:
    seen = 0
    for map_file in sorted((cache_dir() / "trees").glob("*/obj-*/System.map")):
        boot = map_file.parent / "arch/x86/boot/bzImage"
        # Another run may be building there.
        if not boot.is_file() or boot.stat().st_mtime < map_file.stat().st_mtime:
            continue
        image = load(boot)
        lines = (line.split() for line in map_file.read_text(encoding="ascii").splitlines())
        known = {(int(address, 16), name) for address, _kind, name in lines}
        lacking = [one for one in image.symbols if (one.address, one.name) not in known]
        assert image.symbols_from == "kallsyms" and not lacking
        seen += 1
    if not seen:
        pytest.skip("the lab's cache has no build with a System.map: make prove makes one")
