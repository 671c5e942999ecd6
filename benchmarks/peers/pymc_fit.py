# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""PyMC's own ``pm.fit``, of the release or of the patch: the same code for both."""

import time

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from _problems import Flights, Mixture, Normals, Posterior, Regression
from _regression import check_side

import pymc as pm

from peers import ANNEALING, LEARNING_RATE


class PyMCFit:
    """A fit by ``Inference.fit``, continued by ``refine``, which compiles nothing."""

    compiles_each_call = False

    def __init__(self, model: pm.Model, method: type[pm.Inference], backend: str | None) -> None:
        self.learning_rate = pytensor.shared(np.asarray(LEARNING_RATE, pytensor.config.floatX))
        with model:
            self.inference = method(random_seed=1)
        optimizer = pm.adam(learning_rate=self.learning_rate)
        self.inference.fit(100, obj_optimizer=optimizer, backend=backend, progressbar=False)

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        before = len(self.inference.hist)
        self.inference.refine(n_steps, progressbar=progressbar)
        return self.inference.hist[before:]

    def anneal(self) -> None:
        for rate, n_steps in ANNEALING:
            self.learning_rate.set_value(np.asarray(rate, pytensor.config.floatX))
            self.run(n_steps)

    def posterior(self) -> Posterior:
        approx = self.inference.approx
        return Posterior(*(value.eval().astype("float64") for value in (approx.mean, approx.std)))


def start(data: Any, settings: dict[str, Any]) -> PyMCFit:
    """Compile, and take the first steps."""
    check_side(settings["patched"])
    build, method = MODELS[type(data)]
    return PyMCFit(build(data), method, settings.get("backend"))


def first_fit(data: Any, settings: dict[str, Any]) -> dict[str, float]:
    """Measure a process's first fit, from the data to the last step, in seconds."""
    check_side(settings["patched"])
    build, method = MODELS[type(data)]
    start = time.perf_counter()
    model = build(data)
    built = time.perf_counter()
    with model:
        approx = pm.fit(settings["n_steps"], method=method(), progressbar=False)
    fitted = time.perf_counter()
    if len(approx.hist) != settings["n_steps"]:
        raise RuntimeError(f"{settings['n_steps']} steps asked for, {len(approx.hist)} taken")
    return {"model": built - start, "fit": fitted - built, "time": fitted - start}


# The patch needs no total_size in these; it is given because the release does.


def normals(data: Normals) -> pm.Model:
    n_rows, n_columns = data.data.shape
    batch = pm.Minibatch(data.data, batch_size=data.batch_size)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, sigma=1e5, shape=n_columns)
        sd = pm.HalfNormal("sd", shape=n_columns)
        pm.Normal("y", mu, sigma=sd, observed=batch, total_size=n_rows)
    return model


def mixture(data: Mixture) -> pm.Model:
    with pm.Model() as model:
        pm.NormalMixture("x", w=data.weights, mu=data.means, sigma=data.sds)
    return model


def regression(data: Regression) -> pm.Model:
    n_rows, n_columns = data.X.shape
    X, y = pm.Minibatch(data.X, data.y, batch_size=data.batch_size)
    with pm.Model() as model:
        w = pm.Normal("w", 0, 1, shape=n_columns)
        pm.Normal("y", pt.dot(X, w), 1, observed=y, total_size=n_rows)
    return model


def flights(data: Flights) -> pm.Model:
    """Return the model of ``examples/flights.py``, in the form that the release fits too."""
    n_rows = len(data.delay)
    columns = [data.features, *data.groups.values(), data.delay]
    features, carrier, origin, month, delay = pm.Minibatch(*columns, batch_size=data.batch_size)
    size = data.N_GROUPS
    with pm.Model() as model:
        typical_delay = pm.Normal("typical_delay", 0, 20)
        spread = pm.HalfNormal("carrier_spread", 10)
        carrier_delay = pm.Normal("carrier_delay", typical_delay, spread, shape=size["carrier"])
        origin_shift = pm.ZeroSumNormal("origin_shift", sigma=10, shape=size["origin"])
        month_shift = pm.ZeroSumNormal("month_shift", sigma=10, shape=size["month"])
        slope = pm.Normal("slope", 0, 10, shape=data.features.shape[1])
        expected = carrier_delay[carrier] + origin_shift[origin] + month_shift[month]
        expected += (features * slope).sum(axis=-1)
        sigma = pm.HalfNormal("sigma", 50)
        nu = pm.Gamma("nu", 2, 0.1)
        pm.StudentT("delay", nu=nu, mu=expected, sigma=sigma, observed=delay, total_size=n_rows)
    return model


MODELS: dict[type, tuple[Callable[[Any], pm.Model], type[pm.Inference]]] = {
    Normals: (normals, pm.ADVI),
    Mixture: (mixture, pm.ADVI),
    Regression: (regression, pm.FullRankADVI),
    Flights: (flights, pm.ADVI),
}
