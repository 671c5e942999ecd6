# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Where a fit is between two passes over all rows, in arrays and generators by name, for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pymc.variational.auto.all_rows import Passes
from pymc.variational.auto.log_posterior import Budget
from pymc.variational.auto.modes import Modes
from pymc.variational.auto.natural_gradient import Climb
from pymc.variational.auto.normal import Dense, Normal, Slope
from pymc.variational.auto.row_data import LoadedRows

__all__ = ["saved_position", "set_position"]


def saved_position(
    rng: np.random.Generator,
    rows: LoadedRows,
    budget: Budget,
    modes: Modes | None,
    passes: Passes | None,
) -> dict[str, Any]:
    """Take what a fit goes on from.

    Without a pass yet it is where the rows are read, and the fit begins anew.
    """
    values: dict[str, Any] = {
        "rng": rng,
        "rows": np.array([rows.seed, rows.n_passes]),
        "budget": np.array([budget.n_gradients, budget.n_rows], dtype="float64"),
    }
    if modes is None or passes is None:
        return values
    values |= _of_climb("now", passes.now) | _of_climb("best", modes.best)
    for k, other in enumerate(modes.others):
        values |= _of_climb(f"other {k}", other)
    slope = passes.slope._asdict()
    values |= {f"slope/{name}": array for name, array in slope.items()}
    numbers = np.array([passes.rate, passes.exact], dtype="float64")
    return values | {"numbers": numbers, "n_others": np.array(len(modes.others))}


def set_position(
    values: Mapping[str, Any], rows: LoadedRows, budget: Budget
) -> tuple[np.random.Generator, Modes | None, Passes | None]:
    """Set where rows are read, and return the rest of what :func:`saved_position` took.

    Raises
    ------
    LookupError, TypeError, ValueError
        If it has taken something else.
    """
    rows.go_on(*map(int, values["rows"]))
    n_gradients, n_rows = values["budget"]
    budget.n_gradients, budget.n_rows = float(n_gradients), int(n_rows)
    if "now/mean" not in values:
        return values["rng"], None, None
    slope = Slope(*(values[f"slope/{name}"] for name in Slope._fields))
    rate, exact = map(float, values["numbers"])
    passes = Passes(_climb("now", values), slope, rate, bool(exact))
    others = (_climb(f"other {k}", values) for k in range(int(values["n_others"])))
    return values["rng"], Modes(_climb("best", values), tuple(others)), passes


def _of_climb(name: str, climb: Climb) -> dict[str, Any]:
    normal: Normal = climb.normal
    assert isinstance(normal, Dense)  # many rows have no groups
    numbers = (climb.bound, climb.slope, climb.converged, climb.n_steps, climb.n_draws, climb.moved)
    return {
        f"{name}/mean": normal.mean,
        f"{name}/factor": normal.factor,
        f"{name}/numbers": np.array(numbers, dtype="float64"),
    }


def _climb(name: str, values: Mapping[str, Any]) -> Climb:
    normal = Dense(values[f"{name}/mean"], values[f"{name}/factor"])
    bound, slope, converged, n_steps, n_draws, moved = map(float, values[f"{name}/numbers"])
    return Climb(normal, bound, slope, bool(converged), int(n_steps), int(n_draws), moved)
