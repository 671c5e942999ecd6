# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits by pymc-extras."""

import time

import pymc_extras

import pymc as pm

from posteriordb.peer import N_DRAWS, FitModel, Fitted, flatten

FIXED_DRAWS = 30  # DADVI's default


def pathfinder(model: pm.Model, seed: int) -> Fitted:
    started = time.perf_counter()
    with model:
        found = pymc_extras.fit(
            "pathfinder", num_draws=N_DRAWS, random_seed=seed, progressbar=False
        )
    return Fitted(flatten(found.posterior), time.perf_counter() - started)


def laplace(model: pm.Model, seed: int) -> Fitted:
    started = time.perf_counter()
    with model:
        found = pymc_extras.fit("laplace", draws=N_DRAWS, random_seed=seed, progressbar=False)
    seconds = time.perf_counter() - started
    gradients = int(found.optimizer_result.njev)
    return Fitted(flatten(found.posterior), seconds, gradients=gradients)


def dadvi(model: pm.Model, seed: int) -> Fitted:
    started = time.perf_counter()
    with model:
        found = pymc_extras.fit("dadvi", n_draws=N_DRAWS, random_seed=seed, progressbar=False)
    seconds = time.perf_counter() - started
    gradients = FIXED_DRAWS * int(found.optimizer_result.njev)
    return Fitted(flatten(found.posterior), seconds, gradients=gradients)


FITS: dict[str, FitModel] = {"pathfinder": pathfinder, "laplace": laplace, "dadvi": dadvi}
