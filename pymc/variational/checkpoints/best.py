# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The best approximations in the course of a fit, on disk: :class:`ModelCheckpoint`."""

from __future__ import annotations

import os
import shutil

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pymc.argument_checks import check_int
from pymc.variational.engine.callback_schedule import CallbackSchedule

__all__ = ["ModelCheckpoint"]


class ModelCheckpoint(CallbackSchedule):
    """Save the approximation where a score is best, and keep the best ones.

    :func:`pymc.load_approximation` reads them. They are no checkpoints that a fit goes on from: these are
    ``Trainer.fit(checkpoint=...)``, which keeps the last ones.

    Parameters
    ----------
    folder : str or path
        It must be empty, or not be there. The approximation of step 1500 is ``step-000001500`` in it.
    monitor : callable
        A function of ``(approx, losses, i)`` whose larger values are better, such as :class:`HeldOutBound`.
    every : int
        Steps between two scores.
    keep : int
        Number of approximations that stay.

    Attributes
    ----------
    scores : dict of Path to float
        The kept approximations, the best first.

    Raises
    ------
    TypeError
        If `monitor` cannot be called.
    FileExistsError
        If the folder has files, before the first save.
    ValueError
        If `every` or `keep` is less than 1, or a score is nan.

    Examples
    --------
    >>> import tempfile
    >>> best = pm.callbacks.ModelCheckpoint(
    ...     tempfile.mkdtemp(), lambda approx, losses, i: -losses[-10:].mean(), every=10, keep=2
    ... )
    >>> with pm.Model() as model:
    ...     x = pm.Normal("x", 3, 1)
    ...     approx = pm.fit(30, callbacks=[best], random_seed=1, progressbar=False)
    >>> len(best.scores)
    2
    >>> with model:
    ...     approx = pm.load_approximation(best.best)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        monitor: Callable[[Any, Any, int], float],
        every: int = 500,
        keep: int = 3,
    ) -> None:
        if not callable(monitor):
            raise TypeError(
                f"monitor={monitor!r} of ModelCheckpoint has to be a function of (approx, losses, i) whose larger "
                "values are better, such as pm.callbacks.HeldOutBound(validation), or "
                "lambda approx, losses, i: -losses[-1000:].mean()"
            )
        self.folder, self.monitor = Path(folder).absolute(), monitor
        self.every = check_int(every, "every", "ModelCheckpoint")
        self.keep = check_int(keep, "keep", "ModelCheckpoint")
        self.scores: dict[Path, float] = {}

    @property
    def best(self) -> Path:
        """The folder of the best approximation.

        Raises
        ------
        LookupError
            If there is none yet.
        """
        for path in self.scores:
            return path
        raise LookupError(
            f"ModelCheckpoint has saved nothing yet: the fit takes every={self.every} steps at least before"
        )

    def __call__(self, approx: Any, losses: Any, i: int) -> None:
        """Save the approximation after step `i`, if its score is among the best."""
        if not self.scores and self.folder.is_dir() and any(self.folder.iterdir()):
            raise FileExistsError(
                f"folder={str(self.folder)!r} of ModelCheckpoint is not empty: give it another one, or remove what is "
                "in it"
            )
        score = float(self.monitor(approx, losses, i))
        if np.isnan(score):
            raise ValueError(f"monitor of ModelCheckpoint returned nan after step {i}")
        if len(self.scores) == self.keep and score <= min(self.scores.values()):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{i:09d}"
        if path in self.scores:  # of another fit by the same callback
            shutil.rmtree(path)
        self.scores[approx.save(path)] = score
        ranked = sorted(self.scores.items(), key=lambda item: -item[1])
        self.scores = dict(ranked[: self.keep])
        for worse, _ in ranked[self.keep :]:
            shutil.rmtree(worse)
