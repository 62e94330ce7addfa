"""Every test runs torch on one thread: the machine's cores belong to the tests that start processes."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("untimed", deadline=None)  # timings decide no test
settings.load_profile("untimed")
