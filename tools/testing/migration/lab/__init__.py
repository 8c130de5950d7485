# SPDX-License-Identifier: GPL-2.0
"""The lab: builds a kernel with and without a protection, boots both, gives a verdict."""
