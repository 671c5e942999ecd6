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
