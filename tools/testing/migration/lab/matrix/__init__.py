# SPDX-License-Identifier: GPL-2.0
"""Proves whatever is missing of defects, bases and architectures, on many machines."""
