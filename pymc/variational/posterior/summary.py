# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A table of means and intervals of a fit: ``approx.summary()``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pymc.model.full_data import full_data_model, is_streamed
from pymc.util import RandomState
from pymc.variational.posterior.draw import latent_outputs, of_rows, with_lengths
from pymc.variational.posterior.sample import SampleOptions, posterior_draws

if TYPE_CHECKING:
    import pandas as pd

    from pymc.variational.approximation import GuideApproximation

__all__ = ["summarize"]


def summarize(
    approx: GuideApproximation,
    draws: int,
    var_names: Sequence[str] | str | None,
    random_seed: RandomState,
    **kwargs: Any,
) -> pd.DataFrame:
    """Summarize draws; the arguments are those of ``Approximation.summary``."""
    if var_names is None:
        var_names = _without_rows(approx)
    options = SampleOptions(var_names=var_names, random_seed=random_seed)
    tree = posterior_draws(approx, draws, options, include_data=False)
    from arviz_stats import summary  # ArviZ takes a second to import

    kwargs = {"kind": "stats", "round_to": "none", **kwargs}
    table = summary(tree, **kwargs)
    if kwargs["round_to"] == "none" and "sd" in table:
        for name, sd in table["sd"].items():
            # Two digits of the standard deviation; a constant has none
            digits = 1 - int(np.floor(np.log10(sd))) if 0 < sd < np.inf else 6
            table.loc[name] = table.loc[name].astype("float64").round(digits)
    return table


def _without_rows(approx: GuideApproximation) -> list[str]:
    """List the variables that have no value for each row of the data."""
    outputs = latent_outputs(approx.model)
    left = [output for output in outputs if not any(output.axes) and not output.mixed]
    if not is_streamed(approx.model):
        model = full_data_model(approx.model)
        rows = {output.name for output in of_rows(with_lengths(left, lambda: model), model)}
        rows -= {rv.name for rv in approx.model.free_RVs}
        left = [output for output in left if output.name not in rows]
    return [output.name for output in left]
