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
r"""Log-weights of rows, and what they say of the probability of each.

A particle of a row has the log-weight

.. math::

    w_{ki} = \log p(x_i, z_{ki} \mid \theta_k) - \log q(z_{ki} \mid \theta_k),

with :math:`z_{ki}` drawn from the guide of the row's variables, and :math:`\theta_k` from that of the
global ones. The mean of :math:`e^{w_{ki}}` over particles is an unbiased estimate of
:math:`\int q(\theta)\, p(x_i \mid \theta)\, d\theta`: the probability of a row that is not among the data of
the fit. What is global has no part in it otherwise: its prior and :math:`\log q(\theta)` are not of a row.

References
----------
-   Yuri Burda, Roger Grosse, Ruslan Salakhutdinov (2016)
    Importance weighted autoencoders, section 5. arXiv:1509.00519
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from pymc.util import RandomState
from pymc.variational.memory import check_fits
from pymc.variational.posterior.row_weights import RowWeights

__all__ = ["log_evidence", "log_weights"]


def log_weights(
    approx: Any,
    n_particles: int,
    rows: Any = None,
    *,
    same_globals: bool = False,
    random_seed: RandomState = None,
    progressbar: bool = True,
) -> xr.DataArray:
    r"""Compute log-weights of particles of rows, log p - log q.

    Parameters
    ----------
    approx : GuidedApproximation
        What :func:`pymc.fit` returns for a model with latent variables of the rows, or with a guide
        or an objective.
    n_particles : int
        Particles K of each row.
    rows : slice, sequence of int or bool, or dict, optional
        Which rows, as of :meth:`GuidedApproximation.sample`. Default: all. New rows are those that
        :func:`pymc.set_data` brings.
    same_globals : bool
        Whether all particles have one draw of the global variables, as in a bound of particles;
        each has its own by default.
    random_seed : int, RandomState or Generator, optional
    progressbar : bool
        Whether to show a bar, once it takes more than a second.

    Returns
    -------
    DataArray of float, shape (n_particles, n_rows)
        With the dims particle and that of the rows, in nats.

    Raises
    ------
    ValueError, KeyError, IndexError, TypeError
        If the model has no rows, or rows of several plates, or rows that depend on each other, or
        there is no such row.
    MemoryError
        If the result would not fit in memory; nothing is drawn then.

    Examples
    --------
    >>> from pymc.variational.fit_objective import guided_approximation
    >>> from pymc.variational.posterior.held_out import log_weights
    >>> with pm.Model(coords={"obs": range(4)}) as model:
    ...     y = pm.Minibatch(pm.Data("y", np.zeros(4), dims="obs"), batch_size=2)
    ...     z = pm.Normal("z", 0, 1, dims="obs")
    ...     rows = pm.Normal("rows", z, 1, observed=y, dims="obs")
    >>> approx = guided_approximation(model)
    >>> log_weights(approx, 3, random_seed=1).shape
    (3, 4)
    """
    function = "pm.variational.log_weights"
    made = RowWeights.of(approx, n_particles, rows, same_globals, random_seed, function)
    check_fits(
        {"log_weights": 8 * made.n_particles * made.n_rows},
        f"{function} of {made.n_particles:,} particles of {made.n_rows:,} rows",
        "Take some rows at a time, such as rows=slice(0, 1000), or fewer particles; log_evidence sums over "
        "the particles part by part",
    )
    result = np.empty((n_particles, made.n_rows))
    for particles, part, weights in made.parts(show=progressbar):
        result[particles, part] = weights
    return made.labelled(result, ("particle",))


def log_evidence(
    approx: Any,
    n_particles: int = 1000,
    rows: Any = None,
    *,
    same_globals: bool = False,
    random_seed: RandomState = None,
    progressbar: bool = True,
) -> xr.Dataset:
    r"""Estimate log p(x) of each row, from particles of it.

    .. math::

        \log \hat p(x_i) = \log \frac1K \sum_k e^{w_{ki}}

    It is too small in the mean, and the less so the more particles there are. Of rows that the fit has
    not seen, the sum over rows is the held-out log-probability.

    Parameters
    ----------
    approx, rows, same_globals, random_seed, progressbar
        As of :func:`log_weights`. With `same_globals` the result is log p(x | θ) for one draw of the
        global variables; by default θ is averaged over the guide.
    n_particles : int

    Returns
    -------
    Dataset
        By row, in nats: ``log_evidence``, and ``se``, its standard error, which means little where it
        is large: above 0.3 or so, take more particles.

    Raises
    ------
    ValueError, KeyError, IndexError, TypeError
        As :func:`log_weights`.

    Examples
    --------
    >>> from pymc.variational.fit_objective import guided_approximation
    >>> from pymc.variational.posterior.held_out import log_evidence
    >>> with pm.Model(coords={"obs": range(4)}) as model:
    ...     y = pm.Minibatch(pm.Data("y", np.zeros(4), dims="obs"), batch_size=2)
    ...     z = pm.Normal("z", 0, 1, dims="obs")
    ...     rows = pm.Normal("rows", z, 1, observed=y, dims="obs")
    >>> approx = guided_approximation(model, start_sigma={"z": 0.5**0.5})
    >>> found = log_evidence(approx, 10, random_seed=1)  # of an exact guide, by any particle
    >>> found["log_evidence"].values.round(4)
    array([-1.2655, -1.2655, -1.2655, -1.2655])
    """
    function = "pm.variational.log_evidence"
    made = RowWeights.of(approx, n_particles, rows, same_globals, random_seed, function)
    total, squares = np.full(made.n_rows, -np.inf), np.full(made.n_rows, -np.inf)
    for _, part, weights in made.parts(show=progressbar):
        total[part] = np.logaddexp(total[part], np.logaddexp.reduce(weights, axis=0))
        squares[part] = np.logaddexp(squares[part], np.logaddexp.reduce(2 * weights, axis=0))
    # The relative variance of the weights, by their mean square and mean
    spread = np.expm1(np.maximum(squares + np.log(n_particles) - 2 * total, 0))
    found = {
        "log_evidence": made.labelled(total - np.log(n_particles)),
        "se": made.labelled(np.sqrt(spread / n_particles)),
    }
    return xr.Dataset(found, attrs={"n_particles": int(n_particles)})
