#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Proves fixes of page migration: `migration.py --help`, or `make` at the top of this repository."""

import sys

from lab.cli import main

sys.exit(main())
