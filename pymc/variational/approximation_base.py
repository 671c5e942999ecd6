# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Base class of all approximations: results of the fit, `save` and pickling."""

from __future__ import annotations

import os
import pickle
import sys

from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, SupportsIndex

import cloudpickle
import numpy as np

from pymc.variational.report import FitReport

__all__ = ["ApproximationBase"]

#: True while cloudpickle pickles the parts of an approximation.
_is_pickling = ContextVar("_is_pickling", default=False)


class ApproximationBase:
    """Base class of all approximations.

    Attributes
    ----------
    guides : tuple of Guide
        Empty for groups of the release.
    hist : array of floats, shape (n_steps,)
        The loss of each step; empty without a fit, or for one without a score.
    report : FitReport or None
        Of the fit.
    guide_losses : mapping of str to array of floats
        Losses of the guide alone, by name.
    """

    guides: tuple[Any, ...] = ()
    hist: np.ndarray = np.asarray(())
    report: FitReport | None = None
    guide_losses: Mapping[str, np.ndarray] = MappingProxyType({})

    @property
    def underlying(self) -> Any:
        """The approximation of the guides: itself, except for automatic fits."""
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle by cloudpickle, as pickle cannot hold the methods and functions of a model.

        Raises
        ------
        pickle.PicklingError
            If a part of the model, or of the fit, cannot be pickled by that either.
        """
        # cloudpickle itself, and copy, need the parts
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if _is_pickling.get() or caller == "copy" or "cloudpickle" in caller:
            return super().__reduce_ex__(protocol)
        token = _is_pickling.set(True)
        try:
            return cloudpickle.loads, (cloudpickle.dumps(self, int(protocol)),)
        except Exception as error:
            raise pickle.PicklingError(
                f"{self} cannot be pickled, since a part of its model, or of its fit, cannot be: {error}. Write "
                "what was fitted to a folder by approx.save(path), and read it by "
                "pm.load_approximation(path, model=...), with a model made by the same code"
            ) from error
        finally:
            _is_pickling.reset(token)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the approximation to a folder, from which :func:`pymc.load_approximation` reads it.

        Parameters
        ----------
        path : str or path
            A folder, which must not be there yet.

        Returns
        -------
        Path
            The folder, absolute. It holds arrays, JSON and checksums, and no pickle.

        Raises
        ------
        FileExistsError
        TypeError
            If the approximation is made of groups of the user's own.
        ImportError
            If safetensors or msgspec is not installed.
        OSError
            If the folder cannot be written, for example on a full disk. It does not exist then.
        """
        # Here, as most fits are not saved
        from pymc.variational.checkpoints.saving import save_approximation

        return save_approximation(self, path)  # type: ignore[arg-type]
