# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Time ``import pymc``, plain and patched, in turns.

Noise only ever adds time, so the minima come down to the true times.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.conformance import make_plain_environment  # noqa: E402

N_PAIRS = 4 if "--quick" in sys.argv else 20
CODE = "import time; t = time.process_time(); import pymc; print(time.process_time() - t)"


def seconds(python: Path, path: str) -> float:
    """Return the processor time of one import, with `path` in front of the installed packages."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path:
        environment["PYTHONPATH"] = path
    run = [str(python), "-c", CODE]
    return float(
        subprocess.run(run, env=environment, cwd="/", capture_output=True, check=True).stdout
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        python = make_plain_environment(Path(folder))
        times = [(seconds(python, ""), seconds(python, str(ROOT))) for _ in range(N_PAIRS)]
    plain, patched = map(min, zip(*times))
    print(f"import pymc: plain {plain:.3f} s, patched {patched:.3f} s, ratio {patched / plain:.3f}")
