# SPDX-License-Identifier: GPL-2.0
"""What differs between architectures: one row for each, and nothing of it anywhere else.

What its kernels need and do not know goes to configs/<name>.config: a fragment on top of
configs/base.config, whose options are those of x86_64, less `drop`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lab import fragment
from lab.errors import LabError
from lab.paths import HOME


@dataclass(frozen=True)
class Arch:
    """How to build a kernel for an architecture, and how to boot it in QEMU."""

    name: str                   # as ARCH= says it
    machine_name: str           # as `uname -m` says it
    debian: str                 # as dpkg says it
    kernel_arch: str            # the kernel's own name, for ARCH= and for its folder in arch/
    triplet: str                # the compiler's prefix on another host, without the last hyphen
    target: str                 # make target of the image
    image: str                  # where that target leaves it, from the build folder
    qemu: str
    qemu_package: str
    machine: tuple[str, ...]
    cpu_tcg: str                # -cpu for TCG
    cpu_kvm: str                # -cpu for KVM
    console: str                # the first serial line: the kernel's log
    second_console: str         # the second one: KTAP
    third_console: str          # and the third: QEMU's monitor, where a test needs it
    cmdline: str                # what all kernels are booted with
    # The device of the second and the third line, where the machine has only one of its own.
    line_device: str = ""
    # Options of configs/base.config that it does not have, without CONFIG_.
    drop: tuple[str, ...] = ()
    # A file that QEMU cannot do without, and its package.
    firmware: str = ""
    firmware_package: str = ""
    # Whether the machine takes DIMMs: the nodes have that memory from the start where not.
    dimms: bool = True
    # Whether the machine can say that the memory of a node is slower (ACPI's HMAT).
    tiers: bool = False
    # What makes the CPU of TCG one that runs virtual machines: words for -cpu.  KVM's has what the
    # host lets it have.
    virtual: str = ""
    # The release of Debian that has it, where that of this machine may not yet.
    suite: str = ""
    # The first kernel that has there what configs/base.config asks for, and what those before lack.
    since: str = ""
    before: str = ""
    # Options that not all of its kernels have, each with the first version that does.  A base
    # before that leaves it out; what a defect cannot be shown without (`needs`) need not be asked
    # for.
    later: tuple[tuple[str, str], ...] = ()
    # What the compiler of this machine needs for the programs that the build of an old kernel uses,
    # with the first version that does without.
    host_cflags: tuple[tuple[str, str], ...] = ()
    # Options of KCONFIG= with which it shares no PMD table, so that nothing can be asked for that
    # says it does; and with which huge pages are so large that each node gets so many MiB more.
    unshared_with: tuple[str, ...] = ()
    room_with: tuple[tuple[str, int], ...] = ()
    # What finds the options that are about the size of pages and addresses: kernels that differ in
    # these are of different kinds.
    sizes: str = ""
    # What a defect may ask of the CPU, as QEMU says it.
    cpu_features: tuple[str, ...] = ()

    def lacks(self, version: str) -> tuple[str, ...]:
        """The options that its kernels of a version do not have."""
        return self.drop + tuple(name for name, came in self.later if older(version, came))

    def why_not(self, needs: Iterable[str], version: str) -> str:
        """Why its kernels of a version cannot show what needs these options; "" if they can."""
        for name in needs:
            if name in self.drop or sizes(name) not in ("", self.name):
                return f"{self.name} has no {name}, and it takes that to show it"
            if name in self.lacks(version):
                came = dict(self.later)[name]
                return f"{self.name} has {name} in {came} and later, and it takes that to show it"
        return ""

    def host_compiler(self, version: str) -> str:
        """This machine's compiler, as a kernel of a version has to be told of it; "" for its
        own."""
        flags = [flag for flag, came in self.host_cflags if older(version, came)]
        return " ".join(["gcc", *flags]) if flags else ""

    def shares(self, options: Mapping[str, str]) -> bool:
        """Whether kernels with these options can share PMD tables."""
        return not any(options.get(name) == "y" for name in self.unshared_with)

    def room(self, options: Mapping[str, str]) -> int:
        """MiB that a node needs more with these options."""
        return sum(mib for name, mib in self.room_with if options.get(name) == "y")

    def unusual(self, command: str) -> list[str]:
        """What KCONFIG= of a command asks for, where that is another kind of kernel than
        configs/<name>.config makes, with pages or addresses of another size.

        Records are named by it, so what else is asked for and in which order does not matter.
        What is turned on says it all: what is turned off is told only where there is nothing else.
        """
        found = re.search(r"\bKCONFIG=(?:'([^']*)'|(\S+))", command)
        words = (found[1] or found[2] or "").split() if found else []
        asked = {name: value or "y" for name, _equals, value in
                 (word.partition("=") for word in words) if re.fullmatch(self.sizes, name)}
        path = HOME / "configs" / f"{self.name}.config"
        own = fragment.parse("\n".join(fragment.lines(path)), str(path))
        other = {name: value for name, value in sorted(asked.items())
                 if own.get(name, "n") != value}
        return [name for name, value in other.items() if value != "n"] or \
            [f"{name}=n" for name in other]

    def too_old(self, version: str) -> str:
        """Why no kernel of a version is built for it; "" if it can be."""
        if not self.since or not older(version, self.since):
            return ""
        return f"before {self.since} a kernel {self.before} on {self.name}"

    @property
    def native(self) -> bool:
        """Whether this host is of this architecture."""
        return os.uname().machine == self.machine_name

    @property
    def cross_compile(self) -> str:
        """The prefix of the compiler's name, "" for the host's own."""
        return "" if self.native else f"{self.triplet}-"

    @property
    def compiler(self) -> str:
        """The C compiler's command, without ccache."""
        return f"{self.cross_compile}gcc"


_ROWS = {
    row.name: row for row in (
        # nopti: the CPU that TCG shows has no PCID, and without it page table isolation empties
        # the TLB at each interrupt, 250 times a second. Real CPUs keep what they have.
        Arch(name="x86_64", machine_name="x86_64", debian="amd64", kernel_arch="x86",
             triplet="x86_64-linux-gnu",
             target="bzImage", image="arch/x86/boot/bzImage",
             qemu="qemu-system-x86_64", qemu_package="qemu-system-x86", machine=("-machine", "pc"),
             cpu_tcg="kvm64", cpu_kvm="host",
             console="ttyS0", second_console="ttyS1", third_console="ttyS2", cmdline="nopti",
             # KVM asks for AMD's virtual machines only where the CPU is one of AMD's.
             tiers=True, virtual="vendor=AuthenticAMD,+svm,+npt",
             # No kernel comes up under TCG with xsave and without xsaveopt (QEMU 7.2).
             cpu_features=("+pdpe1gb", "+xsave", "+xsaveopt", "+pku")),
        # TCG empties the TLB when a process with another ASID runs, and a kernel that hides itself
        # from user space has two ASIDs a process: the CPU `max` needs no such thing, the others
        # do. Pointer authentication by QARMA costs most of the time of a boot. No firmware:
        # with Debian's, Linux 6.12 finds 64 MiB of memory that belong to no node, and makes one
        # node of all. Without it there is no ACPI, and so no DIMMs. Of the two UARTs that the
        # machine has, one is not for Linux.
        Arch(name="arm64", machine_name="aarch64", debian="arm64", kernel_arch="arm64",
             triplet="aarch64-linux-gnu",
             target="Image", image="arch/arm64/boot/Image",
             qemu="qemu-system-aarch64", qemu_package="qemu-system-arm",
             machine=("-machine", "virt,gic-version=max"),
             cpu_tcg="max,pauth-impdef=on", cpu_kvm="host",
             console="ttyAMA0", second_console="ttyS0", third_console="ttyS1", cmdline="",
             line_device="pci-serial",
             dimms=False,
             since="4.7", before="has no nodes of memory",
             # The first base that has it.
             later=(("ARCH_ENABLE_HUGEPAGE_MIGRATION", "5.4"), ("MEMORY_HOTREMOVE", "5.10"),
                    *((name, "5.4") for name in ("MEMORY_HOTPLUG", "ACPI_HOTPLUG_MEMORY")),
                    *((name, "4.14") for name in ("MEMORY_FAILURE", "HWPOISON_INJECT"))),
             # The device tree compiler has a variable twice. gcc 10 and later link that no more.
             host_cflags=(("-fcommon", "5.6"),),
             # Huge pages of 512 MiB, and a PUD that no mapping fills.
             unshared_with=("ARM64_64K_PAGES",), room_with=(("ARM64_64K_PAGES", 6144),),
             sizes=r"ARM64_(\d+K_PAGES|(USER_)?VA_BITS_\d+|PA_BITS_52)",
             drop=("X86_64_ACPI_NUMA", "X86_MCE", "UNWINDER_FRAME_POINTER", "HYPERVISOR_GUEST",
                   "KVM_GUEST", "KERNEL_GZIP", "PROCESSOR_SELECT")),
        # No kernel has soft offlining there. The machine is described by a device tree, so ACPI has
        # no part in it. Addresses have 57 bits: with 48 (no5lvl) 6.12 has less room for struct page
        # than it has physical addresses, and TEST_HMM's memory, at the end of these, makes it die.
        # Each node has an interrupt controller of its own, and PCI is at the second. If that is a
        # PLIC, QEMU 7.2 raises no interrupt of it: nothing would come out of the second line. With
        # movablecore= a block of memory can go offline, but not in each boot.
        Arch(name="riscv64", machine_name="riscv64", debian="riscv64", kernel_arch="riscv",
             triplet="riscv64-linux-gnu",
             target="Image", image="arch/riscv/boot/Image",
             qemu="qemu-system-riscv64", qemu_package="qemu-system-misc",
             machine=("-machine", "virt,aia=aplic"),
             cpu_tcg="rv64", cpu_kvm="host",
             console="ttyS0", second_console="ttyS1", third_console="ttyS2", cmdline="",
             line_device="pci-serial",
             dimms=False, suite="trixie",
             since="6.11", before="cannot take memory offline",
             later=(("ARCH_ENABLE_HUGEPAGE_MIGRATION", "5.15"),),
             drop=("X86_64_ACPI_NUMA", "X86_MCE", "MEMORY_FAILURE", "HWPOISON_INJECT",
                   "UNWINDER_FRAME_POINTER", "HYPERVISOR_GUEST", "KVM_GUEST",
                   "ACPI", "ACPI_HOTPLUG_MEMORY", "PROCESSOR_SELECT")),
    )
}


def sizes(name: str) -> str:
    """The architecture that has an option of the size of pages or addresses of this name; "" if it
    is no such option."""
    return next((row.name for row in _ROWS.values() if re.fullmatch(row.sizes, name)), "") \
        if name else ""


# What goes without saying, in the names of records and in tables.
FIRST = "x86_64"


def tag(name: str) -> str:
    """What tells things of architecture `name` from those of the first, at the end of a name."""
    return "" if name == FIRST else f"-{name}"


def older(version: str, than: str) -> bool:
    """Whether a version, "6.1.192" or "5.18-rc1", is before another."""
    return _numbers(version) < _numbers(than)


def _numbers(version: str) -> list[int]:
    """The numbers that a version begins with."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return [int(number) for number in found[0].split(".")] if found else []


def names() -> list[str]:
    """The names of all architectures, sorted."""
    return sorted(_ROWS)


def host() -> str:
    """The architecture of this host; the first where the lab does not know it."""
    return next((row.name for row in _ROWS.values() if row.native), FIRST)


def load(name: str = "") -> Arch:
    """The row of architecture `name`, of this host's for none; LabError where there is none.

    The names that `uname -m` and the kernel have for it will do: who builds kernels has ARCH= in
    their environment.
    """
    for row in _ROWS.values():
        if (name or host()) in (row.name, row.machine_name, row.kernel_arch):
            return row
    raise LabError(f"no architecture {name}: the lab knows {', '.join(names())}")
