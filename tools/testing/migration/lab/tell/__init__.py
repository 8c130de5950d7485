# SPDX-License-Identifier: GPL-2.0
"""The forms in which a result is told."""
