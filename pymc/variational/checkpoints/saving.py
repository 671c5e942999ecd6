# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Write an approximation to the disk: ``approx.save(path)``."""

from __future__ import annotations

import os

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.checkpoints.files import write
from pymc.variational.checkpoints.fingerprint import named, versions
from pymc.variational.checkpoints.latents import latent_fingerprint
from pymc.variational.checkpoints.recipes import guide_recipe
from pymc.variational.checkpoints.state import pack
from pymc.variational.checkpoints.validation import check_generators
from pymc.variational.engine.step import host_value
from pymc.variational.report import FitReport

__all__ = [
    "parameters_of",
    "put_results",
    "results_tree",
    "save_approximation",
    "tables_of",
]


def save_approximation(approx: Any, path: str | os.PathLike[str]) -> Path:
    """Write an approximation; see :meth:`pymc.Approximation.save`."""
    target = Path(path).absolute()
    if target.exists():
        raise FileExistsError(
            f"path={str(path)!r} of save exists, and is left as it is: give another, or remove it."
        )
    tree = {
        "kind": "approximation",
        "model": latent_fingerprint(approx.model, set(approx.params)),
        "versions": versions("python"),
        "approximation": {
            "class": _class_of(approx),
            "text": str(approx),
            "guides": [guide_recipe(guide) for guide in approx.made_of.guides],
            "parameters": parameters_of(approx),
            **results_tree(approx),
        },
    }
    return write(target, pack(tree))


def _class_of(approx: Any) -> str:
    """Return the name by which an approximation is made again.

    Raises
    ------
    TypeError
        If it is made of groups that only the user can make.
    """
    if not approx.guides:
        raise TypeError(
            f"{type(approx).__name__}.save of groups of your own cannot be loaded again without them: only "
            "approximations of pm.fit, pm.MeanField, pm.FullRank, pm.Empirical are saved. Save the draws: "
            "approx.sample().to_netcdf(...)"
        )
    return type(approx).__name__


def results_tree(approx: Any) -> dict[str, Any]:
    """Take what an approximation knows of its fit, and its generator."""
    report = approx.report
    return {
        "generators": [approx.rng],
        "include_transformed": [bool(approx.include_transformed)],
        "hist": np.asarray(approx.hist, dtype="float64"),
        "guide_losses": dict(approx.guide_losses),
        "report": None if report is None else {**asdict(report), "settings": dict(report.settings)},
    }


def put_results(approx: Any, saved: Mapping[str, Any], path: Path) -> None:
    """Give an approximation what :func:`results_tree` took."""
    check_generators(saved, 1, path)
    [approx.rng], [approx.include_transformed] = saved["generators"], saved["include_transformed"]
    approx.hist = saved["hist"]
    approx.guide_losses = dict(saved["guide_losses"])
    report = saved["report"]
    if report is not None:
        approx.report = approx.made_of.report = FitReport.of(report)


def tables_of(approx: Any) -> dict[SharedVariable, Any]:
    """Return the tables of rows by their shared variable."""
    return {table.shared: table for table in approx.tables}


def parameters_of(approx: Any) -> dict[str, np.ndarray]:
    """Take the parameters: of tables those of the rows, without what an optimizer keeps."""
    tables = tables_of(approx)
    return {
        name: tables[var].parameters() if var in tables else host_value(var)
        for name, var in named(approx.params).items()
    }
