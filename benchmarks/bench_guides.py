# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""How near each guide comes to a posterior that is known.

    python benchmarks/bench_guides.py

The problems and the figures are those of ``tests/variational/guides/known_answers.py``: log p(y) - ELBO
in nats, with the standard error of its estimate, and the sd of a variable. They do not depend on the machine.
"""

import sys

from _common import ROOT

sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    from tests.variational.guides.known_answers import table

    for line in table():
        print(line, flush=True)
