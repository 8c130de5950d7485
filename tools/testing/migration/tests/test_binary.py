# SPDX-License-Identifier: GPL-2.0
"""What is read from the code of an image, what the rules make of it, and how it is told."""

import dataclasses
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import binary_truth
import kernels
import pytest

from lab import arch, cli, decide, defect as defects, options
from lab.binary import bounded, patched, rules, running, text
from lab.binary.code import Code, base_name
from lab.binary.image import Image, Section, Symbol
from lab.errors import LabError, NotInstalled
from lab.finding import (BINARY, BOTH, NOT_AFFECTED, PROTECTED, SOURCE, UNKNOWN, VULNERABLE,
                         Finding)
from lab.paths import HOME
from lab.tell import audited
from lab.tell.audited import Audited
from lab.verbs import audit

pytest.importorskip("capstone")

# What every kernel has.
KERNEL = """
fn handle_mm_fault; ret
fn g; ret
fn h; ret
fn other; ret
fn down_write; ret
"""
START = 0xffffffff81000000


@cache
def assembled(text: str, kind: str = "x86_64") -> Image:
    """An image of functions in assembler, one after the other: "fn name; ...", a line each."""
    lines = [".text"]
    for line in text.strip().splitlines():
        for part in line.split(";"):
            word, _, name = part.strip().partition(" ")
            if word == "fn":
                # As the compiler aligns them, with what traps between.
                lines += [".balign 16, 0xcc" if kind == "x86_64" else ".balign 16",
                          f'.globl "{name}"', f'"{name}":']
            else:
                lines.append(part.strip())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "a.s").write_text("\n".join(lines) + "\n")
        tools = "" if kind == "x86_64" else f"{arch.load(kind).triplet}-"
        subprocess.run([f"{tools}gcc", "-nostdlib", "-static", "-x", "assembler", "a.s", "-o", "a",
                        f"-Wl,-Ttext={START:#x},-e,{START:#x},--build-id=none,-z,norelro"],
                       cwd=path, check=True, capture_output=True)
        subprocess.run([f"{tools}objcopy", "-O", "binary", "-j", ".text", "a", "b"], cwd=path, check=True)
        names = subprocess.run([f"{tools}nm", "a"], cwd=path, check=True, capture_output=True, text=True)
        symbols = [Symbol(name, int(address, 16), letter)
                   for address, letter, name in map(str.split, names.stdout.splitlines())
                   if letter in "tT" and not name.startswith("$")]
        return Image("vmlinuz", kind, "Linux version 6.1.0-1-test", "",
                     (Section(START, (path / "b").read_bytes(), True),),
                     tuple(sorted(symbols, key=lambda one: one.address)), "symbol table", None)


def seen(text: str, form: str, config: str | None = None, kind: str = "x86_64") -> bool:
    image = dataclasses.replace(assembled(KERNEL + text, kind), config=config)
    return rules.fits(form, Code(image)).true


def test_names_of_pieces() -> None:
    for name in ("f", "f.isra.0", "f.constprop.12", "f.part.0.isra.1", "f.cold", "f.cold.7",
                 "f.llvm.123456"):
        assert base_name(name) == "f", name
    assert base_name("__already_done.0") == "__already_done.0"


@pytest.mark.parametrize("form, code, true", [
    ("f calls g", "call g; ret", True),
    ("f calls g", "jmp g", True),
    ("f calls g", "ret; call g; ret", False),                   # nothing comes there
    ("f calls g", "call h; ret", False),
    ("f calls g|h", "call h; ret", True),
    ("f calls none of g", "call h; ret", True),
    ("f calls none of g", "ret; call g; ret", False),           # it may be entered some other way
    ("f calls none of *", "ret", True),
    ("f calls none of *th*", "call other; ret", False),
    ("f calls none of g", "jmp 0f; .byte 6; 0: ret", True),     # what is no code is not run
    ("f calls none of g", ".byte 6; ret", False),
    ("f calls none of g", "int3; ret", False),                  # a probe hides what was there
    ("f calls nothing", "xor %eax, %eax; ret", True),
    ("f calls nothing", "jmp *%rax", False),
    ("f calls nothing", "call *%rax; ret", False),
    ("f calls g then h", "call g; call h; ret", True),
    ("f calls g then h", "call h; call g; ret", False),
    ("f calls g then h", "test %eax, %eax; je 1f; call g; 1: call h; ret", True),
    ("f calls g then h", "0: call h; call g; test %eax, %eax; jne 0b; ret", False),     # anew
    ("f calls g then h", "0: test %eax, %eax; je 1f; call g; call h; jmp 0b; 1: ret", True),
    # What stands behind a BUG() is not run after it.
    ("f calls g then h", "test %eax, %eax; je 1f; call g; ud2; 1: call h; ret", False),
    ("f calls g then h with the same",
     "lea 8(%rsp), %rdi; test %eax, %eax; je 1f; call g; ud2; 1: lea 8(%rsp), %rdi; call h; ret",
     False),
    ("f calls g kept to h by other", "test %eax, %eax; je 1f; call g; ud2; 1: call h; ret", False),
    # It may be a WARN() as well.
    ("f calls no h after g", "test %eax, %eax; je 1f; call g; ud2; 1: call h; ret", False),
    ("f calls g kept to h by other", "call g; test %eax, %eax; je 1f; call other; ud2; 1: call h; "
     "ret", False),
    ("f calls no h after g", "0: call h; call g; test %eax, %eax; jne 0b; ret", True),
    ("f calls no h after g", "call g; call h; ret", False),
    ("f calls no h after g", "call h; ret", False),
    ("f calls g before h", "call g; call h; ret", True),
    ("f calls g before h", "test %eax, %eax; je 1f; call g; 1: call h; ret", False),
    ("f calls g before h", "test %eax, %eax; je 1f; call g; jmp 2f; 1: call g; 2: call h; ret",
     True),
    ("f calls g before h", "call g; ret", False),
    ("f calls h without g", "test %eax, %eax; je 1f; call g; 1: call h; ret", True),
    ("f calls h without g", "call g; call h; ret", False),
    ("f calls h without g", "test %eax, %eax; je 1f; call g; 1: jne 2f; ud2; 2: ret; call h; ret",
     False),
    ("f calls g held at h by other", "call g; call h; call other; ret", True),
    ("f calls g held at h by other", "call g; call other; call h; ret", False),
    ("f calls g held at h by other", "test %eax, %eax; je 1f; call g; 1: call h; ret", False),
    ("f calls g held at h by other", "call g; call other; call g; call h; ret", True),
    ("f calls g held at h by other",
     "0: call g; call h; test %eax, %eax; je 1f; call other; jmp 0b; 1: ret", True),
    ("f calls g held at h by other",
     "call g; 0: call h; test %eax, %eax; je 1f; call other; jmp 0b; 1: ret", False),
    ("f calls g held at h by other", "ret; call h; ret", False),
    ("f calls g held at h by other", "call g; call h; ret; call h; ret", False),
    ("f calls g kept to h by other", "test %eax, %eax; je 1f; call g; 1: call h; ret", True),
    ("f calls g kept to h by other", "call g; call h; call other; ret", True),
    ("f calls g kept to h by other", "call h; call g; ret", False),
    ("f calls g kept to h by other", "call g; test %eax, %eax; je 1f; call other; 1: call h; ret",
     False),
    ("f calls g kept to h by other",
     "0: test %eax, %eax; je 1f; call g; 1: call h; test %eax, %eax; je 0b; call other; jmp 0b",
     True),
    ("f calls no h from g to other", "call g; call other; call h; ret", True),
    ("f calls no h from g to other", "call g; call h; call other; ret", False),
    ("f calls no h from g to other", "call g; test %eax, %eax; je 1f; call other; 1: call h; ret",
     False),
    ("f calls no h from g to other", "call h; ret", False),
    ("f heeds g", "call g; mov %eax, %ebx; test %al, %al; jne 1f; 1: ret", True),
    ("f heeds g", "call g; cmp 8(%rsp), %eax; jne 1f; 1: ret", True),
    ("f heeds g", "call g; cmp %edx, 8(%rax); jne 1f; 1: ret", False),
    ("f heeds g", "call g; call h; test %eax, %eax; jne 1f; 1: ret", False),
    ("f heeds g", "call g; test %eax, %eax; jne 1f; call g; 1: ret", False),
    ("f widens what g returns", "call g; cltq; ret", True),
    ("f widens what g returns", "call g; movslq %eax, %rbx; mov %rbx, %rax; ret", True),
    ("f widens what g returns", "call g; cmp $1, %rax; cltq; ret", True),
    ("f widens what g returns", "call g; ret", False),
    ("f widens what g returns", "call g; mov $1, %eax; cltq; ret", False),
    ("f passes on what g returns", "jmp g", True),
    ("f passes on what g returns", "call g; add $8, %rsp; ret", True),
    ("f passes on what g returns", "call g; mov %rax, %rbx; pop %rcx; mov %rbx, %rax; ret", True),
    ("f passes on what g returns", "call g; cltq; ret", False),
    ("f passes on what g returns", "call g; jmp 1f; 1: mov %eax, %ebx; movslq %ebx, %rax; ret",
     False),
    ("f passes on what g returns", "call g; xor %eax, %eax; ret", False),
    # What only reads the register does not end the way.
    ("f passes on what g returns",
     "call g; test %ebx, %ebx; je 2f; cmp $5, %rax; cltq; ret; 2: ret", False),
    ("f passes on what g returns",
     "call g; test %ebx, %ebx; je 2f; test $5, %al; cltq; ret; 2: ret", False),
    ("f passes on what g returns",
     "call g; test %ebx, %ebx; je 2f; bt $5, %rax; cltq; ret; 2: ret", False),
    ("f passes on what g returns", "call g; cmp $5, %rax; je 1f; nop; 1: ret", True),
    ("f passes on what g returns", "call g; cmp $5, %eax; je 1f; nop; 1: ret", False),
    ("f passes on what g returns", "call g; mov 8(%rsp), %rax; ret", False),
    ("f passes on what g returns", "call g; test %eax, %eax; je 1f; cltq; 1: ret", False),
    ("f clears before g", "movq $0, 8(%rbx); call g; ret", True),
    ("f clears before g", "call *8(%rbx); call g; ret", True),
    ("f clears before g", "movq $0, 8(%rsp); call g; ret", False),
    ("f clears before g", "call *8(%rbx); call g; movq $0, (%rbx); ret", False),
    ("f clears before g", "test %eax, %eax; je 1f; movq $0, (%rbx); 1: call g; ret", False),
    ("f always comes to h after g", "call g; call h; ret", True),
    ("f always comes to h after g", "call g; test %eax, %eax; je 1f; call h; 1: ret", True),
    ("f always comes to h after g",
     "call g; test %eax, %eax; je 1f; ret; 1: test %ebx, %ebx; je 2f; call h; 2: ret", False),
    ("f always comes to h after g", "call g; test %eax, %eax; je 1f; jmp other; 1: call other; "
     "test %ebx, %ebx; je 2f; call h; 2: ret", False),
    ("f calls g given 0x8cc0", "mov $0x8cc0, %esi; call g; ret", True),
    ("f calls g given 0x8cc0", "mov $0x8cc0, %edx; mov %rbx, %rdi; jmp g", True),
    ("f calls g given 0x8cc0", "mov $0xcc0, %esi; mov $0x8cc0, %eax; call g; ret", False),
    ("f calls g given 0x8cc0", "mov $0x8cc0, %esi; mov $0xcc0, %esi; call g; ret", False),
    ("f calls g given 0x8cc0", "mov $0x8cc0, %esi; mov %rbx, %rsi; call g; ret", False),
    ("f calls g given 0x8cc0", "mov $0x8cc0, %esi; mov (%rbx), %rsi; call g; ret", False),
    ("f calls g given 0x8cc0", "mov $0x8cc0, %esi; call h; call g; ret", False),
    ("f calls g given 0x8cc0", "mov $0x8cc0, %esi; xchg %rsi, %rbx; call g; ret", False),
    ("f calls g given 0x8cc0", "mov $0x8cc0, %esi; 1: call g; test %eax, %eax; je 1b; ret", False),
    ("f calls g given 0x8cc0",
     "mov $0x8cc0, %esi; call g; mov $0xcc0, %esi; call g; ret", False),
    ("f stores by its second argument", "mov %rax, (%rsi); ret", True),
    ("f stores by its second argument", "mov %rsi, %rbx; call g; mov %rax, (%rbx); ret", True),
    ("f stores by its second argument", "mov %rax, (%rdx); mov (%rsi), %rax; ret", False),
    ("f stores by its second argument", "mov %rax, 8(%rsi); ret", False),
    ("f stores by its second argument", "mov (%rsi), %rsi; mov %rax, (%rsi); ret", False),
    ("f stores by its second argument", "call g; mov %rax, (%rsi); ret", False),
    ("f stores by its third argument", "mov %rax, (%rdx); ret", True),
    ("f refers to g", "lea g(%rip), %rax; ret", True),
    ("f refers to g", "movq $g, -8(%rsp); ret", True),
    ("f refers to g", "lea h(%rip), %rax; ret", False),
    ("f uses 0x18000", "and $0x18000, %eax; ret", True),
    ("f uses 0xffffffffc0000000", "and $-0x40000000, %rax; ret", True),
    ("f looks only at 0|8", "cmp 8(%rdi), %rsi; mov (%rdi), %rax; push 16(%rsp); ret", True),
    ("f looks only at 0|8", "cmp 8(%rdi), %rsi; mov 16(%rdi), %rax; ret", False),
    ("f looks only at 0|8", "mov 8(%rdi,%rsi), %rax; ret", False),
    ("f looks only at 0|8", "mov -8(%rdi), %rax; ret", False),
    # Without frame pointers it is a register as any other.
    ("f looks only at 0|8", "mov %rdi, %rbp; mov 0x20(%rbp), %rax; ret", False),
    ("f looks only at 0|8", "mov -0x20(%rbp), %rax; mov (%rdi), %rbx; ret", True),
    ("f uses none of 0x18000", "and $0x8000, %eax; ret", True),
    ("f uses none of 0x18000", "and $0x18000, %eax; ret", False),
    ("f runs straight on", "test %eax, %eax; je 1f; nop; 1: ret", True),
    ("f runs straight on", "0: test %eax, %eax; je 0b; ret", False),
    ("f counts nothing", "incl 8(%rax); ret", True),
    ("f counts nothing", "lock incl 8(%rax); ret", False),
    ("f counts before h", "lock incl 8(%rax); call h; ret", True),
    ("f counts before h", "je 1f; lock incl 8(%rax); 1: call h; ret", False),
    ("f calls h after g given 2 third", "call g; mov $2, %edx; xor %ecx, %ecx; call h; ret", True),
    ("f calls h after g given 2 third", "call g; mov $2, %ecx; xor %edx, %edx; call h; ret", False),
    ("f calls h after g given 0 third", "call g; mov $2, %ecx; xor %edx, %edx; call h; ret", True),
    ("f calls h after g given 0 third", "call g; xor %ecx, %ecx; call h; ret", False),
    # It is set on one of two ways.
    ("f calls h after g given 2 third", "call g; test %eax, %eax; je 1f; mov $2, %edx; 1: call h; ret",
     False),
    # What comes before is no matter, and each that comes after is.
    ("f calls h after g given 0 third", "mov $2, %edx; call h; call g; xor %edx, %edx; call h; ret",
     True),
    ("f calls h after g given 0 third", "call g; xor %edx, %edx; call h; mov $2, %edx; call h; ret",
     False),
    ("f tests no bit 7 before h", "test $0x40, %al; je 1f; 1: call h; test $0x80, %al; je 2f; 2: ret",
     True),
    ("f tests no bit 7 before h", "test $0x80, %ah; je 1f; 1: call h; ret", True),
    ("f tests no bit 7 before h", "test $0x80, %al; je 1f; 1: call h; ret", False),
    ("f tests no bit 7 before h", "test %al, %al; js 1f; 1: call h; ret", False),
    ("f tests no bit 7 before h", "and $0x88, %eax; cmp $8, %eax; je 1f; 1: call h; ret", False),
    ("f tests no bit 7 before h", "cmpb $0, 0x20(%rdi); jl 1f; 1: call h; ret", False),
    ("f tests no bit 7 before h", "ret", False),
])
def test_conditions(form: str, code: str, true: bool) -> None:
    assert seen(f"fn f; {code}", form) is true


@pytest.mark.parametrize("code, true", [
    ("lock incl 8(%rax); call h; lock decl 8(%rax); ret", True),
    ("lock addl $1, 8(%rax); call h; lock addl $-1, 8(%rax); ret", True),
    ("lock subl $-1, 8(%rax); call h; lock subl $1, 8(%rax); ret", True),
    ("lock incl 8(%rax); lock decl 8(%rax); call h; ret", False),
    ("lock decl 8(%rax); lock incl 4(%rax); call h; ret", False),
    ("lock decl 8(%rax); call h; lock incl 8(%rax); ret", False),
    ("lock incl 8(%rax); lock addl $-1, 8(%rax); call h; ret", False),
    ("lock incl 8(%rax); lock subl $1, 8(%rax); call h; ret", False),
    # By how much, nobody knows.
    ("lock incl 8(%rax); lock xadd %ecx, 8(%rax); call h; ret", False),
    ("lock addl %ecx, 8(%rax); call h; ret", False),
    ("je 1f; lock incl 8(%rax); 1: call h; ret", False),
    ("lock incl 8(%rax); je 1f; lock decl 8(%rax); 1: call h; ret", False),
])
def test_a_count_that_is_up(code: str, true: bool) -> None:
    reads = "fn k; mov 8(%rax), %eax; test %eax, %eax; ret"
    assert seen(f"fn f; {code}\n{reads}", "f counts up what k reads held at h") is true


def test_pieces_belong_to_a_function() -> None:
    text = "fn f; test %eax, %eax; je f.cold; ret\nfn f.cold; call g; ret"
    assert seen(text, "f calls g")
    assert not seen(text, "f calls none of g")
    part = "fn f; call f.part.0; call h; ret\nfn f.part.0; call g; ret"
    assert seen(part, "f calls g")
    # Whether the piece always does it is not known.
    assert not seen(part, "f calls h without g")
    assert not seen(part, "f calls g before h")


def test_a_function_that_is_nowhere_but_for_a_piece() -> None:
    """As in an image that is damaged: that is no answer, and no traceback."""
    image = assembled(KERNEL + "fn f.cold; call h; call g; ret")
    gone = dataclasses.replace(image, symbols=(*image.symbols, Symbol("f", START - 4096, "t")))
    for form in ("f calls g then h", "f calls g before h", "f calls no g after h"):
        assert not rules.fits(form, Code(gone)).true, form


def test_each_copy_of_a_function_counts() -> None:
    text = "fn f.constprop.0; call g; ret\nfn f.constprop.1; call h; ret"
    assert not seen(text, "f calls g")
    assert not seen(text, "f calls none of g")
    assert seen(text.replace("call h", "call g"), "f calls g")


def test_code_without_a_name_that_a_function_jumps_to() -> None:
    text = "fn f; jmp 1f; 0: ret\nfn x; ret; 1: call g; jmp 0b"
    assert seen(text, "f calls g") and not seen(text, "x calls g")


def test_of_names_the_first_that_is_there_is_meant() -> None:
    text = "fn f; call g; ret\nfn e; call h; ret"
    assert seen(text, "nil|f|e calls g") and not seen(text, "e|f calls g")
    assert not seen(text, "nil calls g") and not seen(text, "nil calls none of g")


def test_what_is_not_there() -> None:
    assert seen("fn f; ret", "there is no e") and not seen("fn f; ret", "there is no e|f")
    assert seen("fn f; ret", "there is e|f")
    # The table of symbols has nothing that every kernel has: it is not whole.
    image = assembled("fn f; ret")
    assert not rules.fits("there is no e", Code(image)).true


@pytest.mark.parametrize("config, name", [("CONFIG_LTO_CLANG_THIN=y\n", "f"),
                                          (None, "f.llvm.123")])
def test_what_may_be_inlined_anywhere_is_not_said_to_be_missing(config: str | None, name: str
                                                                 ) -> None:
    text = f"fn {name}; call h; ret"
    assert seen(text, "f calls h", config)
    for form in ("f calls none of g", "there is no e"):
        assert not seen(text, form, config), form
    assert seen("fn f; call h; ret", "f calls none of g", "CONFIG_LTO_NONE=y\n")


def test_which_lock() -> None:
    like = "fn like; lea 0x30(%rax), %rdi; call down_write; ret\n"
    lock = "f calls down_write@like"
    assert seen(like + "fn f; lea 0x30(%rbx), %rdi; call down_write; ret", lock)
    assert seen(like + "fn f; lea 0x30(%rbx), %rax; mov %rax, %rdi; call down_write; ret", lock)
    assert not seen(like + "fn f; lea 0x8(%rbx), %rdi; call down_write; ret", lock)
    none = "f calls none of down_write@like"
    assert seen(like + "fn f; mov 0x8(%rbx), %rdi; call down_write; ret", none)
    # Which one it is, nobody knows.
    hidden = like + "fn f; mov 0x8(%rsp), %rdi; call down_write; ret"
    assert not seen(hidden, none) and not seen(hidden, lock)


def test_what_is_counted_and_read() -> None:
    text = "fn count; lock incl 0x20(%rdx,%rcx); ret\nfn put; lock decl 0x34(%rdi); ret\n"
    assert seen(text, "count counts other than put")
    assert not seen(text, "count counts what put counts")
    reads = text + "fn f; mov 0x20(%rax), %eax; test %eax, %eax; ret"
    assert seen(reads, "f reads what count counts")
    assert seen(reads, "f reads nothing that put counts")
    assert not seen("fn put; lock decl 32(%rax); ret\nfn f; cmpl $0, 32(%rbp); ret",
                    "f reads nothing that put counts")
    assert not seen(reads, "f reads nothing that nil counts")
    assert not seen(text + "fn f; mov 0x20(%rsp), %eax; ret", "f reads what count counts")


def test_a_flag_that_is_set_and_tested() -> None:
    text = "fn f; orb $8, 0x21(%rdi); ret\nfn flush; testw $0x8f4, 0x20(%rdi); ret\n"
    assert seen(text, "f sets what flush tests")
    assert not seen(text, "flush sets what f tests")
    assert not seen(text.replace("0x21", "0x28"), "f sets what flush tests")
    # Debian's 6.1.170 has the gather in rbp.
    assert seen(text.replace("0x21(%rdi)", "0x21(%rbp)"), "f sets what flush tests")


def test_each_call_must_be_followed() -> None:
    form = "each g in f|e|nil comes to h"
    good = "fn f; call g; call h; ret\nfn e; ret\n"
    assert seen(good, form)
    assert not seen(good.replace("fn e; ret", "fn e; call g; ret"), form)
    assert not seen("fn f; ret\nfn e; ret", form)


def test_static_branches() -> None:
    """Where they lead is read from the table of the kernel."""
    image = assembled(KERNEL + "fn f; 0: .byte 0x0f, 0x1f, 0x44, 0, 0; ret; call g; ret")
    at = next(one.address for one in image.symbols if one.name == "f")
    table = START + 0x10000
    entry = b"".join(value.to_bytes(size, "little", signed=True) for value, size in (
        (at - table, 4), (at + 6 - (table + 4), 4), (0, 8)))
    assert not rules.fits("f calls g", Code(image)).true
    told = dataclasses.replace(
        image, sections=(*image.sections, Section(table, entry, False)),
        symbols=(*image.symbols, Symbol("__start___jump_table", table, "D"),
                 Symbol("__stop___jump_table", table + len(entry), "D")))
    assert rules.fits("f calls g", Code(told)).true


@pytest.mark.parametrize("change, known", [
    ("", True),
    ("one is not in code that is known", True),         # .exit.text
    ("many are not in code", False),
    ("what is there is no nop", False),                 # then it is another table
    ("it has no end", False)])
def test_static_branches_of_a_kernel_without_names_of_data(change: str, known: bool) -> None:
    """Who sorts the table when the kernel boots takes its address."""
    table, size = START + 0x10000, 16
    nop = ".byte 0x0f, 0x1f, 0x44, 0, 0"
    image = assembled(KERNEL + f"fn f; {nop}; ret; call g; ret\n"
                      f"fn many; .rept 63; {nop if change != 'what is there is no nop' else 'int3'}"
                      f"; .endr; ret\nfn jump_label_init; mov ${table - (1 << 64)}, %rdi\n"
                      f"mov ${table + 64 * size - (1 << 64)}, %rsi; ret")
    at = {one.name: one.address for one in image.symbols}
    entries = [(at["f"], at["f"] + 6)]
    entries += [(at["many"] + 5 * number, at["f"]) for number in range(63)]
    away = {"one is not in code that is known": 1, "many are not in code": 30}.get(change, 0)
    for number in range(20, 20 + away):
        entries[number] = (START + 0x20000, START + 0x20000)
    data = b"".join(struct.pack("<iiq", here - (table + number * size),
                                there - (table + number * size + 4), 0)
                    for number, (here, there) in enumerate(entries))
    if change == "it has no end":
        data = data[:-1]
    told = dataclasses.replace(image, sections=(*image.sections, Section(table, data, False)))
    assert rules.fits("f calls g", Code(told)).true == known


# What the kernel has put where it jumps on some CPUs: a long jump, and a short one with a nop.
LONG, SHORT = ".byte 0xe9; .long 1f - . - 4", "jmp 1f; .byte 0x0f, 0x1f, 0"
NO_JUMP = ".byte 0x0f, 0x1f, 0x44, 0, 0"


@pytest.mark.parametrize("code, without, true", [
    (f"call g; {LONG}; inc %eax; 1: call h; ret", "", True),
    (f"call g; {SHORT}; inc %eax; 1: call h; ret", "", True),
    # One is behind the other.
    (f"call g; {LONG}; inc %eax; jmp 2f; .byte 0x0f, 0x1f, 0; inc %eax; 2: inc %ebx; 1: call h; "
     "ret", "", True),
    # Both ways are followed.
    (f"{LONG}; call g; 1: call h; ret", "", False),
    (f"call g; {LONG}; call other; 1: call h; ret", "", False),
    # A file is not patched.  In memory nothing is said of what may be entered by other ways.
    (f"call g; {LONG}; inc %eax; 1: call h; ret", "memory", False),
    (f"call g; {LONG}; inc %eax; 1: call h; ret", "jump_table", False),
    (f"call g; {LONG}; inc %eax; 1: call h; ret", "ex_table", False),
    (f"mov (%rax), %rax; call g; {LONG}; inc %eax; 1: call h; ret", "fault", False),
    (f"call g; {LONG}; inc %eax; 1: call h; test %eax, %eax; je 2f; ret; 2: jmp *%rcx", "", False),
    # That is no such jump.
    ("call g; jmp 1f; inc %eax; 1: call h; ret", "", False),
    (f"call g; {LONG}; .byte 0x0f, 0x1f, 0; inc %eax; 1: call h; ret", "", False),
    ("call g; call h; ret; inc %eax; call h; ret", "", False),
    # Where one is taken away, nothing says where it led.
    (f"call g; {NO_JUMP}; call h; ret; inc %eax; call h; ret", "", False),
    (f"{NO_JUMP}; call g; 1: call h; {SHORT.replace('1f', '2f')}; inc %eax; jmp 1b; 2: ret", "",
     False)])
def test_a_jump_that_was_made_for_this_cpu(code: str, without: str, true: bool) -> None:
    """In memory there is no table any more of where it would be another."""
    image = assembled(KERNEL + f"fn f; {NO_JUMP}; {code}\nfn key; {NO_JUMP}; ret")
    at = {one.name: one.address for one in image.symbols}
    tables = {"jump_table": (START + 0x10000, "<iiq", (at["key"], at["key"] + 5)),
              "ex_table": (START + 0x20000, "<iii", (at["key"], at["key"] + 5))}
    if without == "fault":
        tables["ex_table"] = (START + 0x20000, "<iii", (at["f"] + 5, at["f"] + 8))
    tables.pop(without, None)
    sections, symbols = [*image.sections], [*image.symbols]
    for name, (start, layout, (here, there)) in tables.items():
        data = struct.pack(layout, here - start, there - (start + 4), 0)
        sections.append(Section(start, data, False))
        symbols += [Symbol(f"__start___{name}", start, "D"),
                    Symbol(f"__stop___{name}", start + len(data), "D")]
    live = dataclasses.replace(image, sections=tuple(sections), symbols=tuple(symbols),
                               live=without != "memory")
    assert rules.fits("f calls g held at h by other", Code(live)).true == true
    # What is behind it is run, too: then nothing may be said not to be called.
    assert not rules.fits("f calls none of h", Code(live)).true


def test_what_may_fault() -> None:
    """Since 4.6 an entry has three ints; what is not sorted is no such table."""
    places = [START + 0x100, START + 0x200, START + 0x208]
    for size in (8, 12):
        entries = b"".join(struct.pack("<ii", at - (START + number * size), 0) + bytes(size - 8)
                           for number, at in enumerate(places))
        assert patched.faults(START, entries) == places
        assert not patched.faults(START, entries[:-1])
        assert not patched.faults(START, entries[size:] + entries[:size])
    assert not patched.faults(0, b"")


NOP, JUMP, MOVE = 0xd503201f, 0x14000000, 0xd2800000


@pytest.mark.parametrize("code, other, calls", [
    # A jump that becomes a nop, by a function or by other code, and a nop that becomes a jump.
    ("b 1f; bl g; 1: bl h; ret", None, True),
    ("b 1f; bl g; 1: bl h; ret", NOP, True),
    ("nop; bl h; ret; bl g; ret", JUMP, True),
    # That is other code, but it does not decide on a jump.
    ("b 1f; bl g; 1: bl h; ret", MOVE, False),
    ("nop; bl h; ret; bl g; ret", MOVE, False)])
def test_alternatives(code: str, other: int | None, calls: bool) -> None:
    """What jumps on some CPUs alone is known from the kernel's table of what it patches."""
    if not shutil.which(f"{arch.load('arm64').triplet}-gcc"):
        pytest.skip("no gcc for arm64: apt install gcc-aarch64-linux-gnu")
    image = assembled(KERNEL + f"fn f; {code}", "arm64")
    at = next(one.address for one in image.symbols if one.name == "f")
    text = image.sections[0].data
    where, table = START + len(text), START + 0x10000
    if other == JUMP:       # to the last call
        other |= (at + 12 - where) // 4 & 0x3ffffff
    # Where a function makes the other code, the entry says where that is.
    entry = struct.pack("<iiHBB", at - table, where - (table + 4), 7, 4, 4 if other else 0)
    sections = (Section(START, text + (other or MOVE).to_bytes(4, "little"), True),
                Section(table, entry, False))
    ends = (Symbol("__alt_instructions", table, "D"),
            Symbol("__alt_instructions_end", table + len(entry), "D"))

    def seen_with(*symbols: Symbol) -> bool:
        return rules.fits("f calls g", Code(dataclasses.replace(
            image, sections=sections, symbols=(*image.symbols, *symbols)))).true
    assert seen_with(*ends) == calls
    assert not seen_with()
    # A table that is cut off says nothing, and neither does an entry that leads nowhere.
    assert not seen_with(ends[0], dataclasses.replace(ends[1], address=ends[1].address - 1))
    nowhere = struct.pack("<iiHBB", at - table, 0x1000000, 7, 4, 4)
    sections = (sections[0], Section(table, nowhere, False))
    assert not seen_with(*ends)


def test_config_and_architecture() -> None:
    config = "CONFIG_NUMA=y\n# CONFIG_MIGRATION is not set\n"
    assert seen("", "the config has NUMA", config)
    assert seen("", "the config has none of MIGRATION|KSM", config)
    assert not seen("", "the config has none of MIGRATION|NUMA", config)
    assert not seen("", "the config has none of MIGRATION", None)       # it says nothing
    assert seen("", "it is for x86_64") and seen("", "it is not for arm64")


@pytest.mark.parametrize("flags, kib", [(0xa, 4), (0xc, 16), (0xe, 64), (0x8, 0)])
def test_the_size_of_a_page(flags: int, kib: int) -> None:
    """Of arm64, whose header may not say it, as the oldest do not."""
    head = bytearray(64)
    head[24:32] = flags.to_bytes(8, "little")
    head[56:60] = b"ARM\x64"
    image = dataclasses.replace(assembled(KERNEL), arch="arm64", sections=(
        Section(0x1000, bytes(head), True),), symbols=(Symbol("_text", 0x1000, "T"),))
    assert [size for size in (4, 16, 64) if rules.fits(
        f"a page has {size} KiB", Code(image)).true] == ([kib] if kib else [])
    # Of others there is no such header, and of some no _text.
    for other in (dataclasses.replace(image, symbols=()), dataclasses.replace(image, sections=(
            Section(0x1000, bytes(64), True),))):
        assert not rules.fits("a page has 4 KiB", Code(other)).true


@pytest.mark.parametrize("form", ["f call g", "f calls", "", "f calls g; ", "f calls g and h",
                                  "f calls g@", "there are f"])
def test_a_form_that_says_nothing_is_refused(form: str) -> None:
    with pytest.raises(LabError, match="no condition"):
        rules.parse(form)


# Another function, with which f is compared.
K = "fn k; %s"
RISCV_ADDS = "addi a4, a0, %d; li a5, 1; amoadd.w.aqrl zero, a5, (a4); ret"
ARM64_LOOPS = ("add x1, x0, #%d; 0: ldxr w2, [x1]; add w2, w2, #1; stxr w3, w2, [x1]; cbnz w3, 0b; "
               "ret")
# The stack of a function with a frame pointer, as Debian's kernels for riscv64 have it.
RISCV_FRAME = "addi sp, sp, -400; sd s0, 384(sp); addi s0, sp, 400; "


@pytest.mark.parametrize("kind, form, code, true", [
    ("riscv64", "f calls g", "call g; ret", True),
    ("riscv64", "f calls g", ".option norelax; call g; ret", True),     # by two instructions
    ("riscv64", "f calls g", ".option norelax; tail g", True),
    ("riscv64", "f calls g", "tail g", True),
    ("riscv64", "f calls g", "ret; call g; ret", False),
    ("riscv64", "f calls g", "call h; ret", False),
    ("riscv64", "f calls none of g", "call h; ret", True),
    ("riscv64", "f calls none of g", "ret; call g; ret", False),
    ("riscv64", "f calls none of g", ".4byte 0xb; ret", False),         # what is no code
    ("riscv64", "f calls nothing", "li a0, 0; ret", True),
    ("riscv64", "f calls nothing", "jr a5", False),
    ("riscv64", "f calls nothing", "jalr a5; ret", False),
    ("riscv64", "f calls g then h", "call g; call h; ret", True),
    ("riscv64", "f calls g then h", "call h; call g; ret", False),
    ("riscv64", "f calls g then h", "beqz a0, 1f; call g; 1: call h; ret", True),
    ("riscv64", "f calls g before h", "beqz a0, 1f; call g; 1: call h; ret", False),
    ("riscv64", "f calls g before h", "bltu a0, a1, 1f; call g; j 2f; 1: call g; 2: call h; ret",
     True),
    ("riscv64", "f calls h without g", "bgez a0, 1f; call g; 1: call h; ret", True),
    ("riscv64", "f runs straight on", "beqz a0, 1f; nop; 1: ret", True),
    ("riscv64", "f runs straight on", "0: bnez a0, 0b; ret", False),
    ("riscv64", "f calls g then h with the same",
     RISCV_FRAME + "addi a0, s0, -248; call g; addi a0, s0, -248; call h; ret", True),
    ("riscv64", "f calls g then h with the same",
     RISCV_FRAME + "addi a0, s0, -248; call g; addi a0, s0, -240; call h; ret", False),
    ("riscv64", "f calls g then h with the same",
     "addi s1, sp, 16; mv a0, s1; call g; mv a0, s1; call h; ret", True),
    ("riscv64", "f calls g then h with the same",       # a call may change it
     "addi t1, sp, 16; mv a0, t1; call g; mv a0, t1; call h; ret", False),
    ("riscv64", "f calls g then h with the same",
     "addi s1, a1, 8; sd s1, 8(sp); mv a0, s1; call g; ld a0, 8(sp); call h; ret", True),
    ("riscv64", "f calls g then h with the same",
     "addi s1, a1, 8; sd s1, 8(sp); mv a0, s1; call g; ld a0, 16(sp); call h; ret", False),
    ("riscv64", "f counts what k counts", f"{RISCV_ADDS % 48}; {K % (RISCV_ADDS % 48)}", True),
    ("riscv64", "f counts what k counts", f"{RISCV_ADDS % 48}; {K % (RISCV_ADDS % 52)}", False),
    ("riscv64", "f counts other than k", f"{RISCV_ADDS % 48}; {K % (RISCV_ADDS % 52)}", True),
    ("riscv64", "f counts other than k",                # who knows where that is
     f"amoadd.w zero, a5, (a1); {RISCV_ADDS % 48}; {K % (RISCV_ADDS % 52)}", False),
    ("riscv64", "f counts nothing", "ret", False),      # by lr and sc, perhaps
    ("riscv64", "f reads what k counts", f"lw a5, 48(a0); ret; {K % (RISCV_ADDS % 48)}", True),
    ("riscv64", "f reads what k counts", f"ld a5, 48(a0); ret; {K % (RISCV_ADDS % 48)}", False),
    ("riscv64", "f reads what k counts", f"lw a5, 48(sp); ret; {K % (RISCV_ADDS % 48)}", False),
    ("riscv64", "f reads nothing that k counts", f"lw a5, 52(a0); ret; {K % (RISCV_ADDS % 48)}",
     True),
    ("riscv64", "f reads nothing that k counts", f"lw a5, 48(a0); ret; {K % (RISCV_ADDS % 48)}",
     False),
    ("riscv64", "f reads nothing that k counts",
     f"lw a5, 52(a0); ret; {K % ('amoadd.w zero, a5, (a1); ' + RISCV_ADDS % 48)}", False),
    ("riscv64", "f uses none of 0x1000", "ret", False),     # it may be put together
    ("arm64", "f uses none of 0x40000000", "movz x0, #0x4000, lsl #16; ret", False),
    ("arm64", "f counts what k counts", f"{ARM64_LOOPS % 48}; {K % (ARM64_LOOPS % 48)}", True),
    ("arm64", "f counts what k counts", f"{ARM64_LOOPS % 48}; {K % (ARM64_LOOPS % 52)}", False),
    ("arm64", "f counts what k counts",                 # that is no count
     f"{ARM64_LOOPS.replace('add w2, w2, #1', 'mov w2, w4') % 48}; {K % (ARM64_LOOPS % 48)}", False),
    ("arm64", "f reads what k counts", f"ldr w2, [x1, #48]; ret; {K % (ARM64_LOOPS % 48)}", True),
    ("arm64", "f reads what k counts", f"ldr x2, [x1, #48]; ret; {K % (ARM64_LOOPS % 48)}", False),
    # The same by one instruction of ARMv8.1, which Capstone 4 does not know.
    ("arm64", "f counts what k counts",
     f".arch armv8.1-a; add x1, x0, #48; stadd w2, [x1]; ret; {K % (ARM64_LOOPS % 48)}", True),
    ("arm64", "f counts what k counts",
     f".arch armv8.1-a; add x1, x0, #48; ldaddal w2, w3, [x1]; ret; {K % (ARM64_LOOPS % 48)}",
     True),
    ("arm64", "f counts what k counts",
     f".arch armv8.1-a; add x1, x0, #48; stset w2, [x1]; ret; {K % (ARM64_LOOPS % 48)}", False),
    ("arm64", "f counts what k counts",     # that changes what is known of a register
     f".arch armv8.1-a; add x1, x0, #48; swp x2, x1, [x3]; stadd w2, [x1]; ret; "
     f"{K % (ARM64_LOOPS % 48)}", False),
    ("arm64", "f counts what k counts",
     f".arch armv8.1-a; add x1, x0, #48; str x2, [x1, #8]!; stadd w2, [x1]; ret; "
     f"{K % (ARM64_LOOPS % 48)}", False),
    ("arm64", "f counts up what k reads held at h",
     "add x1, x0, #48; 0: ldxr w2, [x1]; add w2, w2, #1; stxr w3, w2, [x1]; cbnz w3, 0b; bl h; ret; "
     f"{K % 'ldr w2, [x0, #48]; ret'}", True),
    ("arm64", "f counts up what k reads held at h",
     "add x1, x0, #48; 0: ldxr w2, [x1]; sub w2, w2, #1; stxr w3, w2, [x1]; cbnz w3, 0b; bl h; ret; "
     f"{K % 'ldr w2, [x0, #48]; ret'}", False),
    ("arm64", "f counts up what k reads held at h",     # by a register: what comes after is no part
     ".arch armv8.1-a; mov w2, #-1; add x1, x0, #48; stadd w2, [x1]; add x4, x4, #8; bl h; ret; "
     f"{K % 'ldr w2, [x0, #48]; ret'}", False),
    ("riscv64", "f counts up what k reads held at h",
     "addi a4, a0, 48; li a5, -1; amoadd.w.aqrl zero, a5, (a4); call h; ret; "
     f"{K % 'lw a5, 48(a0); ret'}", False),
    ("arm64", "f calls none of g", ".arch armv8.1-a; casal x1, x2, [x3]; ret", True),
    ("arm64", "f calls none of g", ".arch armv8.1-a; caspal x0, x1, x2, x3, [x4]; ret", True),
    ("arm64", "f calls none of g",
     "ldtr w1, [x2, #-8]; sttrb w1, [x2]; ldtrsw x3, [x2]; ret", True),
    ("arm64", "f calls none of g", ".4byte 0x38001000; ret", True),
    ("arm64", "f calls none of g", ".4byte 0x0000ffff; ret", False),
    ("arm64", "f calls none of g", ".4byte 0x3820c000; ret", False),    # a kind that is not known
    ("arm64", "f sets what k tests",
     f"ldrh w1, [x0, #32]; orr w1, w1, #256; strh w1, [x0, #32]; ret; "
     f"{K % 'ldrb w1, [x0, #33]; ret'}", True),
    ("arm64", "f sets what k tests", f"strh w1, [x0, #32]; ret; {K % 'ldrb w1, [x0, #34]; ret'}",
     False),
    ("arm64", "f sets what k tests", f"ldrh w1, [x0, #32]; ret; {K % 'ldrb w1, [x0, #33]; ret'}",
     False),
    ("arm64", "f sets what k tests",
     f"str x1, [x0, #32]; ret; {K % 'ldr x1, [x0, #32]; ret'}", False),
    ("arm64", "f sets what k tests",
     f"str w1, [sp, #32]; ret; {K % 'ldr w1, [x0, #32]; ret'}", False),
    ("arm64", "f looks only at 0|8",
     "ldp x1, x2, [x0]; str x1, [sp, #16]; prfm pldl1keep, [x3]; ret", True),
    ("arm64", "f looks only at 0|8", "ldp x1, x2, [x0, #8]; ret", False),
    ("arm64", "f looks only at 0|8", "ldr x1, [x0, #16]; ret", False),
    ("arm64", "f looks only at 0|8", "ldr x1, [x0, x2]; ret", False),
    ("arm64", "f looks only at 0|8", "ldr x1, [x0]; br x1", True),
    ("arm64", "f refers to g", "adrp x1, g; nop; add x1, x1, :lo12:g; ret", True),
    ("arm64", "f refers to g", "adr x1, g; ret", True),
    ("arm64", "f refers to g", "adrp x1, g; add x1, x1, :lo12:h; ret", False),
    ("arm64", "f refers to g", "adrp x1, g; mov x1, x2; add x1, x1, :lo12:g; ret", False),
    ("arm64", "f refers to g", "adrp x1, g; add x2, x1, :lo12:h; add x3, x1, :lo12:g; ret", True),
    ("arm64", "f refers to g", "adrp x1, g; ldp x0, x1, [x2]; add x1, x1, :lo12:g; ret", False),
    ("arm64", "f refers to g", "adrp x1, g; bl h; add x1, x1, :lo12:g; ret", False),
    ("arm64", "only f|e calls g", "bl g; ret", True),
    ("arm64", "only f|e calls g", "b g", True),
    ("arm64", "only f|e calls g", f"bl g; ret; {K % 'bl g; ret'}", False),
    ("arm64", "only f|e calls g", f"bl g; ret; {K % 'cbnz x1, g; ret'}", False),
    ("arm64", "only f|e calls g", f"bl g; ret; {K % 'b.eq g; ret'}", False),
    ("arm64", "only f|e calls g", f"bl g; ret; {K % 'tbz w1, #3, g; ret'}", False),
    ("arm64", "only f|e calls g", f"bl g; ret; {K % 'adr x1, g; ret'}", False),
    ("arm64", "only f|e calls g",
     f"bl g; ret; {K % 'adrp x1, g; add x2, x1, :lo12:g; ret'}", False),
    ("arm64", "only f|e calls g", f"bl g; ret; {K % 'adrp x1, g; add x2, x3, :lo12:g; ret'}", True),
    ("arm64", "only f|e calls g", f"bl g; ret; {K % 'bl h; ret'}", True),
    ("riscv64", "f sets what k tests", f"lbu a5, 33(a0); ori a5, a5, 1; sb a5, 33(a0); ret; "
     f"{K % 'lhu a5, 32(a1); ret'}", True),
    ("riscv64", "f sets what k tests", f"lbu a5, 33(a0); ret; {K % 'lhu a5, 32(a1); ret'}", False),
    ("riscv64", "f sets what k tests", f"sb a5, 33(sp); ret; {K % 'lhu a5, 32(a1); ret'}", False),
    # Without frame pointers it is a register as any other.
    ("riscv64", "f sets what k tests", f"sb a5, 33(s0); ret; {K % 'lhu a5, 32(a1); ret'}", True),
    ("riscv64", "f looks only at 0|8", "ld a5, -24(s0); ret", True),
    ("riscv64", "f looks only at 0|8", "ld a5, 24(s0); ret", False),
    ("riscv64", "f looks only at 0|8", "ld a5, 0(a0); sd a5, 8(a1); sd ra, 40(sp); ret", True),
    ("riscv64", "f looks only at 0|8", "ld a5, 16(a0); ret", False),
    ("riscv64", "f looks only at 0|8", "ld a5, -8(a0); ret", False),
    ("riscv64", "f looks only at 8", "amoadd.w zero, a5, (a1); ret", False),
    ("riscv64", "f refers to g", "lla a0, g; ret", True),
    ("riscv64", "f refers to g", "lla a0, h; ret", False),
    ("riscv64", "only f|e calls g", "call g; ret", True),
    ("riscv64", "only f|e calls g", f"call g; ret; {K % 'call g; ret'}", False),
    ("riscv64", "only f|e calls g", f"call g; ret; {K % '.option norelax; call g; ret'}", False),
    ("riscv64", "only f|e calls g", f"call g; ret; {K % '.option norelax; tail g'}", False),
    ("riscv64", "only f|e calls g", f"call g; ret; {K % '.option norelax; lla a0, g; ret'}", False),
    ("riscv64", "only f|e calls g", f"call g; ret; {K % 'bltu a0, a1, g; ret'}", False),
    ("riscv64", "only f|e calls g", f"call g; ret; {K % 'bnez a0, g; ret'}", False),
    ("riscv64", "only f|e calls g", f"call g; ret; {K % 'j g'}", False),
    ("riscv64", "only f|e calls g", f"call g; ret; {K % 'call h; ret'}", True),
    ("arm64", "f heeds g", "bl g; mov w19, w0; cbnz w0, 1f; 1: ret", True),
    ("arm64", "f heeds g", "bl g; mov w0, #1; cbnz w0, 2f; 2: ret", False),
    ("arm64", "f heeds g", "bl g; str w0, [sp, #8]; cbnz w0, 1f; 1: ret", True),
    ("arm64", "f heeds g", "bl g; stxr w0, x1, [x2]; cbnz w0, 1f; 1: ret", False),
    ("arm64", "f clears before g", "str xzr, [x1]; bl g; ret", True),
    ("arm64", "f clears before g", "str xzr, [sp, #8]; bl g; ret", False),
    ("arm64", "f clears before g", "str x2, [x1]; bl g; str xzr, [x1]; ret", False),
    ("arm64", "f widens what g returns", "bl g; sxtw x0, w0; ret", True),
    ("arm64", "f passes on what g returns", "bl g; sxtw x0, w0; ret", False),
    ("arm64", "f passes on what g returns", "bl g; mov x19, x0; mov x0, x19; ret", True),
    *(("arm64", "f passes on what g returns",
       f"bl g; cbz x1, 2f; {reads}; sxtw x0, w0; ret; 2: ret", False) for reads in (
           "str x0, [sp, #8]", "stp x0, x1, [sp]", "cmp x0, #5", "cmp w0, #5", "cbz x0, 2f",
           "tbz x0, #3, 2f", ".arch armv8.1-a; ldadd x0, x1, [x2]")),
    ("arm64", "f passes on what g returns", "bl g; str x0, [sp, #8]; cbz x0, 2f; nop; 2: ret",
     True),
    ("arm64", "f passes on what g returns", "bl g; stxr w0, x1, [x2]; ret", False),
    ("riscv64", "f passes on what g returns", "call g; ret", False),        # it may be an int
    ("riscv64", "f heeds g", "call g; bnez a0, 1f; 1: ret", True),
    ("riscv64", "f heeds g", "call g; li a0, 1; bnez a0, 1f; 1: ret", False),
    ("riscv64", "f heeds g", "call g; sd a0, 8(sp); bnez a0, 1f; 1: ret", True),
    ("riscv64", "f heeds g", "call g; sc.d a0, a1, (a2); bnez a0, 1f; 1: ret", False),
    ("riscv64", "f clears before g", "sd zero, 0(a1); call g; ret", True),
    ("riscv64", "f clears before g", "sd zero, 8(sp); call g; ret", False),
    ("riscv64", "f clears before g", "sd a2, 0(a1); call g; sd zero, 0(a1); ret", False),
    ("arm64", "f calls g", "bl g; ret", True),
    ("arm64", "f calls g", "b g", True),
    ("arm64", "f calls g", "ret; bl g; ret", False),
    ("arm64", "f calls none of g", "ret; bl g; ret", False),
    ("arm64", "f calls nothing", "br x5", False),
    ("arm64", "f calls g before h", "cbz x0, 1f; bl g; 1: bl h; ret", False),
    ("arm64", "f calls g then h with the same", "add x0, sp, #16; bl g; add x0, sp, #16; bl h; ret",
     True),
    ("arm64", "f calls g then h with the same", "add x0, sp, #16; bl g; add x0, sp, #32; bl h; ret",
     False),
    ("arm64", "f calls h after g given 2 third", "bl g; mov w3, #0; mov w2, #2; bl h; ret", True),
    ("arm64", "f calls h after g given 2 third", "bl g; mov w2, #0; mov w3, #2; bl h; ret", False),
    ("arm64", "f tests no bit 7 before h", "tbz w0, #6, 1f; nop; 1: bl h; ret", True),
    ("arm64", "f tests no bit 7 before h", "tbz w0, #7, 1f; nop; 1: bl h; ret", False),
    ("riscv64", "f calls h after g given 2 third", "call g; li a2, 2; call h; ret", True),
    ("riscv64", "f tests no bit 7 before h", "andi a4, a5, 128; beqz a4, 1f; nop; 1: call h; ret",
     False),
])
def test_other_architectures(kind: str, form: str, code: str, true: bool) -> None:
    tools = f"{arch.load(kind).triplet}-gcc"
    if not shutil.which(tools):
        pytest.skip(f"no {tools}: apt install gcc-{arch.load(kind).triplet}")
    assert seen(f"fn f; {code}", form, kind=kind) == true


def test_riscv64_needs_a_disassembler(monkeypatch: pytest.MonkeyPatch) -> None:
    image = dataclasses.replace(assembled(KERNEL), arch="riscv64")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabError, match="riscv64-linux-gnu-objdump is not installed: "
                       "apt install binutils-riscv64-linux-gnu"):
        Code(image)


def test_names_in_forms() -> None:
    names = ("LOCK = g|h",)
    assert rules.parse("f calls LOCK", names)[0].text == "f calls g|h"
    assert rules.parse("f calls BLOCK", names)[0].text == "f calls BLOCK"
    with pytest.raises(LabError, match="that is no name"):
        rules.parse("f calls g", ("lock: g",))


def test_code_that_cannot_be_read_is_one_clear_line() -> None:
    image = dataclasses.replace(assembled(KERNEL), arch="mips64")
    with pytest.raises(LabError, match="vmlinuz: the code of mips64 cannot be read.*KERNEL="):
        Code(image)


def astray(**binary: object) -> defects.Defect:
    one = defects.load("pmd-share-migrate")
    return dataclasses.replace(one, shares_tables=False, binary=defects.Binary(
        look="f()", **binary))      # type: ignore[arg-type]


def test_decisions() -> None:
    image = Code(assembled(KERNEL + "fn f; call g; ret"))

    def say(**binary: object) -> str:
        return decide.decide(image, astray(**binary)).status
    yes, no = ("f calls g",), ("f calls h",)
    assert say(protected=yes, vulnerable=no) == PROTECTED
    assert say(protected=no, vulnerable=yes) == VULNERABLE
    assert say(protected=no, vulnerable=no) == UNKNOWN
    assert say(protected=yes, vulnerable=yes) == UNKNOWN
    assert say(protected=yes, unaffected=yes) == NOT_AFFECTED
    assert say(undecided="flags") == UNKNOWN
    said = decide.decide(image, astray(undecided="flags decide"))
    assert said.why == "flags decide; look at f()"
    assert decide.decide(image, dataclasses.replace(astray(), binary=None)).status == UNKNOWN
    places = decide.decide(image, astray(protected=yes)).places
    assert places == ("f+0x0 calls g",)


def test_a_kernel_that_shares_no_table() -> None:
    one = dataclasses.replace(astray(vulnerable=("f calls g",), undecided="flags"),
                              shares_tables=True)
    text = KERNEL + "fn f; call g; ret\nfn hugetlb_fault; ret\nfn huge_pmd_share; "
    assert decide.decide(Code(assembled(text + "xor %eax, %eax; ret")), one).status \
        == NOT_AFFECTED
    assert decide.decide(Code(assembled(text + "call h; ret")), one).status == VULNERABLE


def test_all_defects_say_what_code_tells_of_them() -> None:
    known = [defects.load(name) for name in defects.names()]
    assert [one.name for one in known if one.audit and not one.binary] == []
    # None of them is protected by what is missing, or by what is just there.
    for one in known:
        for form in one.binary.protected if one.binary else ():
            conditions = [each.text for each in rules.parse(form, one.binary.names)] \
                if one.binary else []
            assert any(" calls " in text and "none of" not in text and " no " not in text
                       or " counts " in text or " reads what " in text or " uses " in text
                       or " heeds of a page what " in text or " clears before " in text
                       or " heeds " in text or " passes on " in text
                       for text in conditions), (one.name, form)
            # Which of all semaphores it is, is said; and that one is taken is not enough.
            for said in conditions:
                locks = [word for word in re.split("[ |]", said)
                         if re.match(r"(?:down|up)_(?:read|write)|mutex_|_raw_spin|spin_", word)]
                assert not locks or " calls none of " in said or (
                    all("@" in word for word in locks)
                    and re.search(" held at | kept to | from .* to | after ", said)
                    or "vma_prepare calls " in said
                    # Here it is not the lock that protects.
                    ) or " held at down_write by __lock_page" in said, (one.name, form)


# What the kernels below have in common.
SHARES = """
fn huge_pmd_share; call h; ret
fn hugetlb_vma_trylock_write; ret
fn move_hugetlb_page_tables; ret
fn migrate_pages; ret
fn do_migrate_pages; ret
fn memory_failure; ret
fn up_write; ret
fn unlink_file_vma; lea 0x58(%rax), %rdi; call down_write; ret
"""
DOWN, UP = "lea 0x58(%rbx), %rdi; call down_write", "lea 0x58(%rbx), %rdi; call up_write"
OTHER = "lea 0x10(%rbx), %rdi; call down_write"


def kernel(text: str) -> Code:
    """A kernel that shares tables, with functions of `text`, and what they call and it has not."""
    whole = KERNEL + SHARES + text + "\n"
    for name in (*re.findall(r"\bcall (\w+)", whole), "hugetlb_fault", "try_to_unmap_one"):
        whole += f"fn {name}; ret\n" if f"fn {name};" not in whole else ""
    # Of two of one name the later is meant.
    lines = {line.partition(";")[0]: line for line in whole.strip().splitlines()}
    return Code(assembled("\n".join(lines.values())))


FIXUP = "fn fixup_hugetlb_reservations; {}; ret"
HOLE = ("fn hugetlbfs_zero_partial_page; call __filemap_get_folio; ret\n"
        "fn hugetlbfs_fallocate; {}; ret")
ZERO, DELETE = "call hugetlbfs_zero_partial_page", "call hugetlb_vmdelete_list"
UNSHARES = "fn try_to_migrate_one; call huge_pmd_unshare; ret\n"
WALKERS = UNSHARES + "fn migrate_pages; {}; ret\nfn hwpoison_user_mappings; {}; ret"
TRY, MIGRATE, UNMAP = ("call hugetlb_folio_mapping_lock_write", "call try_to_migrate",
                       "call try_to_unmap")
FAULT = "fn hugetlb_fault; {}; ret\nfn try_to_migrate_one; {}; ret\nfn try_to_unmap_one; {}; ret"
READ, ALLOCATE, READ_NO_MORE = ("call hugetlb_vma_lock_read", "call huge_pte_alloc",
                                "call hugetlb_vma_unlock_read")
TAKE, UNSHARE, GIVE = ("call hugetlb_vma_trylock_write", "call huge_pmd_unshare",
                       "call hugetlb_vma_unlock_write")
LOCKED = "; ".join((TAKE, UNSHARE, GIVE))
SPLIT = (f"fn vma_prepare; {DOWN}; ret\nfn hugetlb_split; call hugetlb_unshare_pmds; ret\n"
         "fn hugetlb_unshare_pmds; call huge_pmd_unshare; ret\nfn __split_vma; {}; ret")
PREPARE, HALVE, COMPLETE = "call vma_prepare", "call hugetlb_split", "call vma_complete"
NOTIFIER = "fn try_to_migrate_one; {}; ret\nfn try_to_unmap_one; {}; ret"
TELL, LOOK, END = ("call adjust_range_if_pmd_sharing_possible; mov 8(%rbx), %eax; "
                    "test %eax, %eax; je 3f; call __mmu_notifier_invalidate_range_start; 3:",
                    "call page_vma_mapped_walk; test %eax, %eax",
                    "mov 8(%rbx), %eax; test %eax, %eax; je 4f; "
                    "call __mmu_notifier_invalidate_range_end; 4:")
TOLD = f"{TELL} 0: {LOOK}; je 1f; {UNSHARE}; test %eax, %eax; je 0b; 1: {END} nop"
GUP = "fn huge_pmd_unshare; {}; call put_page; ret"
CLEAR, WAIT = "movq $0, (%rbx)", "call tlb_remove_table_sync_one"
ADDS = "fn add_folio_for_migration; {}; 1: ret"
ASK, ISOLATE = "call hugetlb_pmd_shared", "call isolate_hugetlb"
COW = ("fn do_huge_pmd_anonymous_page; ret\n"
       "fn isolate_migratepages_block; call isolate_or_dissolve_huge_page; {}; 1: ret")
PROTECT = "fn hugetlb_change_protection; ret\nfn mprotect_fixup; {}; ret"
SET = "call vma_set_page_prot"
COUNT = ("fn huge_pmd_share; {}; lock incl 0x20(%rax); ret\n"
         "fn ___free_pages; lock decl 0x34(%rdi); ret\nfn huge_pmd_unshare; {}; ret")
FLUSH = ("fn huge_pmd_unshare_flush; call tlb_flush_unshared_tables; ret\n"
         "fn tlb_flush_unshared_tables; testw $0x8f4, 0x20(%rdi); call flush_tlb_mm_range; ret\n"
         "fn huge_pmd_unshare; orb $8, 0x21(%rdi); ret\nfn __unmap_hugepage_range; "
         "push %rbx; mov %rdi, %rbx; call huge_pmd_unshare; mov %rbx, %rdi; "
         "call huge_pmd_unshare_flush; ret\nfn hugetlb_change_protection; lea {}(%rsp), %rdi; "
         "call huge_pmd_unshare; lea 0x40(%rsp), %rdi; call tlb_flush_unshared_tables; ret")
PENDING = ("fn change_protection_range; {}; ret\n"
           "fn change_protection; ret\n"
           "fn ptep_clear_flush; mov 0x30(%rax), %eax; test %eax, %eax; ret")


LARGE = "fn move_page_tables; {}; ret"
MOVE_ALL = "call move_hugetlb_page_tables"
PUNCH = "fn remove_inode_hugepages; {}; ret"
MUTEX, RWSEM = "call mutex_unlock", "call down_write"
LOCK_PAGE, UNLOCK_PAGE = ("lock bts $0, (%rbx); jae 2f; call __lock_page; 2: nop",
                          "call unlock_page")


UP_COUNT, DOWN_COUNT = "lock incl 0x30(%rbx)", "lock decl 0x30(%rbx)"
WALK, OFFSET = "call vm_normal_page", "call huge_pte_offset"
GATHER, FINISH = "call tlb_gather_mmu", "call tlb_finish_mmu"
COUNTS = ("fn tlb_gather_mmu; lock incl 0x30(%rdi); ret\nfn tlb_finish_mmu; lock decl 0x30(%rdi); "
          "ret\nfn ptep_clear_flush; mov 0x30(%rax), %eax; test %eax, %eax; ret\n")
GATHERED = COUNTS + ("fn change_protection; call hugetlb_change_protection; ret\n"
                     "fn do_mprotect_pkey; {}; ret\nfn change_prot_numa; {}; ret")
CHANGES = COUNTS + ("fn tlb_gather_mmu_vma; lock incl 0x30(%rdi); ret\n"
                    "fn hugetlb_change_protection; {}; ret")
NOTIFY, FLUSH_SHARERS, RMAP_WALK, CLEAR_ENTRY = (
    "call hugetlb_sharers_notify", "call hugetlb_sharers_flush", "call rmap_walk_file",
    "call ptep_clear_flush")
SHARE = ("fn hugetlb_sharers_notify; call __mmu_notifier_invalidate_range_start; "
         "call __mmu_notifier_invalidate_range_end; ret\n"
         "fn hugetlb_sharers_flush; call huge_pte_offset; call flush_tlb_mm_range; ret\n")
SHARERS_TOLD = SHARE + "fn try_to_unmap_one; {}; ret"
SHARERS_OF_ONE = SHARE + ("fn try_to_migrate_one; {}; ret\n"
                          "fn try_to_unmap_poisoned_hugetlb_one; {}; ret")
SHARERS = SHARE + ("fn try_to_migrate_one; ret\nfn try_to_migrate; call rmap_walk_sharers; ret\n"
                   "fn try_to_unmap; call rmap_walk_sharers; ret\nfn rmap_walk_sharers; {}; ret")
STACK = ("fn try_to_migrate; lea invalid_migration_vma(%rip), %rdi; ret\n"
         "fn invalid_migration_vma; {}; ret")
TEMPORARY = "call vma_is_temporary_stack"
LOCK_ALLOC, KMALLOC = "fn hugetlb_vma_lock_alloc; {}; ret", "call kmalloc_trace"
WIDENS = ("fn adjust_range_if_pmd_sharing_possible; mov $0x3fffffff, %ecx; "
          "mov $0xffffffffc0000000, %r8; {}; ret")
ROUND_START = "mov (%rsi), %rax; and %r8, %rax; mov %rax, (%rsi)"
ROUND_END = "mov (%rdx), %rax; add %rcx, %rax; and %r8, %rax; mov %rax, (%rdx)"
PAGES = ("\nfn huge_pmd_share; lock incl 0x20(%rax); call h; ret\n"
         "fn __free_pages; lock decl 0x34(%rdi); ret\nfn do_migrate_pages; ret")
QUEUES = "fn queue_folios_hugetlb; {}; 1: ret" + PAGES
COUNTED = "shr $12, %rdi; add 8(%rip), %rdi"
MAPPED = "call page_mapped"
FALLOCATE = "\nfn hugetlbfs_fallocate; ret"


@pytest.mark.parametrize("name, kernel_of, right, broken", [
    ("hugetlb-mremap-large", LARGE, ((MOVE_ALL, "mov %rax, %rbx; mov %rbx, %rax"),), [
        ((MOVE_ALL, "cltq"),),
        ((MOVE_ALL, "mov %eax, %ebx; movslq %ebx, %rax"),)]),
    ("hugetlb-punch-fault", PUNCH.replace("{}", "0: {}; call unlock_page; jmp 0b"),
     ((LOCK_PAGE, UNLOCK_PAGE, MUTEX, RWSEM),), [
         ((LOCK_PAGE, MUTEX, RWSEM),),
         ((LOCK_PAGE, MUTEX, RWSEM, UNLOCK_PAGE),),
         ((UNLOCK_PAGE, "call __lock_page", MUTEX, RWSEM),)]),
    ("hugetlb-mremap-private", FIXUP, ((DOWN, "call clear_vma_resv_huge_pages", UP),), [
        ((DOWN, UP, "call clear_vma_resv_huge_pages"),),
        ((OTHER, "call clear_vma_resv_huge_pages", UP),),
        (("test %eax, %eax; je 1f", DOWN, "1: call clear_vma_resv_huge_pages", UP),)]),
    ("hugetlb-punch-poison", HOLE, ((ZERO, DOWN, DELETE, UP),), [
        # The second time it is remove_inode_hugepages(), inlined.
        ((DOWN, ZERO, DELETE, UP, DOWN, DELETE, UP),),
        ((ZERO, DOWN, DELETE, ZERO, UP),),
        ((ZERO, DOWN, UP, DELETE),)]),
    ("pmd-share-walkers", WALKERS, ((TRY, MIGRATE, UP), (TRY, UNMAP, UP)), [
        ((MIGRATE, TRY, UP), (TRY, UNMAP, UP)),
        ((TRY, UP, MIGRATE), (TRY, UNMAP, UP)),
        ((TRY, MIGRATE, UP), (UNMAP,)),
        ((TRY, MIGRATE, UP), (UNMAP, TRY, UP))]),
    ("pmd-share-fault", FAULT, ((READ, ALLOCATE, READ_NO_MORE), (LOCKED,), (LOCKED,)), [
        ((READ, READ_NO_MORE, ALLOCATE), (LOCKED,), (LOCKED,)),
        ((READ, ALLOCATE, READ_NO_MORE), (TAKE, GIVE, UNSHARE), (LOCKED,)),
        ((READ, ALLOCATE, READ_NO_MORE), (LOCKED,), (TAKE, GIVE, UNSHARE))]),
    ("pmd-share-split", SPLIT, ((PREPARE, HALVE, COMPLETE),), [
        ((PREPARE, COMPLETE, HALVE),)]),
    ("pmd-share-notifier", NOTIFIER, ((TOLD,), (TOLD,)), [
        ((f"0: {LOOK}; je 1f; {UNSHARE}; {TELL} jmp 0b; 1: nop",), (TOLD,)),
        ((TOLD,), (f"{TELL} 0: {LOOK}; je 1f; {UNSHARE}; test %eax, %eax; je 0b; ret; "
                   f"1: {END} nop",)),
        ((TOLD,), (f"{TELL} {END} 0: {LOOK}; je 1f; {UNSHARE}; jmp 0b; 1: {END} nop",))]),
    ("pmd-share-gup", GUP, ((CLEAR, WAIT),), [
        ((WAIT, CLEAR),),
        # By paravirtualization; which of them clears is not known.
        (("call *(%rax)", WAIT, "call *(%rax)"),)]),
    ("pmd-share-move-pages", ADDS, ((ASK, "test %eax, %eax; jne 1f", ISOLATE),), [
        ((ISOLATE, ASK),),
        ((ASK, "mov %ebx, %eax; test %eax, %eax; jne 1f", ISOLATE),),
        ((ISOLATE, ASK, "test %eax, %eax; jne 1f"),)]),
    ("thp-cow-isolation", COW, (("call folio_mapcount", "cmp %eax, 8(%rsp); jg 1f", "nop"),), [
        (("call folio_mapcount", "xor %eax, %eax"),)]),
    ("pmd-share-protect", PROTECT, ((DOWN, SET, UP),), [
        ((DOWN, UP, SET),)]),
    ("pmd-share-count", COUNT, (("call h",), ("lock decl 0x20(%rax)",)), [
        (("call folio_try_get",), ("lock decl 0x20(%rax)",)),
        (("call h",), ("lock decl 0x34(%rax)",)),
        (("call h",), ("nop",))]),
    ("pmd-share-flush", FLUSH, (("0x40",),), [
        (("0x80",),)]),
    ("thp-numa-pending", PENDING, ((UP_COUNT, WALK, DOWN_COUNT),), [
        ((UP_COUNT, DOWN_COUNT, WALK),),
        ((DOWN_COUNT, UP_COUNT.replace("0x30", "0x34"), WALK),),
        ((DOWN_COUNT, WALK, UP_COUNT),),
        ((WALK, UP_COUNT, DOWN_COUNT),)]),
    ("thp-numa-pending", GATHERED,
     ((GATHER, "call mprotect_fixup", FINISH), (GATHER, "call change_protection", FINISH)), [
         ((GATHER, FINISH, "call mprotect_fixup"), (GATHER, "call change_protection", FINISH)),
         ((GATHER, "call mprotect_fixup", FINISH), (GATHER, FINISH, "call change_protection"))]),
    ("hugetlb-mprotect-pending", GATHERED,
     ((GATHER, "call mprotect_fixup", FINISH), ("nop",)), [
         ((GATHER, FINISH, "call mprotect_fixup"), ("nop",))]),
    ("hugetlb-mprotect-pending", CHANGES, ((GATHER + "_vma", OFFSET, FINISH),), [
        ((GATHER + "_vma", FINISH, OFFSET),),
        ((OFFSET, GATHER + "_vma", FINISH),)]),
    ("hugetlb-mprotect-pending", CHANGES, ((UP_COUNT, OFFSET, DOWN_COUNT),), [
        ((UP_COUNT, DOWN_COUNT, OFFSET),),
        ((DOWN_COUNT, OFFSET, UP_COUNT),)]),
    ("pmd-share-notifier", SHARERS_TOLD, ((NOTIFY, LOOK, NOTIFY),), [
        ((LOOK, NOTIFY, NOTIFY),),
        ((NOTIFY, NOTIFY, LOOK),)]),
    ("pmd-share-notifier", SHARERS, ((NOTIFY, RMAP_WALK, NOTIFY),), [
        ((RMAP_WALK, NOTIFY, NOTIFY),),
        ((NOTIFY, RMAP_WALK),),
        (("test %eax, %eax; je 1f", NOTIFY, "1:", RMAP_WALK, NOTIFY),),
        ((NOTIFY, RMAP_WALK, "test %eax, %eax; je 1f; call other; ret; 1: call h", NOTIFY),)]),
    ("pmd-share-migrate", SHARERS_TOLD, ((LOOK, CLEAR_ENTRY, FLUSH_SHARERS),), [
        ((FLUSH_SHARERS, LOOK, CLEAR_ENTRY),),
        ((LOOK, FLUSH_SHARERS, CLEAR_ENTRY),)]),
    ("pmd-share-migrate", SHARERS, ((NOTIFY, RMAP_WALK, FLUSH_SHARERS, NOTIFY),), [
        ((NOTIFY, FLUSH_SHARERS, RMAP_WALK, NOTIFY),),
        ((NOTIFY, RMAP_WALK, NOTIFY, FLUSH_SHARERS),),
        ((NOTIFY, RMAP_WALK, "test %eax, %eax; je 1f; call other; ret; 1: call h", FLUSH_SHARERS,
          NOTIFY),)]),
    ("exec-temp-stack", STACK, ((TEMPORARY, "test %al, %al; sete %al"),), [
        ((TEMPORARY, "xor %eax, %eax"),)]),
    ("exec-temp-stack", STACK, ((TEMPORARY, "nop"),), [
        ((TEMPORARY, "mov %ebx, %eax"),)]),
    ("pmd-share-no-lock", LOCK_ALLOC, (("mov $0x8cc0, %esi", KMALLOC),), [
        (("mov $0xcc0, %esi", "mov $0x8cc0, %eax", KMALLOC),),
        (("mov $0xcc0, %esi", KMALLOC, "mov $0x8cc0, %esi"),)]),
    ("pmd-share-range", WIDENS, ((ROUND_START, ROUND_END),), [
        (("nop",),),
        ((ROUND_START, ROUND_START),),
        ((ROUND_END, ROUND_END),)]),
    ("pmd-share-move-all", QUEUES, ((COUNTED, "cmpl $0, 0x20(%rdi); jne 1f", ISOLATE),), [
        ((COUNTED, "mov 0x20(%rdi), %eax", ISOLATE),),
        ((COUNTED, ISOLATE, "mov 0x20(%rdi), %eax"),),
        ((COUNTED, ISOLATE, "cmpl $0, 0x20(%rdi); jne 1f"),)]),
    ("pmd-share-move-pages", ADDS + PAGES,
     ((COUNTED, "cmpl $0, 0x20(%rdi); jne 1f", ISOLATE),), [
         ((COUNTED, "mov 0x20(%rdi), %eax", ISOLATE),),
         ((COUNTED, ISOLATE, "cmpl $0, 0x20(%rdi); jne 1f"),)]),
    ("hugetlb-punch-migrate", PUNCH + FALLOCATE, ((LOCK_PAGE, MAPPED, DELETE),), [
        ((MAPPED, DELETE, LOCK_PAGE),),
        ((MAPPED, LOCK_PAGE, DELETE),),
        ((DELETE, LOCK_PAGE, MAPPED),)]),
    ("pmd-share-notifier", SHARERS_OF_ONE, ((NOTIFY, LOOK, NOTIFY), (NOTIFY, LOOK, NOTIFY)), [
        ((LOOK, NOTIFY, NOTIFY), (NOTIFY, LOOK, NOTIFY)),
        ((NOTIFY, LOOK, NOTIFY), (NOTIFY, LOOK))]),
    ("pmd-share-migrate", SHARERS_OF_ONE,
     ((LOOK, CLEAR_ENTRY, FLUSH_SHARERS), (LOOK, CLEAR_ENTRY, FLUSH_SHARERS)), [
         ((LOOK, FLUSH_SHARERS, CLEAR_ENTRY), (LOOK, CLEAR_ENTRY, FLUSH_SHARERS)),
         ((LOOK, CLEAR_ENTRY, FLUSH_SHARERS), (LOOK, FLUSH_SHARERS, CLEAR_ENTRY))]),
])
def test_protected_by_what_is_in_its_place(name: str, kernel_of: str,
                                           right: tuple[tuple[str, ...], ...],
                                           broken: list[tuple[tuple[str, ...], ...]]) -> None:
    """All calls that a fix has are there, and are of no use where they are."""
    defect = defects.load(name)

    def say(parts: tuple[tuple[str, ...], ...]) -> str:
        return decide.decide(kernel(kernel_of.format(*map("; ".join, parts))), defect).status
    assert say(right) == PROTECTED
    for parts in broken:
        assert say(parts) in (UNKNOWN, VULNERABLE), parts


ASKS = "fn __vma_reservation_common; testb $0x80, 0x20(%rsi); jne 1f; call g; 1: ret\n"


@pytest.mark.parametrize("code, true", (
    ("testb $0x80, 0x20(%rbx); je 1f; call h; ret; 1: call other; ret", True),
    ("cmpb $0, 0x20(%rbx); js 1f; call other; ret; 1: call h; ret", True),
    ("mov 0x20(%rbx), %rax; test $2, %al; je 2f; test %al, %al; js 1f; 2: call other; ret; "
     "1: call h; ret", True),
    # By a pointer, as paravirtualization makes an entry.
    ("testb $0x80, 0x20(%rbx); je 1f; call *(%rax); call h; ret; 1: call other; ret", True),
    # Something else comes first.
    ("testb $0x80, 0x20(%rbx); je 1f; call g; call h; ret; 1: call other; ret", False),
    # Another word, bit, or value; or nothing is decided by it.
    ("testb $0x80, 0x28(%rbx); je 1f; call h; ret; 1: call other; ret", False),
    ("testb $0x40, 0x20(%rbx); je 1f; call h; ret; 1: call other; ret", False),
    ("mov 0x20(%rbx), %rax; test $0x80, %ah; je 1f; call h; ret; 1: call other; ret", False),
    ("mov 0x20(%rbx), %rax; mov %rcx, %rax; test $0x80, %al; je 1f; call h; ret; 1: call other; ret",
     False),
    ("testb $0x80, 0x20(%rbx); sete %al; call h; ret; 1: call other; ret", False)))
def test_a_bit_that_leads_to_a_call(code: str, true: bool) -> None:
    assert seen(f"{ASKS}fn f; {code}", "f comes to h by bit 7 that __vma_reservation_common tests") \
        is true


@pytest.mark.parametrize("kind, code", (
    ("arm64", "fn g7; ldr x1, [x1, #32]; tbz w1, #7, 1f; bl g; 1: ret\n"
              "fn f; ldr x0, [x19, #32]; tbz w0, #1, 2f; tbnz w0, #7, 1f; 2: bl other; ret; 1: bl h; ret"),
    ("riscv64", "fn g7; ld a5, 32(a1); andi a5, a5, 128; beqz a5, 1f; call g; 1: ret\n"
                "fn f; ld a5, 32(s2); andi a4, a5, 2; beqz a4, 2f; andi a5, a5, 128; bnez a5, 1f; "
                "2: call other; ret; 1: call h; ret")))
def test_a_bit_that_leads_to_a_call_elsewhere(kind: str, code: str) -> None:
    tools = f"{arch.load(kind).triplet}-gcc"
    if not shutil.which(tools):
        pytest.skip(f"no {tools}: apt install gcc-{arch.load(kind).triplet}")
    assert seen(code, "f comes to h by bit 7 that g7 tests", kind=kind)
    assert not seen(code, "f comes to h by bit 6 that g7 tests", kind=kind)


COPIES = (ASKS + "fn hugetlb_fault; call hugetlb_wp; ret\n"
          "fn hugetlb_wp; {}; call __page_mapcount; cmp $1, %eax; je 9f; call alloc_huge_page; ret; "
          "9: call ptep_set_access_flags; ret")
MAY_SHARE = "testb $0x80, 0x20(%rbx); je 1f; call {}; ret; 1: nop"


@pytest.mark.parametrize("first, status", (
    (MAY_SHARE.format("ptep_set_access_flags"), PROTECTED), ("nop", VULNERABLE),
    # What it asks for is for something else.
    (MAY_SHARE.format("h"), UNKNOWN),
    (MAY_SHARE.format("ptep_set_access_flags").replace("0x20", "0x28"), UNKNOWN)))
def test_a_write_to_a_shared_mapping_is_not_copied(first: str, status: str) -> None:
    image = kernel(COPIES.format(first))
    assert decide.decide(image, defects.load("pmd-share-mprotect")).status == status


RESERVE, LOOKUP = "call __vma_reservation_common", "call pagecache_get_page"
LOCKED_PAGE, GOT_PAGE = f"mov $2, %edx; {LOOKUP}", f"xor %edx, %edx; {LOOKUP}"
# hugetlb_no_page() is a part of it.
MAKES = f"test %eax, %eax; jne 5f; {LOCKED_PAGE}; call alloc_huge_page; {RESERVE}; jmp 7f"
FAULTS = ("fn hugetlb_fault; {}; 5: {}; call hugetlb_wp; 7: ret\n"
          "fn hugetlb_wp; call alloc_huge_page; {}; ret")


@pytest.mark.parametrize("parts, status", (
    ((MAKES, f"{RESERVE}; {LOCKED_PAGE}", "call mutex_unlock"), VULNERABLE),
    ((MAKES, f"{RESERVE}; {GOT_PAGE}", "call mutex_unlock"), PROTECTED),
    ((MAKES, RESERVE, "call mutex_unlock"), PROTECTED),
    ((MAKES, f"{RESERVE}; {LOCKED_PAGE}", "nop"), NOT_AFFECTED),
    # It finds the page, and locks it after that, or before it asks for a reservation.
    ((MAKES, f"{RESERVE}; {GOT_PAGE}; call __lock_page", "call mutex_unlock"), UNKNOWN),
    ((MAKES, f"{LOCKED_PAGE}; {RESERVE}", "call mutex_unlock"), UNKNOWN),
    # Who copies does it.
    ((MAKES, RESERVE, f"call mutex_unlock; {LOCKED_PAGE}"), UNKNOWN),
    (("call hugetlb_no_page", RESERVE, "call mutex_unlock"), PROTECTED),
    (("call hugetlb_no_page", f"{RESERVE}; {LOCKED_PAGE}", "call mutex_unlock"), VULNERABLE),
    (("call hugetlb_no_page", f"{LOCKED_PAGE}; {RESERVE}", "call mutex_unlock"), UNKNOWN)))
def test_who_copies_a_page_has_that_of_the_file_locked(parts: tuple[str, ...], status: str) -> None:
    image = kernel(FAULTS.format(*parts))
    assert decide.decide(image, defects.load("hugetlb-cow-fault")).status == status


LEFT = ("{}fn try_to_migrate_one; call g; ret\nfn try_to_unmap_one; call {}; ret\n"
        "fn hugetlb_change_protection; {}; ret\nfn mprotect_fixup; {}; ret")
ITSELF = f"{SET}; call change_protection"
SHARES_ON = "fn hugetlb_sharers_flush; call huge_pte_offset; ret\n"


@pytest.mark.parametrize("parts, status", (
    ((SHARES_ON, "g", f"{DOWN}; {SET}; {UP}", "call hugetlb_change_protection"), PROTECTED),
    ((SHARES_ON, "g", "nop", ITSELF), VULNERABLE),
    # It does not say when it sets them.
    ((SHARES_ON, "g", f"{DOWN}; {UP}; {SET}", "call hugetlb_change_protection"), UNKNOWN),
    # One of the walks takes tables apart all the same.
    ((SHARES_ON, "huge_pmd_unshare", f"{DOWN}; {SET}; {UP}", "call hugetlb_change_protection"),
     UNKNOWN),
    # Nobody is said to leave tables shared.
    (("", "g", "nop", ITSELF), NOT_AFFECTED)))
def test_who_leaves_tables_shared_restores_what_suits_all(parts: tuple[str, ...], status: str) -> None:
    """pmd-share-walkers: no walk takes a table apart, and what it puts back may still be wrong."""
    image = kernel(LEFT.format(*parts))
    assert decide.decide(image, defects.load("pmd-share-walkers")).status == status


@pytest.mark.parametrize("fault, handles, maps, status", (
    ("lea 0x30(%rbx), %rdi; call down_read", "nop", "call hugetlb_page_mapping_lock_write",
     VULNERABLE),
    ("lea 0x8(%rbx), %rdi; call down_read", "nop", "call hugetlb_page_mapping_lock_write",
     NOT_AFFECTED),
    # Which lock it is, nobody knows.
    ("mov 8(%rsp), %rdi; call down_read", "nop", "call hugetlb_page_mapping_lock_write", UNKNOWN),
    # Who handles the error takes the lock before he locks the page.
    ("lea 0x30(%rbx), %rdi; call down_read", "lea 0x30(%rbx), %rdi; call down_write", "nop",
     UNKNOWN)))
def test_a_fault_that_waits_with_the_lock_of_the_file(fault: str, handles: str, maps: str,
                                                      status: str) -> None:
    """Another lock may be there as well, and who tries to take that has a name."""
    image = kernel(f"fn hugetlb_fault; {fault}; call __lock_page; ret\n"
                   "fn hugetlb_vma_trylock_write; ret\n"
                   "fn unlink_file_vma; lea 0x30(%rax), %rdi; call down_write; ret\n"
                   "fn collect_procs_file; lea 0x30(%rax), %rdi; call down_read; ret\n"
                   f"fn hwpoison_user_mappings; call collect_procs_file; {maps}; ret\n"
                   f"fn memory_failure; {handles}; call hwpoison_user_mappings; ret")
    assert decide.decide(image, defects.load("hugetlb-fault-poison")).status == status


def test_a_page_of_a_hole_is_locked_too_late() -> None:
    text = (PUNCH + FALLOCATE).format("; ".join((MAPPED, "test %eax, %eax; je 1f", DELETE, "1:",
                                                 LOCK_PAGE)))
    assert decide.decide(kernel(text), defects.load("hugetlb-punch-migrate")).status == VULNERABLE


def test_a_hole_is_zeroed_with_the_lock() -> None:
    text = HOLE.format("; ".join((DOWN, ZERO, DELETE, UP, DOWN, DELETE, UP)))
    assert decide.decide(kernel(text), defects.load("hugetlb-punch-poison")).status == VULNERABLE


def test_a_fix_that_was_taken_over_is_not_another_kernel() -> None:
    """A vendor may zero a part of a page, and have no folios."""
    text = HOLE.replace("call __filemap_get_folio; ", "")
    text = text.format("; ".join((DOWN, ZERO, DELETE, UP)))
    assert decide.decide(kernel(text), defects.load("hugetlb-punch-poison")).status == VULNERABLE


def test_who_calls_may_have_the_lock() -> None:
    one = defects.load("hugetlb-mremap-private")
    fixup = FIXUP.format("call clear_vma_resv_huge_pages") + "\nfn move_vma; {}; ret"
    call = "call fixup_hugetlb_reservations"
    assert decide.decide(kernel(fixup.format("; ".join((DOWN, call, UP)))), one).status == UNKNOWN
    assert decide.decide(kernel(fixup.format(call)), one).status == VULNERABLE
    # Up to 6.12 there is no such function.
    move = "fn move_vma; {}; ret"
    clear = "call clear_vma_resv_huge_pages"
    assert decide.decide(kernel(move.format("; ".join((DOWN, clear, UP)))), one).status == PROTECTED
    assert decide.decide(kernel(move.format("; ".join((DOWN, UP, clear)))), one).status == UNKNOWN
    locks = f"\nfn clear_vma_resv_huge_pages; {DOWN}; ret"
    assert decide.decide(kernel(move.format(clear) + locks), one).status == UNKNOWN
    call = f"\nfn mremap_to; {DOWN}; call move_vma; {UP}; ret"
    assert decide.decide(kernel(move.format(clear) + call), one).status == UNKNOWN
    assert decide.decide(kernel(move.format(clear) + "\nfn mremap_to; call move_vma; ret"),
                         one).status == VULNERABLE


@pytest.mark.parametrize("mutant, image, status, line", [
    ("kvm-not-told", True, 0, "6.1 x86_64 kvm-not-told: pmd-share-notifier unknown"),
    ("kvm-not-told", False, 1, "6.1 x86_64 kvm-not-told: left out: "),
    ("flush-one-page", True, 1, "6.1 x86_64 flush-one-page: no row is about it"),
    ("none-such", True, 1, "6.1 x86_64 none-such: MUTANTS has no such mutant"),
    ("", True, 1, "the cache has no image of a mutant")])
def test_images_of_mutants_are_looked_at(
        mutant: str, image: bool, status: int, line: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """That none is is no success."""
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    how = f"queue/6.1 (0123), and mutants/{mutant}" if mutant else "as it is"
    (folder / "identity.json").write_text(json.dumps(
        {"how": how, "version": "6.1", "arch": "x86_64"}))
    (folder / "image").write_bytes(kernels.vmlinux() if image else b"\x5a" * 100)
    monkeypatch.setattr(binary_truth, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["binary_truth.py", "--mutants"])
    assert binary_truth.main() == status
    said = capsys.readouterr()
    assert said.out.startswith(line) and bool(said.err) == bool(status)


def test_each_mutant_has_its_rows_or_is_outside_the_audit() -> None:
    assert sorted(binary_truth.MUTANTS) == sorted(
        path.name for path in (HOME / "mutants").iterdir() if path.is_dir())
    for name, rows in binary_truth.MUTANTS.items():
        for row in rows.split():
            one = defects.load(row)
            assert one.binary and one.binary.protected, (name, row)


def test_how_many_images_of_which_release_there_were() -> None:
    counted = binary_truth.Counter({("6.12", "arm64"): 3, ("5.4", "x86_64"): 2,
                                    ("6.12", "x86_64"): 1})
    assert [line.split() for line in binary_truth.releases_of(counted, False)] == [
        ["release", "arm64", "x86_64"], ["5.4", "0", "2"], ["6.12", "3", "1"], ["all", "3", "3"]]
    assert len(binary_truth.releases_of(counted, True)) == 7
    # Of a kernel that is no release yet, too.
    counted["7.4-rc2", "arm64"] = 1
    assert binary_truth.releases_of(counted, False)[3].split() == ["7.4-rc2", "1", "0"]


def test_two_calls_change_places() -> None:
    image = assembled(KERNEL + "fn f; call g; call h; call g; jmp other")

    def swapped(one: str, other: str) -> list[str]:
        made = binary_truth.with_each_other(image, Code(image), "f", one, other)
        calls = Code(made).functions("f")[0].calls if made else {}
        return [min(calls[at].names) for at in sorted(calls)]
    # Only the two that are nearest to each other: all of them may be right again.
    assert swapped("g", "h|nil") == ["h", "g", "g", "other"]
    assert swapped("h", "g") == ["g", "g", "h", "other"]
    assert swapped("g", "nil") == [] == swapped("other", "g")


def test_an_empty_kernel_is_safe_of_nothing() -> None:
    """One of which nothing is known but that it is a kernel: no row may be protected."""
    image = Code(assembled(KERNEL))
    for name in defects.names():
        assert decide.decide(image, defects.load(name)).status != PROTECTED, name
    bare = Code(dataclasses.replace(assembled(KERNEL), symbols=()))
    for name in defects.names():
        if name not in ("pmd-share-arm64-flush", "pmd-share-gather-range"):
            assert decide.decide(bare, defects.load(name)).status == UNKNOWN, name


def finding(status: str, source: str) -> Finding:
    return Finding("d", status, "why", (f"{source}:1",), ("a patch",) if status == VULNERABLE
                   else (), source)


@pytest.mark.parametrize("source, image, status, origin", [
    (PROTECTED, PROTECTED, PROTECTED, BOTH),
    (VULNERABLE, VULNERABLE, VULNERABLE, BOTH),
    (PROTECTED, UNKNOWN, PROTECTED, SOURCE),
    (UNKNOWN, PROTECTED, PROTECTED, BINARY),
    (UNKNOWN, UNKNOWN, UNKNOWN, SOURCE),
    (PROTECTED, VULNERABLE, VULNERABLE, BOTH),
    (VULNERABLE, PROTECTED, VULNERABLE, BOTH),
    (NOT_AFFECTED, PROTECTED, UNKNOWN, BOTH),
    (VULNERABLE, NOT_AFFECTED, NOT_AFFECTED, BINARY),
    (PROTECTED, NOT_AFFECTED, NOT_AFFECTED, BINARY),
])
def test_a_tree_and_its_image(source: str, image: str, status: str, origin: str) -> None:
    tree = Audited("tree", "6.1.192", [finding(source, SOURCE)])
    made = Audited("vmlinuz", "6.1.0-56-amd64", [finding(image, BINARY)], tree=False)
    both = audit.both(tree, made).findings[0]
    assert (both.status, both.source) == (status, origin)
    if source != image and status != NOT_AFFECTED and UNKNOWN not in (source, image):
        assert f"the source says {source} and the image {image}" in both.why


def test_a_tree_of_another_version() -> None:
    tree = Audited("tree", "6.12.117", [])
    for release in ("6.1.0-56-amd64", "6.12.116", "5.10.0-46-amd64"):
        with pytest.raises(LabError, match="name the tree that it was made from"):
            audit.both(tree, Audited("vmlinuz", release, [], tree=False))
    assert audit.both(tree, Audited("vmlinuz", "6.12.117+deb12-amd64", [], tree=False))


def test_a_tree_of_another_version_is_told_before_it_is_looked_at(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mm").mkdir()
    (tmp_path / "Makefile").write_text("VERSION = 5\nPATCHLEVEL = 15\nSUBLEVEL = 215\n")
    image = tmp_path / "vmlinux"
    image.write_bytes(kernels.vmlinux())
    looked = []
    monkeypatch.setattr(audit, "of_tree", lambda *_args: looked.append("tree"))
    monkeypatch.setattr(audit, "of_image", lambda *_args: looked.append("image"))
    with pytest.raises(LabError, match="name the tree that it was made from"):
        audit.of_both(tmp_path, str(image), None)
    assert not looked


def test_some_defects_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those who ask for one are told of it, and of nothing else."""
    image = tmp_path / "vmlinux"
    image.write_bytes(kernels.vmlinux())
    words = ["audit", f"IMAGE={image}", "DEFECT=thp-numa-pending,pmd-share-count"]
    assert cli.main([*words, "AUDIT=json"]) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert [one["defect"] for one in told["defects"]] == ["pmd-share-count", "thp-numa-pending"]
    assert cli.main(["audit", f"IMAGE={image}", "DEFECT=nonesuch"]) == 2
    assert "no defect nonesuch" in capsys.readouterr().err
    # What else it has is not said.
    safe = dataclasses.replace(KERNELS[0], some=True)
    assert "has none of those asked for |" in audited.nrpe([safe])[0]
    with pytest.raises(LabError, match="DEFECT=, ARCH=, SYMBOLS=, ACCEPT= and AUDIT= go with them"):
        options.parse(["audit", "RUNNING=1", "BASE=6.1"])


KERNELS = [Audited("/boot/a", "6.1.0-1", [finding(PROTECTED, BINARY)], tree=False),
           Audited("/boot/b", "6.1.0-2", [finding(VULNERABLE, BINARY)], tree=False),
           Audited("/boot/c", error="/boot/c is no kernel", tree=False)]


def test_nrpe() -> None:
    assert audited.nrpe(KERNELS[:1]) == (
        "MIGRATION OK - 6.1.0-1 has none of the defects | "
        "vulnerable=0 unknown=0 accepted=0 slow=0 unread=0", 0)
    blind = Audited("t", "6.1", [finding(UNKNOWN, SOURCE)])
    text, status = audited.nrpe([blind, *KERNELS])
    # What is cut off at the end is what matters least.
    assert status == 2 and text.splitlines() == [
        "MIGRATION CRITICAL - 4 kernels: 1 VULNERABLE, 1 unknown, 1 cannot be read | "
        "vulnerable=1 unknown=1 accepted=0 slow=0 unread=1",
        "6.1.0-2 VULNERABLE: d", "/boot/c cannot be read", "6.1 unknown: d"]
    assert audited.nrpe([KERNELS[0], KERNELS[2]]) == (
        "MIGRATION UNKNOWN - 2 kernels: 1 cannot be read | "
        "vulnerable=0 unknown=0 accepted=0 slow=0 unread=1\n/boot/c cannot be read", 3)
    assert audited.nrpe([blind]) == (
        "MIGRATION UNKNOWN - 6.1: 1 unknown | vulnerable=0 unknown=1 accepted=0 slow=0 unread=0\n"
        "6.1 unknown: d", 3)
    assert audited.nrpe([KERNELS[0]] * 2)[0].startswith(
        "MIGRATION OK - 2 kernels have none of the defects | ")
    odd = Audited("/boot/a|b\nc", error="is no kernel", tree=False)
    assert audited.nrpe([odd])[0].splitlines()[1:] == ["/boot/a/b c cannot be read"]


@pytest.mark.parametrize("path", ("/boot/c", f"/boot/{'c' * 4000}"), ids=("short", "long"))
def test_nrpe_has_its_figures_where_nothing_is_cut_off(path: str) -> None:
    """Version 2 of it sends 1024 bytes, and graphs are made of what is behind the bar."""
    rows = [dataclasses.replace(finding(status, BINARY), defect=name) for name in defects.names()
            for status in (VULNERABLE, UNKNOWN)]
    many = [Audited(path, f"6.1.0-{number}-amd64", rows, tree=False) for number in range(99)]
    for kernels_of in (many, [Audited(path, error=path)], [dataclasses.replace(many[0], version="")]):
        first = audited.nrpe(kernels_of)[0].splitlines()[0]
        assert re.search(r" \| vulnerable=\d+ unknown=\d+ accepted=\d+ slow=\d+ unread=\d+$", first)
        assert len(first.encode()) < 1000
    assert len(audited.nrpe_error(f"{path} " * 300)[0]) < 1000


@pytest.mark.parametrize("status, name", (
    (UNKNOWN, "d"), (UNKNOWN, "d:VULNERABLE"), (VULNERABLE, "d:VULNERABLE")))
def test_a_defect_that_is_accepted(status: str, name: str) -> None:
    """Told as that, and no alarm: nobody could use a check that is never OK."""
    one = Audited("/boot/b", "6.1.0-2", [finding(status, BINARY)], tree=False)
    known = dataclasses.replace(one, accepted=frozenset({name}))
    assert not one.safe and known.safe
    assert audited.nrpe([known]) == (
        "MIGRATION OK - 6.1.0-2 has none of the defects but 1 accepted | "
        "vulnerable=0 unknown=0 accepted=1 slow=0 unread=0", 0)
    assert audited.counted(known) == "1 accepted"
    assert f"{status:12}  binary  d (accepted)\n" in audited.summary(known)
    assert "d                         accepted\n" in audited.table([known])
    rows = audited.report(known)["defects"]
    assert isinstance(rows, list) and rows[0]["accepted"] and rows[0]["status"] == status
    lines = audited.prometheus([known, one]).splitlines()
    assert [line for line in lines if line.startswith("linux_page_migration_defect_accepted")] == [
        'linux_page_migration_defect_accepted{kernel="6.1.0-2",path="/boot/b",defect="d"} 1']
    # Another defect is an alarm as before, and so is an image that cannot be read.
    other = dataclasses.replace(one, accepted=frozenset({"e"}))
    assert not other.safe and audited.nrpe([other])[1] != 0
    assert audited.nrpe([known, KERNELS[2]])[1] == 3
    # What is protected, or was fixed since, is said as it is.
    good = dataclasses.replace(KERNELS[0], accepted=frozenset({"d"}))
    assert audited.counted(good) == "1 protected" and "accepted" not in audited.summary(good)


def test_a_defect_that_is_only_slow() -> None:
    """It is told, in the same word everywhere, and nobody has to accept it."""
    slow = dataclasses.replace(finding(VULNERABLE, BINARY), only_slow=True)
    one = Audited("/boot/b", "6.1.0-2", [slow], tree=False)
    assert one.safe and not one.alarming(slow)
    assert audited.counted(one) == "1 only slow"
    assert "\nonly slow     binary  d\n" in audited.summary(one)
    assert VULNERABLE not in audited.summary(one)
    assert "d                         only slow\n" in audited.table([one])
    # Nobody has named it in ACCEPT=.
    assert audited.nrpe([one]) == (
        "MIGRATION OK - 6.1.0-2 has none of the defects but 1 only slow | "
        "vulnerable=0 unknown=0 accepted=0 slow=1 unread=0", 0)
    row, = rows(one)
    assert (row["only_slow"], row["status"], row["told"]) == (True, VULNERABLE, "only slow")
    assert [line for line in audited.prometheus([one]).splitlines() if "_only_slow{" in line] == [
        'linux_page_migration_defect_only_slow{kernel="6.1.0-2",path="/boot/b",defect="d"} 1']
    bad = dataclasses.replace(one, findings=[slow, finding(VULNERABLE, BINARY)])
    assert not bad.safe and audited.counted(bad) == "1 VULNERABLE, 1 only slow"
    good = dataclasses.replace(one, findings=[dataclasses.replace(slow, status=PROTECTED)])
    assert audited.counted(good) == "1 protected" and "slow" not in audited.summary(good)
    # Who has named it is told so.
    named = dataclasses.replace(one, accepted=frozenset({"d:VULNERABLE"}))
    assert audited.counted(named) == "1 accepted"
    assert "accepted=1 slow=0 unread=0" in audited.nrpe([named])[0]


def rows(one: Audited) -> list[dict[str, object]]:
    found = audited.report(one)["defects"]
    assert isinstance(found, list)
    return found


def test_what_is_slow_at_worst_and_unknown_is_unknown() -> None:
    """And no alarm."""
    slow = dataclasses.replace(finding(UNKNOWN, BINARY), only_slow=True)
    one = Audited("/boot/b", "6.1.0-2", [slow], tree=False)
    assert one.safe and audited.counted(one) == "1 unknown"
    assert "\nunknown       binary  d\n" in audited.summary(one)
    assert audited.nrpe([one]) == (
        "MIGRATION OK - 6.1.0-2 has none of the defects but 1 unknown | "
        "vulnerable=0 unknown=1 accepted=0 slow=0 unread=0\n6.1.0-2 unknown: d", 0)
    row, = rows(one)
    assert (row["only_slow"], row["told"], row["accepted"]) == (True, UNKNOWN, True)


def test_who_accepts_that_nobody_knows_is_told_when_it_is_bad() -> None:
    """An update, or a rule that learns more, is what the check is there for."""
    bad = dataclasses.replace(KERNELS[1], accepted=frozenset({"d"}))
    assert not bad.safe and not bad.accepts(bad.findings[0])
    assert audited.nrpe([bad])[1] == 2 and audited.counted(bad) == "1 VULNERABLE"


@pytest.mark.parametrize("name", ("pmd-share-buzy", "pmd-share-busy:vulnerable",
                                  "pmd-share-busy:", "pmd-share-busy:unknown", ":VULNERABLE"))
def test_accept_is_a_name_of_the_list(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "IMAGE=/nonexistent", f"ACCEPT={name}"]) == 2
    said = capsys.readouterr().err
    assert name.partition(":")[0] in said and said.count("\n") == 1 and "nonexistent" not in said
    args = options.parse(["audit", "ACCEPT=pmd-share-busy,pmd-share-gup:VULNERABLE"])
    assert args.accept == ("pmd-share-busy", "pmd-share-gup:VULNERABLE")


def test_nrpe_of_what_cannot_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status of an error is that of an alarm elsewhere."""
    assert cli.main(["audit", "IMAGE=/nonexistent", "AUDIT=nrpe"]) == 3
    assert capsys.readouterr().out == \
        "MIGRATION UNKNOWN - IMAGE=/nonexistent: there is no /nonexistent\n"
    assert cli.main(["audit", "AUDIT=nrpe"]) == 3
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("how", (["AUDIT=nrpe"], ["AUDIT?=nrpe"], ["--format", "nrpe"],
                                 ["--format=nrpe"]))
def test_a_check_that_is_written_wrong_is_no_alarm(
        how: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A name that a newer version has no more would be an alarm on each machine at once."""
    assert cli.main(["audit", "IMAGE=/boot", "ACCEPT=pmd-share-buzy", *how]) == 3
    said = capsys.readouterr()
    assert said.out.startswith("MIGRATION UNKNOWN - no defect pmd-share-buzy: ")
    assert said.out.count("\n") == 1 and len(said.out) < 1024 and not said.err
    # What comes behind is a value, or for another verb.
    assert cli.main(["audit", "IMAGE=/boot", "ACCEPT=AUDIT=nrpe"]) == 2
    assert not capsys.readouterr().out


def test_what_nobody_foresaw_is_unknown_to_a_check(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Python's exit status of it is a warning of Nagios."""
    def fail(*_words: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cli.audit, "of_running", fail)
    monkeypatch.setattr(cli.deps, "ensure", lambda *_words: None)
    assert cli.main(["audit", "RUNNING=1", "AUDIT=nrpe"]) == 3
    said = capsys.readouterr()
    assert said.out == "MIGRATION UNKNOWN - ZeroDivisionError: by zero\n"
    assert "Traceback" in said.err
    with pytest.raises(ZeroDivisionError):
        cli.main(["audit", "RUNNING=1"])


@pytest.mark.parametrize("library, package, left", (
    ("capstone", "python3-capstone", None), ("elftools.elf.elffile", "python3-pyelftools", None),
    # What an uninstalled package leaves behind is an empty folder, and that is a module.
    ("capstone", "python3-capstone", types.ModuleType("capstone"))))
def test_a_library_that_is_missing_is_named_once(
        library: str, package: str, left: types.ModuleType | None, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vmlinux-1", "vmlinux-2"):
        (tmp_path / name).write_bytes(kernels.vmlinux())
    modules: dict[str, types.ModuleType | None] = sys.modules      # type: ignore[assignment]
    monkeypatch.setitem(modules, library, left)
    with pytest.raises(LabError, match=f"^{package} is not installed: apt install {package}$"):
        audit.of_images(str(tmp_path), None)


def test_time_is_bounded() -> None:
    hash_signs = Section(0, (b"Linux version 1.1 (" + b"#1" * 1000) * 8000, False)
    start = time.process_time()
    with pytest.raises(LabError, match="^it takes more than 0.2 s to read: it is damaged"):
        with bounded.time_of("it", 0.2):
            text.banners([hash_signs])
    assert time.process_time() - start < 3
    with bounded.time_of("it", 0.2):
        pass
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def test_prometheus() -> None:
    lines = audited.prometheus(KERNELS).splitlines()
    assert ('linux_page_migration_defect{kernel="6.1.0-2",path="/boot/b",defect="d",'
            'status="vulnerable",from="binary"} 1') in lines
    assert 'linux_page_migration_defect_read{path="/boot/c"} 0' in lines
    odd = audited.prometheus([Audited('a"\\\n', "1", [finding(NOT_AFFECTED, BINARY)])])
    assert r'path="a\"\\\n"' in odd and 'status="not_affected"' in odd


@pytest.mark.parametrize("form", ("prometheus", "json"))
@pytest.mark.parametrize("image", ("alone", "none", "alone none"))
def test_a_program_is_told_of_what_cannot_be_read(
        form: str, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of metrics that stays as it was says that all is well; stderr is for a person."""
    (tmp_path / "alone").write_bytes(b"\x5a" * 100)
    named = " ".join(f"{tmp_path}/{one}" for one in image.split())
    assert cli.main(["audit", f"IMAGE={named}", f"AUDIT={form}"]) == 2
    said = capsys.readouterr()
    if form == "json":
        report = json.loads(said.out)
        assert all(one["error"] for one in report.get("kernels", [report]))
    else:
        assert said.out.count("_read{path=") == said.out.count("} 0") == len(image.split())
    assert said.err.count("\n") == (1 if " " not in image else 0)


@pytest.mark.parametrize("words", (["KERNEL=/nonexistent"], []))
def test_a_program_is_told_of_no_kernel(words: list[str], capsys: pytest.CaptureFixture[str]
                                        ) -> None:
    """A tree as an image; a call that names none is for who made it, and no answer."""
    assert cli.main(["audit", *words, "AUDIT=json"]) == 2
    said = capsys.readouterr()
    assert bool(said.out) == bool(words) and said.err.startswith("error: ")
    if words:
        assert json.loads(said.out)["tree"] == "/nonexistent"


def test_a_program_is_told_the_path_that_it_knows(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
        ) -> None:
    """It is the same whether the tree can be read or not: else the old one stays as it was."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to("tree")
    assert cli.main(["audit", "KERNEL=~/link", "AUDIT=prometheus"]) == 2
    assert f'_read{{path="{tmp_path}/tree"}} 0' in capsys.readouterr().out


@pytest.mark.parametrize("form", ("prometheus", "json", "nrpe"))
@pytest.mark.parametrize("words", (["RUNNING=1", "IMAGE=/boot/x"], ["RUNNING=1", "KERNEL=/x"],
                                   ["KERNEL=/x", "SYMBOLS=/y"]))
def test_a_program_is_told_of_no_kernel_that_is_named_badly(
        words: list[str], form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """NRPE shows its line to a person, and takes 2 for an alarm."""
    assert cli.main(["audit", *words, f"AUDIT={form}"]) == (3 if form == "nrpe" else 2)
    said = capsys.readouterr()
    assert "=" in (said.out if form == "nrpe" else said.err)
    assert bool(said.out) == (form == "nrpe")


def test_who_has_no_code_has_not_read_it() -> None:
    blind = Audited("/proc/kallsyms", "6.1", [finding(UNKNOWN, BINARY)], tree=False,
                    also={"missing": "Its code cannot be read: be root"})
    assert 'linux_page_migration_defect_read{path="/proc/kallsyms"} 0' in \
        audited.prometheus([blind]).splitlines()


def test_one_table_for_several() -> None:
    said = audited.table(KERNELS)
    assert "/boot/c is no kernel" in said and "Linux 6.1.0-2" in said
    lines = said.splitlines()
    row = next(line for line in lines if line.startswith("d "))
    assert row.split() == ["d", "protected", "VULNERABLE"]
    # Each column says what it is, above its rows.
    head = lines[lines.index(row) - 2:lines.index(row)]
    assert [line.split() for line in head] == [["[1]", "[2]"], ["from", "binary", "binary"]]
    tree = Audited("t", "6.1", [finding(UNKNOWN, SOURCE), finding(PROTECTED, BOTH)])
    other = Audited("b", "6.1", [finding(UNKNOWN, BINARY)] * 2, tree=False)
    assert ["from", "both,source", "binary"] in [
        line.split() for line in audited.table([tree, other]).splitlines()]


def named(status: str, name: str, **more: Any) -> Finding:
    return dataclasses.replace(finding(status, BINARY), defect=name, places=(), **more)


def test_a_table_that_is_too_wide_is_names() -> None:
    """Those that are not good, of each kernel; and once what is unknown of all of them."""
    states = ((VULNERABLE, PROTECTED), (UNKNOWN, NOT_AFFECTED), (PROTECTED, VULNERABLE),
              (PROTECTED, PROTECTED), (UNKNOWN, UNKNOWN))
    many = [Audited(f"/boot/vmlinuz-{number}", f"6.1.0-{number}-amd64", [
        named(one, "a"), named(other, "b"), named(UNKNOWN, "no-image-tells-it")], tree=False)
        for number, (one, other) in enumerate(states)]
    many += [dataclasses.replace(many[3], path="/boot/same", version="6.1.0-9-amd64", runs=True),
             KERNELS[2]]
    lines = audited.table(many, 80).splitlines()
    assert max(map(len, lines)) <= 80
    # Two of which all is the same are one.
    at = lines.index("[4]  /boot/vmlinuz-3")
    assert lines[at:at + 6] == [
        "[4]  /boot/vmlinuz-3", "     Linux 6.1.0-3-amd64", "     /boot/same (runs here)",
        "     Linux 6.1.0-9-amd64", "     1 unknown, 2 protected", "[5]  /boot/vmlinuz-4"]
    assert lines[lines.index("") + 1:] == [
        "[1]  VULNERABLE    a", "[2]  unknown       a", "[3]  VULNERABLE    b",
        "[4]  nothing else", "[5]  unknown       a b",
        "all  unknown       no-image-tells-it", "",
        "For places and patches: make audit IMAGE=/boot/vmlinuz-0"]
    # With room it is a table.
    wide = audited.table(many, 200).splitlines()
    assert [line.split() for line in wide if line.startswith("a ")] == [
        ["a", VULNERABLE, UNKNOWN, PROTECTED, PROTECTED, UNKNOWN]]
    assert audited.table(many[:4], 80).splitlines()[-3].split()[0] == "no-image-tells-it"


def test_a_table_of_a_folder_fits_the_terminal() -> None:
    many = [Audited(f"/boot/vmlinuz-6.1.0-{number}-cloud-amd64", f"6.1.0-{number}-cloud-amd64", [
        named(UNKNOWN if at % 21 == number else VULNERABLE if at % 3 == 0 else PROTECTED, name)
        for at, name in enumerate(defects.names())], tree=False) for number in range(21)]
    for width in (80, 100):
        assert max(map(len, audited.table(many, width).splitlines())) <= width


def test_rows_are_told_the_worst_first_and_a_reason_once() -> None:
    long = "no PMD table is shared: HUGETLB_PMD_PAGE_TABLE_SHARING depends on SPLIT_PMD_PTLOCKS, " \
           "which there is not"
    one = Audited("t", "6.6.150", [
        dataclasses.replace(finding(status, SOURCE), defect=name, why=why, places=(), title="title",
                            apply=apply)
        for name, status, why, apply in (
            ("a", NOT_AFFECTED, long, ()), ("b", UNKNOWN, "its code cannot be read", ()),
            ("c", PROTECTED, "protected", ()), ("d", NOT_AFFECTED, long, ()),
            ("e", VULNERABLE, "", ("queue/5.4/0001-a.patch", "queue/5.4/0002-b.patch")),
            ("f", UNKNOWN, "its code cannot be read", ()), ("g", NOT_AFFECTED, "there is no f()", ()),
            ("h", VULNERABLE, "", ("0123456789ab mm: fix it",)),
            ("i", VULNERABLE, "", ("queue/5.4/0001-a.patch",)), ("j", VULNERABLE, "", ()))],
        mend="make series KERNEL=t SERIES=fixes O=/tmp/series")
    assert audited.summary(one, 80).splitlines()[2:] == [
        "VULNERABLE    e", "              title", "              to apply: 0001 to 0002 of queue/5.4",
        "VULNERABLE    h", "              title", "              to apply:",
        "                0123456789ab mm: fix it",
        "VULNERABLE    i", "              title", "              to apply: 0001 of queue/5.4",
        "VULNERABLE    j", "              title", "              nothing here mends it",
        "unknown       b f", "              its code cannot be read",
        "protected     c",
        "not affected  a d",
        "              no PMD table is shared: HUGETLB_PMD_PAGE_TABLE_SHARING depends on",
        "              SPLIT_PMD_PTLOCKS, which there is not",
        "not affected  g", "              there is no f()",
        "", "To mend it: make series KERNEL=t SERIES=fixes O=/tmp/series",
        "To live with it until then: Documentation/hosts.rst"]
    # Of an image more can be told; of one with nothing to be done, nothing.
    image = dataclasses.replace(one, path="/boot/a b", tree=False, mend="")
    assert audited.summary(image, 80).endswith(
        "\n\nTo have more of it told: make audit KERNEL=/path/to/its/source IMAGE='/boot/a b'\n"
        "To live with it until then: Documentation/hosts.rst")
    safe = dataclasses.replace(image, findings=[row for row in one.findings
                                                if row.status in (PROTECTED, NOT_AFFECTED)])
    assert audited.summary(safe, 80).endswith("\n              there is no f()")
    # What it is to who runs the kernel, where it may have it.
    risky = dataclasses.replace(one, findings=[
        dataclasses.replace(row, risk="any user: a crash") for row in one.findings])
    said = audited.summary(risky, 80)
    assert said.count("\n              title\n              risk: any user: a crash\n") == 4
    assert "risk" not in said.partition("\nunknown")[2]
    # What is accepted is told as what it is, and after what is not.
    known = dataclasses.replace(one, accepted=frozenset({"b", "f", "e:VULNERABLE"}))
    said = audited.summary(known, 80)
    assert "unknown       b f (all accepted)\n" in said
    assert said.index("VULNERABLE    j\n") < said.index("VULNERABLE    e (accepted)\n")


def test_a_note_on_what_is_to_be_applied_is_told_once() -> None:
    patches = tuple(f"queue/6.6/{number:04}-a.patch" for number in range(1, 16))
    one = Audited("t", "6.6.150", [
        dataclasses.replace(finding(VULNERABLE, SOURCE), defect=name, apply=patches,
                            note="Apply all of it.") for name in "ab"])
    said = audited.summary(one, 80)
    assert said.count("to apply: 0001 to 0015 of queue/6.6, all or none\n") == 2
    assert said.count("Apply all of it.") == 1 \
        and "\n\nApply all of it.\n\nTo live" in said
    assert [row["note"] for row in rows(one)] == ["Apply all of it."] * 2
    # Where there is nothing to apply it says what else there is.
    other = dataclasses.replace(one, findings=[dataclasses.replace(one.findings[0], apply=())])
    assert audited.summary(other, 80).endswith(
        "\n              Apply all of it.\n\nTo live with it until then: Documentation/hosts.rst")


def test_the_kernel_that_runs_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each form: after an update /boot has another one, that is booted tomorrow."""
    for name, build_id in (("vmlinux-1", b"\x33"), ("vmlinux-2", b"\x11")):
        (tmp_path / name).write_bytes(kernels.vmlinux(build_id=build_id * 20))
    now = running.Running(kernels.BANNER, "11" * 20)
    monkeypatch.setattr(running, "running", lambda: now)
    found = audit.of_images(str(tmp_path), None)
    assert [one.runs for one in found] == [False, True]
    assert [one["running"] for one in map(audited.report, found)] == [False, True]
    path = str(tmp_path / "vmlinux-2")
    assert [line for line in audited.table(found).splitlines() if "runs here" in line] == [
        f"     {path} (runs here)"]
    assert audited.summary(found[1]).splitlines()[0].endswith(" (runs here)")
    assert "runs here" not in audited.summary(found[0])
    first, *others = audited.nrpe(found)[0].splitlines()
    assert "runs here" not in first
    assert ["runs here" in line for line in others] == [False, True]
    assert [line[-1] for line in audited.prometheus(found).splitlines()
            if line.startswith("linux_page_migration_defect_running{")] == ["0", "1"]
    # It says the same of itself twice: without a build id nobody knows which of the two runs.
    now = running.Running(kernels.BANNER, "")
    assert [one.runs for one in audit.of_images(str(tmp_path), None)] == [False, False]
    # The same build twice.
    (tmp_path / "vmlinux-1").write_bytes((tmp_path / "vmlinux-2").read_bytes())
    assert [one.runs for one in audit.of_images(str(tmp_path), None)] == [True, True]
    # One whose build id is the right one, and one that has none, and the same banner.
    (tmp_path / "vmlinux-1").write_bytes(kernels.vmlinux(build_id=b""))
    assert [one.runs for one in audit.of_images(str(tmp_path), None)] == [False, False]
    now = running.Running(kernels.BANNER, "11" * 20)
    assert [one.runs for one in audit.of_images(str(tmp_path), None)] == [False, True]
    # Two that have none, and then the only one.
    (tmp_path / "vmlinux-2").write_bytes((tmp_path / "vmlinux-1").read_bytes())
    for build_id in ("11" * 20, ""):
        now = running.Running(kernels.BANNER, build_id)
        assert [one.runs for one in audit.of_images(str(tmp_path), None)] == [False, False]
    assert [one.runs for one in audit.of_images(str(tmp_path / "vmlinux-2"), None)] == [True]

    def nobody_knows() -> running.Running:
        raise LabError("/proc/version cannot be read")
    monkeypatch.setattr(running, "running", nobody_knows)
    assert not any(one.runs for one in audit.of_images(str(tmp_path), None))


def test_by_name_the_kernel_that_runs_is_told_as_it_runs(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A livepatch module counts in both, and not for another image."""
    for name, build_id in (("vmlinux-1", b"\x33"), ("vmlinux-2", b"\x11")):
        (tmp_path / name).write_bytes(kernels.vmlinux(build_id=build_id * 20))
    load = audit.load.load
    monkeypatch.setattr(running, "running", lambda: running.Running(kernels.BANNER, "11" * 20))
    monkeypatch.setattr(running, "image", lambda: load(tmp_path / "vmlinux-2"))
    patches = [running.Livepatch("kpatch_1", "vmlinux", "migrate_pages", True)]
    monkeypatch.setattr(running, "livepatches", lambda: patches)
    other, by_name = audit.of_images(str(tmp_path), None)
    live = audit.of_running()
    assert by_name.findings == live.findings and by_name.runs and live.runs
    assert by_name.also == live.also and by_name.also["livepatches"] == "kpatch_1"
    why = [one.why for one in by_name.findings if "the livepatch kpatch_1 replaces" in one.why]
    assert why and other.findings != by_name.findings and "livepatches" not in other.also
    patches.clear()
    assert [one.findings for one in audit.of_images(str(tmp_path), None)] == [other.findings] * 2


def test_what_a_row_was_decided_from() -> None:
    assert "protected     binary  d" in audited.summary(KERNELS[0])
    # A tree's has no column that says the same in each row.
    assert "protected     d" in audited.summary(Audited("t", "6.1", [finding(PROTECTED, SOURCE)]))
    report = json.loads(json.dumps(audited.report(KERNELS[1])))
    assert report["image"] == "/boot/b" and report["defects"][0]["from"] == "binary"
    assert audited.report(KERNELS[2]) == {"image": "/boot/c", "error": "/boot/c is no kernel"}


def test_which_images_are_meant(tmp_path: Path) -> None:
    for name in ("vmlinuz-1", "vmlinuz-2", "config-1", "System.map-1", "vmlinuz-1.hmac"):
        (tmp_path / name).write_text("")
    (tmp_path / "vmlinuz").symlink_to("vmlinuz-2")
    named = [path.name for path in audit.images(str(tmp_path))]
    assert named == ["vmlinuz-1", "vmlinuz-2"]
    pair = f"{tmp_path}/vmlinuz-2 {tmp_path}/config-1"
    assert [path.name for path in audit.images(pair)] == ["vmlinuz-2", "config-1"]
    with pytest.raises(LabError, match="there is no"):
        audit.images(f"{tmp_path}/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError, match="has no kernel image"):
        audit.images(str(tmp_path / "empty"))
    assert [path.name for path in audit.images(f"{tmp_path}/vmlinuz-*")] == [
        "vmlinuz-1", "vmlinuz-1.hmac", "vmlinuz-2"]
    # A quote is no end of a word.
    (tmp_path / "a'b").write_text("")
    assert [path.name for path in audit.images(f"{tmp_path}/a'b")] == ["a'b"]
    with pytest.raises(LabError, match="there is no such file"):
        audit.images(f"{tmp_path}/a'c")


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    """As /boot/vmlinuz is, where a package was removed by hand: that one will not boot."""
    (tmp_path / "vmlinuz").symlink_to("vmlinuz-gone")
    (tmp_path / "vmlinuz.sig").symlink_to("gone.sig")
    with pytest.raises(LabError, match=f"^{tmp_path}/vmlinuz is a link to vmlinuz-gone, which is "
                       "not there$"):
        audit.of_images(str(tmp_path), None)
    (tmp_path / "vmlinux-1").write_bytes(kernels.vmlinux())
    (tmp_path / "vmlinux-2").symlink_to("vmlinux-1")
    assert [(one.path, one.error) for one in audit.of_images(str(tmp_path), None)] == [
        (f"{tmp_path}/vmlinux-1", ""),
        (f"{tmp_path}/vmlinuz", "is a link to vmlinuz-gone, which is not there")]
    (tmp_path / "linux.efi").symlink_to("gone.efi")
    (tmp_path / "shell.efi").write_bytes(b"MZ" + bytes(4094))
    assert [Path(one.path).name for one in audit.of_images(str(tmp_path), None)] == [
        "linux.efi", "vmlinux-1", "vmlinuz"]


def test_one_that_is_not_there_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(kernels.vmlinux())
    first, second = audit.of_images(f"{tmp_path}/vmlinux {tmp_path}/none", None)
    assert (first.version, first.error, second.error) == ("6.1.0-9-test", "", "is not there")
    (tmp_path / "empty").mkdir()
    first, second = audit.of_images(f"{tmp_path}/vmlinux {tmp_path}/empty", None)
    assert (first.version, second.error[:10]) == ("6.1.0-9-test", "is no file")


def test_a_program_that_is_missing_does_not_hide_the_others(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only images of one architecture need it."""
    for name in ("vmlinux-1", "vmlinux-2"):
        (tmp_path / name).write_bytes(kernels.vmlinux())
    of_image = audit.of_image

    def lacks(image: Image, _names: Sequence[str]) -> Audited:
        if image.path.endswith("1"):
            raise NotInstalled("objdump is not installed")
        return of_image(image)
    monkeypatch.setattr(audit, "of_image", lacks)
    assert [one.error for one in audit.of_images(str(tmp_path), None)] == [
        "objdump is not installed", ""]


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that hold images, only root may enter some."""
    (tmp_path / "vmlinuz").write_text("")
    monkeypatch.setattr(os, "access", lambda *_args, **_more: False)
    with pytest.raises(LabError, match=f"^{tmp_path} cannot be read: permission denied"):
        audit.images(str(tmp_path))
    # What is in it seems not to be there.
    with pytest.raises(LabError, match=f"{tmp_path} cannot be entered: permission denied"):
        audit.images(str(tmp_path / "Image"))


def test_of_a_function_in_pieces_nobody_knows_what_its_callers_have() -> None:
    """The rest of it was inlined into them: there it may do what is said to be missing."""
    text = "fn f.part.0; call h; ret\nfn e; call g; call f.part.0; ret"
    assert seen(text, "f calls h")
    assert not seen(text, "f calls none of g")
    assert not seen(text, "f calls nothing")


def test_what_counts_is_not_what_sets_a_flag() -> None:
    """The count of who shares a PMD table is as far into its struct as the flags of an mmu_gather
    are into theirs."""
    text = "fn flush; testb $8, 0x21(%rdi); ret\nfn f; "
    assert not seen(text + "lock decl 0x20(%rdi); ret", "f sets what flush tests")
    assert seen(text + "lock decl 0x20(%rdi); orb $8, 0x21(%rsi); ret", "f sets what flush tests")


def test_nobody_else_calls_it() -> None:
    """One of the callers that a rule knows may be inlined into one that it does not know."""
    form = "only f|e calls g"
    assert seen("fn f; call g; ret", form)
    assert seen("fn f; call g; ret\nfn e.cold; jmp g", form)
    assert not seen("fn f; call g; ret\nfn x; call g; ret", form)
    assert not seen("fn f; call g; ret\nfn x; je g; ret", form)
    assert not seen("fn f; ret", form)
    assert not seen("fn f; call g; ret\nfn x; lea g(%rip), %rax; ret", form)


def test_a_mark_that_a_call_passes_over() -> None:
    """Four bytes after a name is that function only if it begins with such a mark."""
    assert seen("fn m; endbr64; nop; ret\nfn f; call m + 4; ret", "f calls m")
    assert not seen("fn m; xor %eax, %eax; ret; nop; ret\nfn f; call m + 4; ret", "f calls m")


def test_what_may_be_inlined_anywhere_may_count_and_read_anything() -> None:
    text = ("fn count; lock incl 0x20(%rdx); ret\nfn put; lock decl 0x34(%rdi); ret\n"
            "fn f; mov 0x20(%rax), %eax; orb $8, 0x21(%rdi); and $0x18000, %eax; ret\n"
            "fn flush; testb $8, 0x21(%rdi); ret")
    for form in ("f reads what count counts", "count counts other than put",
                 "f sets what flush tests", "f uses 0x18000"):
        assert seen(text, form), form
        assert not seen(text, form, "CONFIG_LTO_CLANG_FULL=y\n"), form


def test_a_kernel_of_clang_that_does_not_say_how_it_was_made() -> None:
    """It may be one that was optimized as a whole: the full form of that renames nothing."""
    image = dataclasses.replace(
        assembled(KERNEL + "fn f; call h; ret"),
        banner="Linux version 6.1.0 (a@b) (Debian clang version 14.0.6, LLD 14.0.6) #1 SMP")
    form = "f calls none of g"
    assert not rules.fits(form, Code(image)).true
    told = dataclasses.replace(image, config="CONFIG_CC_IS_CLANG=y\nCONFIG_LTO_NONE=y\n")
    assert rules.fits(form, Code(told)).true
    linked = dataclasses.replace(image, banner=image.banner.replace("LLD", "GNU ld"))
    assert rules.fits(form, Code(linked)).true


def test_what_an_instruction_changes_without_naming_it() -> None:
    like = "fn like; lea 0x30(%rax), %rdi; call down_write; ret\n"
    for change in ("rep stosq", "xchg %rax, %rdi"):
        text = like + f"fn f; lea 0x30(%rbx), %rdi; {change}; call down_write; ret"
        assert not seen(text, "f calls down_write@like"), change


def test_names_that_do_not_fit_the_code() -> None:
    """Those of another build: calls lead to what has no name."""
    calls = "".join(f"fn f{number}; call g; call h; call other; call down_write; ret\n"
                    for number in range(12))
    # The last name is followed by code that has none, as that of modules' init or of programs.
    image = assembled(KERNEL + calls + "fn last; ret; 1: nop; " + "call 1b; " * 99 + "ret")
    Code(image).check()
    shifted = dataclasses.replace(image, symbols=tuple(
        dataclasses.replace(one, address=one.address + 5) if one.name in ("g", "h", "other") else one
        for one in image.symbols), symbols_from="System.map")
    with pytest.raises(LabError, match="System.map do not fit its code"):
        Code(shifted).check()


def test_a_lock_whose_allocation_may_fail() -> None:
    """pmd-share-no-lock, as compilers write it: a piece of the function, and a jump for a tail."""
    text = KERNEL + """
fn hugetlb_vma_trylock_write; ret
fn hugetlb_fault; call g; ret
fn huge_pmd_share; call g; ret
fn kmalloc_trace; ret
fn hugetlb_unshare_pmds; ret
fn hugetlb_vma_lock_alloc.part.0; mov $GFP, %esi; call kmalloc_trace; ret
fn hugetlb_split; test $0x3fffffff, %esi; je 1f; cmp (%rdi), %rsi; jb 1f; cmp %rdx, 8(%rdi); jae 2f
1: ret; 2: ASKS; jmp hugetlb_unshare_pmds
fn __split_vma; call hugetlb_split; ret
"""

    def say(gfp: str, asks: str = "nop") -> str:
        image = assembled(text.replace("GFP", gfp).replace("ASKS", asks))
        return decide.decide(Code(image), defects.load("pmd-share-no-lock")).status
    assert say("0xcc0") == VULNERABLE
    assert say("0x8cc0") == PROTECTED
    # It may be who is split that is looked at.
    assert say("0xcc0", "testb $0x80, 32(%rdi); je 1b") == UNKNOWN
    assert say("0xdc0") == UNKNOWN


@pytest.mark.parametrize("code, status", (
    ("mov 0x20(%rdi), %rax; test $1, %ah; je 1f; and $0x18000, %eax; cmp $0x18000, %rax\n1: ret",
     PROTECTED),
    # clang tests all three flags at once.
    ("mov 0x20(%rdi), %eax; not %eax; test $0x18100, %eax; sete %al; ret", PROTECTED),
    ("xor %eax, %eax; ret", VULNERABLE),
    # Flags it has not the numbers of, and what may be a test of them.
    ("mov 0x20(%rdi), %eax; not %eax; test $0x58100, %eax; sete %al; ret", UNKNOWN),
    ("testb $0x80, 0x21(%rdi); sete %al; ret", UNKNOWN)))
def test_flags_that_a_compiler_tests_together(code: str, status: str) -> None:
    image = assembled(KERNEL + f"""
fn migrate_pages; call g; ret
fn invalid_migration_vma; {code}
fn try_to_migrate; lea invalid_migration_vma(%rip), %rsi; call h; ret
""")
    assert decide.decide(Code(image), defects.load("exec-temp-stack")).status == status


@pytest.mark.parametrize("code, true", (
    ("lea 8(%rsp), %rdi; call g; lea 8(%rsp), %rdi; call h; ret", True),
    ("lea 8(%rsp), %rdi; call g; lea 16(%rsp), %rdi; call h; ret", False),
    # Kept in a register, on all ways to it, or on the stack.
    ("lea 8(%rsp), %r12; test %eax, %eax; je 1f; nop\n1: mov %r12, %rdi; call g\n"
     "test %eax, %eax; jne 2f; ret\n2: mov %r12, %rdi; call h; ret", True),
    ("lea 8(%rsp), %r12; test %eax, %eax; je 1f; lea 16(%rsp), %r12\n1: mov %r12, %rdi; call g\n"
     "lea 8(%rsp), %rdi; call h; ret", False),
    ("lea 8(%rsp), %rax; mov %rax, 64(%rsp); call other; mov 64(%rsp), %rdi; call g\n"
     "mov 64(%rsp), %rdi; call h; ret", True),
    ("lea 8(%rsp), %rax; mov %rax, 64(%rsp); mov 64(%rsp), %rdi; call g\n"
     "mov %rcx, 64(%rsp); mov 64(%rsp), %rdi; call h; ret", False),
    ("lea 8(%rsp), %rax; mov %rax, 64(%rsp); mov 64(%rsp), %rdi; call g\n"
     "push %rax; mov 64(%rsp), %rdi; call h; pop %rax; ret", False),
    # What writes to a part of it, and what a string is written with.
    ("lea 8(%rsp), %r12; mov %r12, %rdi; call g; mov %eax, %r12d; mov %r12, %rdi; call h; ret",
     False),
    ("lea 8(%rsp), %r12; mov %r12, %rdi; call g; rep stosq; mov %r12, %rdi; call h; ret", True),
    ("lea 8(%rsp), %rdi; call g; lea 8(%rsp), %rdi; rep stosq; call h; ret", False)))
def test_two_calls_with_the_same(code: str, true: bool) -> None:
    assert seen(f"fn f; {code}", "f calls g then h with the same") is true


def test_a_flush_of_another_gather_is_none() -> None:
    """The mutant no-tlb-flush: the table is noted in one gather, and another is flushed."""
    text = KERNEL + """
fn migrate_pages; call g; ret
fn huge_pmd_share; call g; ret
fn huge_pmd_unshare; ret
fn flush_tlb_mm_range; ret
fn huge_pmd_unshare_flush; call flush_tlb_mm_range; ret
fn try_to_unmap_one; lea 8(%rsp), %rdi; call huge_pmd_unshare; FLUSHED(%rsp), %rdi
call huge_pmd_unshare_flush; call flush_tlb_mm_range; ret
"""

    def say(at: int) -> str:
        image = assembled(text.replace("FLUSHED", f"lea {at}"))
        return decide.decide(Code(image), defects.load("pmd-share-migrate")).status
    assert say(8) == PROTECTED
    assert say(128) == UNKNOWN


@pytest.mark.parametrize("call, status", (
    ("huge_ptep_get", PROTECTED), ("huge_ptep_get_and_clear", UNKNOWN),
    ("huge_ptep_clear_flush", UNKNOWN), ("hugetlb_count_sub", UNKNOWN)))
def test_who_looks_at_a_hugetlb_page_unmaps_none(call: str, status: str) -> None:
    """arm64 has huge_ptep_get() as a function; where migration alone unmaps, that says nothing."""
    image = assembled(KERNEL + f"""
fn migrate_pages; call g; ret
fn huge_pmd_share; call g; ret
fn huge_pmd_unshare; ret
fn flush_tlb_mm_range; ret
fn huge_pmd_unshare_flush; call flush_tlb_mm_range; ret
fn {call}; ret
fn try_to_migrate_one; lea 8(%rsp), %rdi; call huge_pmd_unshare; lea 8(%rsp), %rdi
call huge_pmd_unshare_flush; ret
fn try_to_unmap_poisoned_hugetlb_one; lea 8(%rsp), %rdi; call huge_pmd_unshare; lea 8(%rsp), %rdi
call huge_pmd_unshare_flush; ret
fn try_to_unmap_one; call {call}; ret
""")
    assert decide.decide(Code(image), defects.load("pmd-share-migrate")).status == status


@pytest.mark.parametrize("code, status", (
    ("movz x3, #0x804; tst x1, x3; ret", PROTECTED), ("tbnz w1, #2, 1f; nop; 1: ret", UNKNOWN),
    # The flag of another release.
    ("movz x3, #0x404; tst x1, x3; ret", UNKNOWN)))
def test_a_flush_that_asks_for_unshared_tables(code: str, status: str) -> None:
    """pmd-share-arm64-flush, as gcc 12 and 14 write it."""
    if not shutil.which(f"{arch.load('arm64').triplet}-gcc"):
        pytest.skip("no gcc for arm64: apt install gcc-aarch64-linux-gnu")
    image = assembled(f"""
fn handle_mm_fault; ret
fn g; ret
fn huge_pmd_share; bl g; ret
fn __huge_pmd_unshare; ldrh w0, [x1, #32]; orr w0, w0, #0x800; strh w0, [x1, #32]; ret
fn huge_pmd_unshare_flush; bl tlb_flush; ret
fn tlb_flush; ldr x1, [x0, #32]; {code}
""", "arm64")
    assert decide.decide(Code(image), defects.load("pmd-share-arm64-flush")).status == status


@pytest.mark.parametrize("inlined", (True, False))
@pytest.mark.parametrize("freed, status", (("0x34", PROTECTED), ("0x20", VULNERABLE)))
def test_what_counts_may_be_inlined_or_not(inlined: bool, freed: str, status: str) -> None:
    """Compilers differ in that: ___free_pages() of 7.3."""
    does = f"lock decl {freed}(%rdi); ret"
    image = assembled(KERNEL + "fn huge_pmd_share; lock incl 0x20(%rdx); call g; ret\n" + (
        f"fn __free_pages; {does}" if inlined else f"fn ___free_pages; {does}\n"
        "fn __free_pages; jmp ___free_pages") + "\nfn huge_pmd_unshare; lock decl 0x20(%rdx); ret")
    assert decide.decide(Code(image), defects.load("pmd-share-count")).status == status


@pytest.mark.parametrize("name, there, status", (
    ("pmd-share-uffd-poison", "dup_userfaultfd", UNKNOWN),
    ("pmd-share-uffd-poison", "dup_userfaultfd mcopy_atomic", NOT_AFFECTED),
    ("pmd-share-uffd-poison", "", NOT_AFFECTED),
    ("thp-cow-isolation", "do_huge_pmd_anonymous_page try_to_compact_pages", UNKNOWN),
    ("thp-cow-isolation", "do_huge_pmd_anonymous_page isolate_migratepages_range", UNKNOWN),
    ("thp-cow-isolation", "do_huge_pmd_anonymous_page", NOT_AFFECTED)))
def test_a_static_function_that_is_not_there_may_be_inlined(name: str, there: str,
                                                            status: str) -> None:
    """clang does so with mfill_atomic_poison() of 7.3."""
    # What does nothing shares no table.
    text = KERNEL + "".join(f"fn {one}; call g; ret\n" for one in (
        "huge_pmd_share", "huge_pmd_unshare", *there.split()))
    assert decide.decide(Code(assembled(text)), defects.load(name)).status == status


@pytest.mark.parametrize("code, true", (
    ("call __fentry__; mov %rdi, -8(%rbp); call other; mov -8(%rbp), %rdi; call g; ret", True),
    ("mov %rdi, %rbx; lea 8(%rsp), %rdi; call g; ret", False),
    ("call other; call g; ret", False),
    ("lea 8(%rdi), %rdi; call g; ret", False)))
def test_a_call_with_its_own(code: str, true: bool) -> None:
    text = f"fn __fentry__; ret\nfn f; {code}"
    assert seen(text, "f calls g with its own") is true
    assert seen(text, "f calls g")


PAGE = "shr $12, %rdi; add 8(%rip), %rdi; "


@pytest.mark.parametrize("code, true", (
    (PAGE + "mov 0x20(%rdi), %eax; test %eax, %eax; jne 1f; call h; 1: ret", True),
    (PAGE + "cmpl $0, 0x20(%rdi); jne 1f; call h; 1: ret", True),
    (PAGE + "mov 0x20(%rdi), %r8d; mov %rbx, %rdi; cmp $1, %r8d; jne 1f; call h; 1: ret", True),
    # Kept over a call, or not.
    (PAGE + "mov 0x20(%rdi), %r12d; call g; test %r12d, %r12d; jne 1f; call h; 1: ret", True),
    (PAGE + "mov 0x20(%rdi), %ecx; call g; test %ecx, %ecx; jne 1f; call h; 1: ret", False),
    # Of a struct that another names: its own field at that offset.
    ("mov 0x18(%rdi), %rax; mov 0x20(%rax), %eax; test %eax, %eax; jne 1f; call h; 1: ret", False),
    # Too late, for nothing, or not at all.
    (PAGE + "call h; mov 0x20(%rdi), %eax; test %eax, %eax; jne 1f; 1: ret", False),
    (PAGE + "mov 0x20(%rdi), %eax; mov %ebx, %eax; test %eax, %eax; jne 1f; call h; 1: ret", False),
    (PAGE + "mov 0x20(%rdi), %eax; test %ebx, %ebx; jne 1f; call h; 1: ret", False),
    (PAGE + "mov 0x20(%rdi), %eax; call h; ret", False)))
def test_a_count_of_a_page(code: str, true: bool) -> None:
    text = f"fn huge_pmd_share; lock incl 0x20(%rax); ret\nfn f; {code}"
    assert seen(text, "f heeds of a page what huge_pmd_share counts before h") is true
    assert seen(text, "f reads what huge_pmd_share counts")
    assert not seen(text, "f reads nothing that huge_pmd_share counts")
