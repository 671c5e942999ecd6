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
"""Raw arrays: shared on Numba and C, whose functions are cached; constants on JAX."""

import numpy as np
import pytensor
import pytest

from pytensor.compile.io import Out
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors

import pymc as pm

from pymc.minibatch.raw_data import RawData, as_constants, compiles_to_jax
from pymc.pytensorf import _with_constants

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6)


def raw(*graphs):
    return [var for var in ancestors(graphs) if isinstance(var, RawData)]


def test_arrays_become_raw_data():
    x, y = pm.Minibatch(X, Y, batch_size=3)
    assert sorted(v.type.dtype for v in raw(x, y)) == ["float64", "int64"]
    with pm.Model():
        assert raw(pm.Minibatch(pm.Data("x", X), batch_size=3)) == []


def test_observed_constants_of_a_full_model_too():
    with pm.Model() as full:
        pm.Normal("lik", pm.Normal("mu"), 1, observed=X, dims=("obs", "feature"), shape=X.shape)
    model = pm.minibatch_model(full, {"obs": 3})
    assert len(raw(model.rvs_to_values[model["lik"]])) == 1


def test_as_constants():
    x, y = pm.Minibatch(X, Y, batch_size=3)
    shared = pytensor.shared(1.0)
    new = as_constants([x * shared, y])
    assert raw(*new) == []
    assert shared in ancestors(new)
    shapes = {getattr(v.type, "shape", None) for v in ancestors(new) if isinstance(v, Constant)}
    assert {(6, 2), (6,)} <= shapes
    assert as_constants([shared]) == [shared]


def test_outputs_and_updates_in_one_go():
    x, _ = pm.Minibatch(X, Y, batch_size=3)
    total = pytensor.shared(0.0)
    outputs, kwargs = _with_constants([Out(x.sum(), borrow=True)], {"updates": {total: x.sum()}})
    assert raw(outputs[0].variable, *kwargs["updates"].values()) == []
    assert outputs[0].borrow
    assert [*kwargs["updates"]] == [total]
    single, kwargs = _with_constants(x, {"name": "f"})
    assert raw(single) == []
    assert kwargs == {"name": "f"}


@pytest.mark.parametrize("mode, expected", [("JAX", True), ("FAST_COMPILE", False), (None, False)])
def test_modes(mode, expected):
    assert compiles_to_jax(mode) is expected


@pytest.mark.filterwarnings("ignore:The RandomType SharedVariables:UserWarning")
def test_same_rows_and_no_copy_on_jax():
    x, y = pm.Minibatch(X, Y, batch_size=3)
    draws = {}
    for mode in ("JAX", "FAST_COMPILE"):
        fn = pm.compile([], [x, y], mode=mode, random_seed=3)
        draws[mode] = [np.column_stack([np.asarray(o) for o in fn()]) for _ in range(4)]
        assert any(isinstance(v, RawData) for v in fn.get_shared()) is (mode != "JAX")
    np.testing.assert_array_equal(draws["JAX"], draws["FAST_COMPILE"])
