# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Attributes of all approximations, and how they are saved and pickled."""

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

__all__ = ["Saved"]

#: Whether cloudpickle was called for an approximation, of which it has to take the parts
_at_work = ContextVar("_at_work", default=False)


class Saved:
    """An approximation that can be pickled, and written to a folder: the mixin of all of them.

    Attributes
    ----------
    guides : tuple of Guide
        What it is made of; empty where that is groups of the release.
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
    def made_of(self) -> Any:
        """The approximation whose guides make this one again; itself, but for automatic fits."""
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle by cloudpickle: a model has methods and functions that pickle does not take.

        Raises
        ------
        pickle.PicklingError
            If a part of the model, or of the fit, cannot be pickled by that either.
        """
        # Whoever calls that, or copies, has to reach the parts themselves
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if _at_work.get() or caller == "copy" or "cloudpickle" in caller:
            return super().__reduce_ex__(protocol)
        token = _at_work.set(True)
        try:
            return cloudpickle.loads, (cloudpickle.dumps(self, int(protocol)),)
        except Exception as error:
            raise pickle.PicklingError(
                f"{self} cannot be pickled, since a part of its model, or of its fit, cannot be: {error}. Write "
                "what was fitted to a folder by approx.save(path), and read it by "
                "pm.load_approximation(path, model=...), with a model made by the same code"
            ) from error
        finally:
            _at_work.reset(token)

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
        # When it is called: most fits are not saved
        from pymc.variational.checkpoints.saving import save_approximation

        return save_approximation(self, path)
