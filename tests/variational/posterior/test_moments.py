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

import pytest

import pymc as pm

from pymc.variational.approximation import guided_approximation


def test_state_of_guides_without_moments() -> None:
    with pm.Model() as model:
        pm.HalfNormal("scale")
        pm.Normal("mu", shape=2)
    approx = guided_approximation(model, pm.NormalizingFlow())
    with pytest.warns(UserWarning, match="has no mean in closed form: it is left out here"):
        state = approx.state
    assert not state.mean.data_vars and not state.std.data_vars


def test_state_of_some_guides_without_moments() -> None:
    with pm.Model() as model:
        pm.HalfNormal("scale")
        pm.Normal("mu", shape=2)
    approx = guided_approximation(model, {"mu": pm.NormalizingFlow(), "scale": "mean_field"})
    with pytest.warns(UserWarning, match="'mu'"):
        state = approx.state
    assert list(state.mean.data_vars) == ["scale"]
