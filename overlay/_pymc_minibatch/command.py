# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""The command ``pymc-minibatch``, which prints what a bug report needs.

It works where ``import pymc`` does not, and says why.
"""

import importlib
import os
import platform
import shutil
import sys

from importlib.metadata import PackageNotFoundError, version

NAME = "pymc-minibatch"

#: What fits compute with, and what the extras of the package bring.
PACKAGES = ("pymc", "pytensor", "numpy", "scipy", "arviz", "xarray")
BACKENDS = ("numba", "jax")
EXTRAS = {
    "plots": ("matplotlib",),
    "stream": ("filelock", "fsspec", "msgspec", "pyarrow", "safetensors"),
    "cluster": ("ray",),
    "jax": ("jax",),
}


def main() -> int:
    """Print versions, backends, extras and the folder of the cache; return 1 if PyMC cannot be imported."""
    lines = [
        (NAME, f"{_version(NAME)}, in {os.path.dirname(os.path.abspath(__file__))}"),
        ("python", f"{platform.python_version()}, in {sys.prefix}"),
        ("machine", f"{platform.platform()}, {os.cpu_count()} cores"),
        *((name, _version(name)) for name in PACKAGES),
    ]
    for name, needed in EXTRAS.items():
        missing = [package for package in needed if _version(package) == "not installed"]
        lines.append((f"[{name}]", f"lacks {', '.join(missing)}" if missing else "complete"))
    try:
        pymc, pytensor = map(importlib.import_module, ("pymc", "pytensor"))
    except Exception as error:
        lines.append(("import pymc", f"{type(error).__name__}: {error}"))
        _print(lines)
        return 1
    patched = "patched" if "pymc._layer" in sys.modules else "not patched"
    lines += [
        ("import pymc", f"{patched}, {os.path.dirname(str(pymc.__file__))}"),
        *((f"backend {name}", _version(name)) for name in BACKENDS),
        ("backend c", pytensor.config.cxx or shutil.which("g++") or "no compiler"),
        ("default mode", f"{pytensor.config.mode}, {pytensor.config.floatX}"),
        ("cache", str(pytensor.config.compiledir)),
    ]
    _print(lines)
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _print(lines: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        sys.stdout.write(f"{name:{width}}  {text}\n")


if __name__ == "__main__":
    sys.exit(main())
