# SPDX-License-Identifier: GPL-2.0
"""`python3 -m lab`: see lab.cli."""

import sys

from lab.cli import main

sys.exit(main())
