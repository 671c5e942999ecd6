# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Write an approximation to the disk: ``approx.save(path)``."""

from __future__ import annotations

import os

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pymc.variational.checkpoints.components import argument_to_json
from pymc.variational.checkpoints.identity import latent_identity, names_of, versions
from pymc.variational.checkpoints.store import Checkpoint, Value, to_builtins, write
from pymc.variational.engine.step import host_value
from pymc.variational.report import FitReport

if TYPE_CHECKING:
    from pymc.variational.approximation import GuideApproximation

__all__ = ["ApproximationContents", "dense_parameters", "result_values", "save_approximation"]


@dataclass(frozen=True, kw_only=True)
class ApproximationContents:
    """Contents of a saved approximation, apart from arrays and generators."""

    kind: Literal["approximation"] = "approximation"
    versions: dict[str, str]
    model: dict[str, dict[str, str]]  # identity of the free variables
    type: str
    text: str  # what it prints
    guides: list[tuple[list[str], dict[str, Any]]]  # names of variables, and the guide in JSON
    groups: dict[str, tuple[int, tuple[int, ...]]]  # axis and lengths, where not all are fitted
    include_transformed: bool
    report: FitReport | None


def save_approximation(approx: GuideApproximation, path: str | os.PathLike[str]) -> Path:
    """Write an approximation; see :meth:`pymc.Approximation.save`."""
    target = Path(path).absolute()
    if target.exists():
        raise FileExistsError(
            f"path={str(path)!r} of save exists, and is left as it is: give another, or remove it."
        )
    if not approx.guides:
        raise TypeError(
            f"{type(approx).__name__}.save of groups of your own cannot be loaded again without them: only "
            "approximations of pm.fit, pm.MeanField, pm.FullRank, pm.Empirical are saved. Save the draws: "
            "approx.sample().to_netcdf(...)"
        )
    contents = ApproximationContents(
        versions=versions("python"),
        model=latent_identity(approx.model, set(approx.params)),
        type=type(approx).__name__,
        text=str(approx),
        guides=[
            ([site.name for site in guide.sites], argument_to_json(guide))
            for guide in approx.underlying.guides
        ],
        groups={rv.name: (g.axis, g.lengths) for rv, g in approx.groups_with_rows.items()},
        include_transformed=bool(approx.include_transformed),
        report=approx.report,
    )
    positions = {f"groups/{rv.name}": g.positions for rv, g in approx.groups_with_rows.items()}
    values = {f"parameters/{name}": value for name, value in dense_parameters(approx).items()}
    results = result_values(approx, approx.hist, approx.guide_losses)
    return write(target, Checkpoint(to_builtins(contents), values | positions | results))


def dense_parameters(approx: GuideApproximation) -> dict[str, np.ndarray]:
    """Return the parameters by name; those of rows without what an optimizer keeps beside them."""
    tables = {table.shared: table for table in approx.tables}
    return {
        name: tables[var].parameters() if var in tables else host_value(var)
        for name, var in names_of(approx.params).items()
    }


def result_values(
    approx: GuideApproximation, hist: np.ndarray, guide_losses: Mapping[str, np.ndarray]
) -> dict[str, Value]:
    """Return the generator and the losses of a fit."""
    losses = {f"guide_losses/{name}": np.asarray(loss) for name, loss in guide_losses.items()}
    return {"rng": approx.rng, "hist": np.asarray(hist, dtype="float64"), **losses}
