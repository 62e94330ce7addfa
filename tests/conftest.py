"""Every test runs torch on one thread: the machine's cores belong to the tests that start processes."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
