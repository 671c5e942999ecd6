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
"""The basis of an HSGP is fixed once: it has to be that of all rows, not of the first batch."""

import numpy as np
import pytest

import pymc as pm

from tests.minibatch.enumeration import (
    full_logp_and_gradient,
    mean_over_batches,
    some_point,
)

N, B = 6, 2
X, Y = np.linspace(0, 10, N)[:, None], np.sin(np.linspace(0, 10, N))


def hsgp(x, y):
    gp = pm.gp.HSGP(m=[4], c=1.5, cov_func=pm.gp.cov.ExpQuad(1, 2.0))
    pm.Normal("lik", gp.prior("f", X=x), 1, observed=y)
    return gp


def periodic(x, y):
    gp = pm.gp.HSGPPeriodic(m=3, cov_func=pm.gp.cov.Periodic(1, period=3.0, ls=1.0))
    pm.Normal("lik", gp.prior("f", X=x), 1, observed=y)
    return gp


@pytest.mark.parametrize("build", [hsgp, periodic])
def test_basis_of_all_rows(build):
    with pm.Model() as model:
        gp = build(*pm.Minibatch(X, Y, batch_size=B, sampling="without_replacement"))
    with pm.Model() as full:
        expected = build(X, Y)
    np.testing.assert_array_equal(gp._X_center, expected._X_center)
    point = some_point(model)
    np.testing.assert_allclose(
        mean_over_batches(model, point), full_logp_and_gradient(full, point), rtol=1e-10
    )
