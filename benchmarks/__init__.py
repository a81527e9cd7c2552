"""Measurements of Certes against the best alternative at hand, in the same run. ``python -m benchmarks --help``."""

import os

# One thread per process, as in `make bench`, unless the caller says otherwise; must be set before numpy is imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
