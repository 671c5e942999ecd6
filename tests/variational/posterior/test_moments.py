# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

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
