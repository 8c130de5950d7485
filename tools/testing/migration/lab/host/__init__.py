# SPDX-License-Identifier: GPL-2.0
"""The machine that selftests run on natively."""
