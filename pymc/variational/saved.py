#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.

"""What all approximations have that can be saved."""

from __future__ import annotations

import os

from importlib import import_module
from pathlib import Path

__all__ = ["Saved"]


class Saved:
    """An approximation that can be written to a folder: a mixin."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the approximation to a folder, from which :func:`pymc.load_approximation` reads it.

        Parameters
        ----------
        path : str or path
            A folder, which must not be there yet.

        Returns
        -------
        Path
            The folder, absolute. It has arrays, JSON and hashes, and no pickle.

        Raises
        ------
        FileExistsError
        TypeError
            If the approximation is made of groups of the user's own.
        ImportError
            If safetensors is not installed.
        OSError
            If the disk is full, for one: nothing is there then.
        """
        # By its name, and when it is called: it imports the approximations
        checkpoints = import_module("pymc.variational.streaming.checkpoints.approximation")
        return checkpoints.save_approximation(self, path)
