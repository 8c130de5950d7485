# SPDX-License-Identifier: GPL-2.0
"""Loads host.toml: what each selftest takes of a machine, and does to it.

A table for each selftest; each of the keys is optional but one:

    seconds     about how long it takes
    nodes       how many NUMA nodes it takes huge pages of, or needs at all; 1 by default
    pages       huge pages on each of them; 0 by default
    settings    a list: what it changes besides, of SETTINGS, and puts back
    beyond      what it does that nobody has to put back, or that cannot be
    offline     what it does if the variable of the environment allows it that [variables] names
    dangerous   why it only runs if that one does
    leaves_out  what of it, and why, only runs if that one does
"""

from dataclasses import dataclass

from lab import schema
from lab.errors import LabError
from lab.paths import HOME

FILE = HOME / "host.toml"
_VARIABLES = schema.read(FILE)["variables"]
OFFLINE, DANGEROUS = str(_VARIABLES["offline"]), str(_VARIABLES["dangerous"])
# By the name that host.toml has for it, the file that says it, and what it is.
SETTINGS = {
    "numa_balancing": ("proc/sys/kernel/numa_balancing", "NUMA balancing, and how it scans"),
    "fail_page_alloc": ("sys/kernel/debug/fail_page_alloc/ignore-gfp-wait",
                        "which allocations of pages can fail"),
    "failslab": ("sys/kernel/debug/failslab/ignore-gfp-wait", "which allocations can fail"),
    "transparent_hugepage": ("sys/kernel/mm/transparent_hugepage/enabled",
                             "transparent huge pages: madvise where they are off"),
    "vm_unmapped": ("sys/kernel/debug/vm_unmapped/enabled",
                    "whether the kernel checks what migration unmaps"),
    "shmem_enabled": ("sys/kernel/mm/transparent_hugepage/shmem_enabled",
                      "transparent huge pages of shared memory: advise where they are off"),
    "demotion": ("sys/kernel/mm/numa/demotion_enabled",
                 "whether memory may be demoted to slower nodes: it may"),
    "huge_64k": ("sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled",
                 "transparent huge pages of 64 KiB: madvise where they are off"),
    "shmem_64k": ("sys/kernel/mm/transparent_hugepage/hugepages-64kB/shmem_enabled",
                  "the same of shared memory: advise where they are off"),
}


@dataclass(frozen=True)
class Need:
    """What a selftest takes and does."""

    name: str
    seconds: int
    nodes: int = 1
    pages: int = 0
    settings: tuple[str, ...] = ()
    beyond: str = ""
    offline: str = ""
    dangerous: str = ""
    leaves_out: str = ""


def load() -> dict[str, Need]:
    """Of all selftests, by name; LabError where the file is wrong."""
    made = {name: schema.fill(Need, FILE, name, said, name=name)
            for name, said in schema.read(FILE).items() if name != "variables"}
    for one in made.values():
        if strange := [name for name in one.settings if name not in SETTINGS]:
            raise LabError(f"{FILE}: [{one.name}] settings: {strange[0]} is none of "
                           f"{', '.join(SETTINGS)}")
    return made
