# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Measure the effect of mistakes with a minibatch in the installed PyMC, plain or with the patch.

``python -P docs/explanation/release_answers.py`` uses the installed PyMC. It takes three minutes on
plain PyMC, most of them for NUTS.
"""

# ruff: noqa: T201
import warnings

from collections.abc import Callable

import numpy as np
import pytensor

import pymc as pm

STEPS = 15_000


def fit(model: pm.Model) -> str:
    """Fit by Adam with a falling learning rate; return means and sds."""
    learning_rate = pytensor.shared(0.05)

    def cool(approx, losses, step):
        learning_rate.set_value(0.05 * 100 ** (-step / STEPS))

    with model:
        approx = pm.fit(
            STEPS,
            obj_optimizer=pm.adam(learning_rate=learning_rate),
            callbacks=[cool],
            random_seed=1,
            progressbar=False,
        )
    means, sds = approx.mean_data, approx.std_data  # for a vector, the mean over its elements
    return ", ".join(
        f"{name} {float(means[name].mean()):.3f} ± {float(sds[name].mean()):.4f}"
        for name in means.data_vars
    )


rng = np.random.default_rng(1)
values = rng.normal(1, 1, size=100)
N = 1000
x = rng.normal(size=N)
y = 1 + 2 * x + 0.5 * rng.normal(size=N)


def mean_model(**kwargs) -> pm.Model:
    with pm.Model() as model:
        batch = pm.Minibatch(values, batch_size=10)
        pm.Normal("x", pm.Normal("mu"), 1, observed=batch, **kwargs)
    return model


def regression(x_batch, y_batch, total_size=N) -> pm.Model:
    with pm.Model() as model:
        mu = pm.Normal("a", 0, 10) + pm.Normal("b", 0, 10) * x_batch
        pm.Normal("y", mu, 0.5, observed=y_batch, total_size=total_size)
    return model


def with_potential() -> pm.Model:
    with pm.Model() as model:
        x_batch, y_batch = pm.Minibatch(x, y, batch_size=50)
        mu = pm.Normal("a", 0, 10) + pm.Normal("b", 0, 10) * x_batch
        pm.Potential("y", pm.logp(pm.Normal.dist(mu, 0.5), y_batch).sum())
    return model


def slot_for_each_row() -> pm.Model:
    """Build a model with latent variables of the batch; for 200 rows, sds are mu 0.0705, z 0.7071."""
    with pm.Model() as model:
        batch = pm.Minibatch(np.tile(values, 2), batch_size=20)
        z = pm.Normal("z", pm.Normal("mu"), 1, shape=20)
        pm.Normal("x", z, 1, observed=batch, total_size=200)
    return model


def nuts() -> str:
    with regression(*pm.Minibatch(x, y, batch_size=50)):
        draws = pm.sample(
            200, tune=200, chains=2, cores=1, random_seed=1, progressbar=False
        ).posterior["b"]
    return " and ".join(f"{c.mean():.2f} ± {c.std():.1e}" for c in draws.to_numpy())


def find_map() -> str:
    with regression(*pm.Minibatch(x, y, batch_size=50)):
        point = pm.find_MAP(progressbar=False)
    return ", ".join(f"{name} {value:.3f}" for name, value in point.items())


CASES: dict[str, Callable[[], str]] = {
    "mean, total_size=100": lambda: fit(mean_model(total_size=100)),
    "mean, no total_size": lambda: fit(mean_model()),
    "mean, total_size=0": lambda: fit(mean_model(total_size=0)),
    "mean, total_size=1000": lambda: fit(mean_model(total_size=1000)),
    "a latent variable for each row of the batch": lambda: fit(slot_for_each_row()),
    "regression, x and y from one call": lambda: fit(
        regression(*pm.Minibatch(x, y, batch_size=50))
    ),
    "regression, x and y from two calls": lambda: fit(
        regression(pm.Minibatch(x, batch_size=50), pm.Minibatch(y, batch_size=50))
    ),
    "regression, y in batches and x in full": lambda: fit(
        regression(x[:50], pm.Minibatch(y, batch_size=50))
    ),
    "regression as a Potential": lambda: fit(with_potential()),
    "regression, find_MAP": find_map,
    "regression, NUTS, b of two chains": nuts,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(f"{pm.__file__}, PyMC {pm.__version__}")
    exact = values.sum() / 101, 101**-0.5
    print(f"mean, exact: {exact[0]:.3f} ± {exact[1]:.4f}")
    design = np.column_stack([np.ones(N), x])
    precision = design.T @ design / 0.25 + np.eye(2) / 100
    mode = np.linalg.solve(precision, design.T @ y / 0.25)
    sds = np.sqrt(np.diag(np.linalg.inv(precision)))
    print(f"regression, exact: a {mode[0]:.3f} ± {sds[0]:.4f}, b {mode[1]:.3f} ± {sds[1]:.4f}")
    for name, run in CASES.items():
        try:
            result = run()
        except (ValueError, TypeError, NotImplementedError) as error:
            result = f"{type(error).__name__}: {error}"
        print(f"{name}: {result}", flush=True)
