# SPDX-License-Identifier: GPL-2.0
"""What differs between architectures: one row for each, and nothing of it anywhere else."""

from dataclasses import dataclass

from lab.errors import LabError


@dataclass(frozen=True)
class Arch:
    """How to build a kernel for an architecture, and how to boot it in QEMU."""

    name: str
    kernel_arch: str            # the kernel's own name, for ARCH= and for its folder in arch/
    cross_compile: str          # prefix of the compiler's name, "" for the host's own
    target: str                 # make target of the image
    image: str                  # where that target leaves it, from the build folder
    qemu: str
    machine: tuple[str, ...]
    cpu_tcg: str                # -cpu for TCG
    cpu_kvm: str                # -cpu for KVM
    console: str                # the first serial line: the kernel's log
    second_console: str         # the second one: KTAP
    third_console: str          # and the third: QEMU's monitor, where a test needs it
    cmdline: str                # what all kernels are booted with

    @property
    def compiler(self) -> str:
        """The C compiler's command, without ccache."""
        return f"{self.cross_compile}gcc"


_ROWS = {
    row.name: row for row in (
        # nopti: the CPU that TCG shows has no PCID, and without it page table isolation empties
        # the TLB at each interrupt, 250 times a second. Real CPUs keep what they have.
        Arch(name="x86_64", kernel_arch="x86", cross_compile="",
             target="bzImage", image="arch/x86/boot/bzImage",
             qemu="qemu-system-x86_64", machine=("-machine", "pc"),
             cpu_tcg="kvm64", cpu_kvm="host", console="ttyS0", second_console="ttyS1", third_console="ttyS2",
             cmdline="nopti"),
    )
}


def names() -> list[str]:
    """The names of all architectures, sorted."""
    return sorted(_ROWS)


def load(name: str = "x86_64") -> Arch:
    """The row of architecture `name` (as `uname -m` says it); LabError where there is none."""
    try:
        return _ROWS[name]
    except KeyError:
        raise LabError(f"no architecture {name}: the lab knows {', '.join(names())}") \
            from None
