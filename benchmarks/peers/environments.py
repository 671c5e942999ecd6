# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The Pythons that the peers run in."""

import shutil
import subprocess
import sys

from importlib.metadata import version
from pathlib import Path

from _common import CACHE

NUMPYRO = "numpyro==0.22.*"
EXTRAS = "pymc-extras==0.15.*"  # it needs an older PyMC than the patch
GRAIN = "grain==0.2.*"
TORCH = "torch==2.13.0+cpu"  # what PyPI has for Linux brings gigabytes of CUDA
ARROW = "pyarrow>23.0.0"
OLDER_PYTHON = "python3.11"  # in case a wheel is found for it only


def numpyro_python() -> Path | None:
    """Return a Python with NumPyro and the JAX of this environment.

    NumPyro is no dependency of the project, not even of its tests.
    """
    return python_with("NumPyro", [NUMPYRO, f"jax=={version('jax')}"])


def extras_python() -> Path | None:
    """Return a Python with pymc-extras and pyarrow."""
    return python_with("pymc-extras", [EXTRAS, ARROW])


def extras_numpyro_python() -> Path | None:
    """Return a Python with pymc-extras, the PyMC that it needs, and NumPyro."""
    return python_with("pymc-extras-numpyro", [EXTRAS, NUMPYRO, f"jax=={version('jax')}", "numba"])


def grain_python() -> Path | None:
    """Return a Python with grain and pyarrow."""
    return python_with("grain", [GRAIN, ARROW])


def torch_python() -> Path | None:
    """Return a Python, maybe an older one, with torch and pyarrow, if pip finds torch for processors."""
    wanted = [TORCH, ARROW, "numpy"]
    older = shutil.which(OLDER_PYTHON)
    if older is None:
        return python_with("torch", wanted)
    return python_with("torch", wanted, older)


def python_with(name: str, wanted: list[str], base: str = sys.executable) -> Path | None:
    """Return a Python with these packages, installed once in an environment of its own.

    None, and a printed sentence, where they cannot be installed.
    """
    folder = CACHE / f"{name.lower()}-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    done = folder / "done"
    content = " ".join(wanted)
    if done.exists() and done.read_text() == content:
        return python
    make = [base, "-m", "venv", "--clear", "--without-pip", str(folder)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *wanted]
    try:
        for command in (make, pip):
            subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
        print(f"{name} is left out: {content} cannot be installed ({reason})", file=sys.stderr)
        return None
    done.write_text(content)
    return python


def package_version(python: Path, package: str) -> str:
    """Return the version of a package in another environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [str(python), "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
