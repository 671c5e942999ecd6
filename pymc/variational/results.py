# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""How a fit went, beside the draws of its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from pymc.variational.approximation_base import ApproximationBase
from pymc.variational.report import FitReport, Setting

__all__ = ["GROUP", "add_fit", "fit_dataset"]

#: Name of the group of a DataTree that says how the fit went.
GROUP = "fit"

#: Fields of a report whose entries are attributes.
NESTED = frozenset({"settings", "verdict"})


def add_fit(tree: Any, approx: ApproximationBase) -> Any:
    """Add the group "fit" to draws of an approximation.

    Parameters
    ----------
    tree : DataTree or MultiTrace
        It is not changed.
    approx : Approximation

    Returns
    -------
    DataTree or MultiTrace
        With the dataset of `fit_dataset` as a group; `tree` itself for an approximation that was
        not fitted, and a MultiTrace, which has no groups.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> import xarray as xr
    >>> from pymc.variational.results import add_fit
    >>> fitted = SimpleNamespace(hist=np.array([3.0, 2.0]), report=None)
    >>> add_fit(xr.DataTree(), fitted)["fit/loss"].values
    array([3., 2.])
    """
    dataset = fit_dataset(approx)
    if dataset is None or not isinstance(tree, xr.DataTree):
        return tree
    tree = tree.copy()
    tree[GROUP] = xr.DataTree(dataset)
    return tree


def fit_dataset(approx: ApproximationBase) -> xr.Dataset | None:
    """Tell the losses of a fit, and what it was, in a form that files hold.

    Parameters
    ----------
    approx : Approximation
        Its `hist` has the loss of each step, and its `report` says what ran.

    Returns
    -------
    Dataset or None
        The variable ``loss``, in nats where it is a negative lower bound or an upper bound, times
        ``loss_factor`` where the attributes have one, along ``step``, which counts from 1; it is not
        there for a fit without a score. The fields of the report are attributes, and so are the
        settings in it; a bool is 0 or 1. None for an approximation that was not fitted.
    """
    losses, report = np.asarray(approx.hist), approx.report
    if report is None and not losses.size:
        return None
    attributes = {} if report is None else _attributes(report)
    if not losses.size:
        return xr.Dataset(attrs=attributes)
    steps = np.arange(1, losses.size + 1)
    return xr.Dataset({"loss": ("step", losses)}, {"step": steps}, attributes)


def _attributes(report: FitReport) -> dict[str, Setting]:
    verdict = {} if report.verdict is None else vars(report.verdict)
    fields = {k: v for k, v in vars(report).items() if k not in NESTED}
    both = {**report.settings, **fields, **verdict}  # a setting does not hide what ran
    both = {name: value for name, value in both.items() if value is not None}
    # netCDF has no bool
    return {name: int(v) if isinstance(v, bool) else v for name, v in both.items()}
