# SPDX-License-Identifier: GPL-2.0
"""The architectures whose code can be read."""

from lab.binary import arm64, riscv64, x86_64
from lab.binary.instruction import Set

SETS: dict[str, Set] = {"arm64": arm64.SET, "riscv64": riscv64.SET, "x86_64": x86_64.SET}
