# SPDX-License-Identifier: GPL-2.0
"""The kernel: its source, its patches, its .config, its build."""
