# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Imported by ``_pymc_minibatch.pth`` when Python starts: ``import pymc`` finds our pymc/ first.

A path in a ``.pth`` file is put behind site-packages, where the release's pymc/ would be found
first; hence a finder.
"""

import os
import sys

from importlib.machinery import ModuleSpec, PathFinder

FOLDER = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(FOLDER, "pymc")):  # a checkout: pymc/ is in its top folder
    FOLDER = os.path.dirname(os.path.dirname(FOLDER))


class OverlayFinder:
    """Finds the one package ``pymc``, in `FOLDER`; its modules are found from there."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [FOLDER]) if name == "pymc" else None


sys.meta_path.insert(0, OverlayFinder)  # type: ignore[arg-type]
