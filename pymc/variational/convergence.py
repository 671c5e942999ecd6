# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a fit by steps has converged: how its parameters and its loss moved over the later half.

A fit says nothing of this by itself: it ends when its steps are taken. Here the last quarter of the steps is
looked at for a trend, and for noise, in units in which an error matters: standard deviations of the guide for its
means, parts of them for its standard deviations, and nats for the bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.approximation import GuideApproximation
from pymc.variational.guides.base import FlatGuide
from pymc.variational.trajectory import (
    LARGEST_MOVE,
    mean_error,
    trend,
    watched_entries,
)
from pymc.variational.verdict import Verdict

__all__ = ["LEAST_STEPS", "Watch"]

#: What an error of 1 means for each entry of a parameter.
type Scales = Mapping[SharedVariable, np.ndarray]

#: The fewest steps of which something is said.
LEAST_STEPS = 200

#: Times at which parameters are looked at.
N_LOOKS = 64

#: The most parameters that are watched, of each shared variable.
MOST_WATCHED = 2048

#: The largest error by the noise of steps, in the parameters' units.
LARGEST_NOISE = 0.3

#: Nats by which the bound has to rise to be said to.
LEAST_RISE = 0.5

#: A standard deviation beyond which numbers mean nothing, on the unconstrained space.
LARGEST_SD = 1e8

TUNED = "obj_optimizer='tuned'"
AUTO = "or take pm.fit(method='auto')"
ADVICE = f"Take more steps, at a rate that falls, and their average: {TUNED}; {AUTO}"
AVERAGE = f"Average the later steps by average=0.5, at a rate that falls: {TUNED}; {AUTO}"


class Watch:
    """Looks at the parameters of a fit now and then, and says in the end whether it has converged.

    Parameters
    ----------
    approx : GuideApproximation
    shared : sequence of SharedVariable
        Of the step, in the order of its state.
    n_steps : int
        How many steps are to be taken: `LEAST_STEPS` or more.

    Attributes
    ----------
    every : int
        Steps between two looks.
    """

    def __init__(
        self, approx: GuideApproximation, shared: Sequence[SharedVariable], n_steps: int
    ) -> None:
        self.every = max(1, n_steps // N_LOOKS)
        self._approx = approx
        self._params = [p for p in approx.parameter_scales() if p in shared]
        self._places = [shared.index(p) for p in self._params]
        sizes = [int(np.size(p.get_value(borrow=True))) for p in self._params]
        self._entries = [watched_entries(size, MOST_WATCHED) for size in sizes]
        self._looks: list[np.ndarray] = []

    def look(self, state: Sequence[Any]) -> None:
        """Note where the parameters are now, from the state of a driver."""
        self._looks.append(self._flat([np.asarray(state[i]) for i in self._places]))

    def _flat(self, values: Sequence[np.ndarray]) -> np.ndarray:
        found = [np.ravel(v)[entries] for v, entries in zip(values, self._entries)]
        return np.concatenate(found).astype("float64") if found else np.empty(0)

    def verdict(
        self, losses: np.ndarray, loss_factor: float | None, averaged: float | None
    ) -> Verdict | None:
        """Say whether the fit has converged; None where too little is known.

        Parameters
        ----------
        losses : array of floats, shape (n_steps,)
            Of the steps that were watched; empty where they have none.
        loss_factor : float, optional
            As of a report.
        averaged : float, optional
            The last part of the steps that the parameters are the average over.
        """
        if len(self._looks) < N_LOOKS // 2:
            return None
        scales = self._approx.parameter_scales()
        problem = self._strayed(scales) or self._rests() or self._moves(scales, averaged)
        if problem is None and self._is_partial:
            # Elsewhere the parameters say it, and a rate that falls lets the bound rise too
            problem = _rises(losses, loss_factor)
        if problem is not None:
            return problem
        if not self._params and not len(losses):
            return None
        what = " and ".join(
            ["the parameters"] * bool(self._params) + ["the bound"] * self._is_partial
        )
        return Verdict(None, f"over the last quarter of the steps {what} did not move")

    @property
    def _is_partial(self) -> bool:
        """Whether there are parameters whose scale is not known, or that are of rows."""
        return bool(self._approx.tables) or len(self._params) < len(self._approx.dense_params)

    def _rests(self) -> Verdict | None:
        """Say that no step has changed a parameter."""
        if not self._params or any((look != self._looks[0]).any() for look in self._looks):
            return None
        return Verdict(
            None,
            "no step has changed a parameter, as where the learning rate is 0 after a schedule has ended",
            "Make another fit with all steps, pm.fit(n, obj_optimizer='tuned'), and no refine",
            converged=False,
        )

    def _strayed(self, scales: Scales) -> Verdict | None:
        """Say that standard deviations are beyond all bounds."""
        for guide in self._approx.guides:
            if not isinstance(guide, FlatGuide) or not guide.has_moments or guide.layout.plate:
                continue
            mu = self._approx.storage.dense.get(guide.params_by_name.get("mu"))  # type: ignore[arg-type]
            if mu is None or mu not in self._params:
                continue
            sds = scales[mu]
            k = int(np.argmax(sds))
            if sds[k] > LARGEST_SD:
                return Verdict(
                    None,
                    f"the standard deviation of {guide.layout.entry(k)!r} is {sds[k]:.2g}, where numbers mean nothing",
                    "Take a smaller learning rate, standardised data, or pm.fit(method='auto')",
                    converged=False,
                )
        return None

    def _moves(self, scales: Scales, averaged: float | None) -> Verdict | None:
        """Say that parameters still move, or that the last step's are noisy."""
        if not self._params:
            return None
        looks = np.array(self._looks)
        units = self._flat([scales[p] for p in self._params])
        with np.errstate(all="ignore"):
            looks /= units
            found = trend(looks[-N_LOOKS // 4 :])
            moved, noise = np.nan_to_num(found.moved), np.nan_to_num(found.noise)
            if averaged:
                n_last = max(N_LOOKS // 8, round(averaged * len(looks)))
                noise = np.nan_to_num(mean_error(looks[-n_last:]))
        k = int(moved.argmax())
        if moved[k] > LARGEST_MOVE:
            return Verdict(
                None,
                f"{self._what(k)} still moved by {moved[k]:.2g} of its sd over the last quarter of the steps",
                ADVICE,
                converged=False,
            )
        k = int(noise.argmax())
        if noise[k] > LARGEST_NOISE:
            what, advice = (
                ("the average", ADVICE) if averaged else ("the last step's value", AVERAGE)
            )
            return Verdict(
                None,
                f"{what} of {self._what(k)} is off by about {noise[k]:.2g} of its sd, by the noise of the steps",
                advice,
                converged=False,
            )
        return None

    def _what(self, k: int) -> str:
        """Name what a watched number is."""
        for param, entries in zip(self._params, self._entries):
            if k < len(entries):
                return self._of_param(param, int(entries[k]))
            k -= len(entries)
        raise IndexError(k)

    def _of_param(self, param: SharedVariable, entry: int) -> str:
        for guide in self._approx.guides:
            if not isinstance(guide, FlatGuide):
                continue
            for name, own in guide.params_by_name.items():
                if self._approx.storage.dense.get(own) is param and name in KINDS:
                    return f"the {KINDS[name]} of {guide.layout.entry(entry % guide.layout.size)!r}"
        return f"the parameter {param.name}"


#: What parameters are, by their short names.
KINDS = {"mu": "mean", "rho": "sd"}


def _rises(losses: np.ndarray, loss_factor: float | None) -> Verdict | None:
    """Say that the bound still rises."""
    if len(losses) < LEAST_STEPS:
        return None
    last = losses[-(len(losses) // 4) :] / (loss_factor or 1.0)
    found = trend(last[:, None])
    rise = float(-found.slope[0])
    if found.is_sure[0] and rise > LEAST_RISE:
        return Verdict(
            None, f"the bound still rose by {rise:.2g} nats over the last quarter of the steps",
            ADVICE, converged=False,
        )  # fmt: skip
    return None
