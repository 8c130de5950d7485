# SPDX-License-Identifier: GPL-2.0
"""The guest: what is in it, and how it is booted."""
