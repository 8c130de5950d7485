# SPDX-License-Identifier: GPL-2.0
"""Reads kernel images: from a file, or the running kernel, to sections and symbols."""
