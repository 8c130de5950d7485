# SPDX-License-Identifier: GPL-2.0
"""What a boot showed: its logs, read, and the verdict."""
