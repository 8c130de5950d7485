# SPDX-License-Identifier: GPL-2.0
"""What can be asked of the lab."""
