# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Five fits, and the bits of their results: on the overlay and on PyMC's tree with the patch they are the same.

Printed as JSON, by name of a fit. Run in a process of its own, which decides what ``import pymc`` is.
"""

import hashlib
import json
import warnings

from typing import Any

import numpy as np
import pytensor

import pymc as pm

RNG = np.random.default_rng(17)
X = RNG.normal(size=(400, 3))
Y = X @ [1.0, -2.0, 0.5] + RNG.normal(size=400)
OPTIONS: Any = {"progressbar": False, "random_seed": 3}


def regression(batch_size: int | None = None) -> pm.Model:
    with pm.Model() as model:
        x, y = (X, Y) if batch_size is None else pm.Minibatch(X, Y, batch_size=batch_size)
        b = pm.Normal("b", 0, 5, shape=3)
        sigma = pm.HalfNormal("sigma", 2)
        pm.Normal("y", x @ b, sigma, observed=y)
    return model


def rows() -> pm.Model:
    with pm.Model(coords={"obs": range(len(Y))}) as model:
        y = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=20)
        mu = pm.Normal("mu", 0, 5)
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("y", z, 1, observed=y, dims="obs")
    return model


def fits() -> dict[str, Any]:
    return {
        "mean-field, minibatches": pm.fit(60, model=regression(50), **OPTIONS),
        "full-rank": pm.fit(60, "fullrank_advi", model=regression(), **OPTIONS),
        "a variable of rows": pm.fit(60, model=rows(), **OPTIONS),
        "particles": pm.fit(
            20, "svgd", model=regression(), inf_kwargs={"n_particles": 10}, **OPTIONS
        ),
        "IWAE": pm.fit(
            40, model=regression(), objective="iwae", n_particles=4, guide="low_rank", **OPTIONS
        ),
    }


def bits(approx: Any) -> str:
    """Return a digest of the losses, the parameters and the draws of a fit."""
    draws = approx.sample(50, random_seed=5).posterior
    arrays = [approx.hist, *(p.get_value() for p in approx.params)]
    arrays += [draws[name].to_numpy() for name in sorted(draws.data_vars)]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    # With it, machine code from a cache may round otherwise than that of the first run
    pytensor.config.numba__fastmath = False
    print(json.dumps({"pymc": pm.__file__, **{name: bits(a) for name, a in fits().items()}}))
