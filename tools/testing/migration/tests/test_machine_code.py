# SPDX-License-Identifier: GPL-2.0
"""What the machine of migrate_kvm.c executes is what the comment beside it says."""

import re

import capstone  # type: ignore[import]
import pytest

from lab.paths import REPO

TEXT = (REPO / "tools/testing/selftests/mm/migrate_kvm.c").read_text(encoding="utf-8")

# A line of it is an instruction.
ARRAY = re.compile(r"(?m)^\t((?:0x[0-9a-f]{2}, ?)+)$")


def said(text: str) -> list[str]:
    """The instructions of the comment, with addresses of `text`'s own code for labels."""
    listing = re.findall(r"(?m)^ \*\t(\d:)?\t([a-z]+\t.*)$", text)
    sizes = [len(re.findall("0x", line)) for line in ARRAY.findall(text)]
    assert len(listing) == len(sizes)
    at = {label[0]: sum(sizes[:number]) for number, (label, _text) in enumerate(listing) if label}
    plain = [re.sub(r"\s+", " ", line.split("#")[0].strip()) for _label, line in listing]
    # As capstone writes it.
    where = {label: f"{here:#x}" if here > 9 else str(here) for label, here in at.items()}
    return [re.sub(r"\b(\d)[bf]$", lambda match: where[match[1]], line) for line in plain]


def done(text: str) -> list[str]:
    code = bytes.fromhex("".join(re.findall(r"0x(..)", " ".join(ARRAY.findall(text)))))
    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    reader.syntax = capstone.CS_OPT_SYNTAX_ATT
    return [f"{one.mnemonic} {one.op_str}" for one in reader.disasm(code, 0)]


def test_the_code_is_what_is_said_of_it() -> None:
    assert done(TEXT) == said(TEXT)


@pytest.mark.parametrize(("old", "new"), [
    ("0x83, 0xe0, 0x7f,", "0x83, 0xe0, 0x3f,"), ("0x75, 0x13,", "0x74, 0x13,"),
    ("0x75, 0x13,", "0x75, 0x16,"), ("shrl\t$4", "shrl\t$5"), ("jb\t2b", "jb\t1b")])
def test_another_one_is_not(old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    text = TEXT.replace(old, new)
    assert done(text) != said(text)
