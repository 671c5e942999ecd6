# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Raw arrays: shared on Numba and C, whose functions are cached; constants on JAX."""

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.io import Out
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors

import pymc as pm

from pymc.minibatch.array_data import (
    RawData,
    as_constants,
    compiles_to_jax,
    numbers_of,
    outputs_as_constants,
)
from pymc.pytensorf import convert_data

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
    outputs, kwargs = outputs_as_constants(
        [Out(x.sum(), borrow=True)], {"updates": {total: x.sum()}}
    )
    assert raw(outputs[0].variable, *kwargs["updates"].values()) == []
    assert outputs[0].borrow
    assert [*kwargs["updates"]] == [total]
    single, kwargs = outputs_as_constants(x, {"name": "f"})
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


COLUMNS = {"x": [0.5, 2.0, 3.0], "yes": [True, False, True]}
FRAMES = {
    "float and bool": (pd.DataFrame(COLUMNS), [[0.5, 1], [2, 0], [3, 1]]),
    "dummies": (
        pd.get_dummies(pd.DataFrame({"x": [0.5, 2.0], "c": ["a", "b"]})),
        [[0.5, 1, 0], [2, 0, 1]],
    ),
    "Int64 and float": (
        pd.DataFrame({"n": pd.array([1, 2], "Int64"), "x": [0.5, 2]}),
        [[1, 0.5], [2, 2]],
    ),
    "Float32": (pd.DataFrame({"x": pd.array([0.5, 2], "Float32")}), [[0.5], [2]]),
    "big-endian": (pd.DataFrame({"x": np.array([0.5, 2], ">f8")}), [[0.5], [2]]),
}
ARRAYS = {
    "floats": (np.array([0.5, 2.0], ">f8"), "float64"),
    "integers": (np.array([1, 2], ">i4"), "int32"),
    "a field of FITS": (np.array([(1, 0.5), (2, 2.0)], ">i4,>f4")["f1"], "float64"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_numbers(kind):
    """Of which NumPy makes objects: data, observed values and minibatches are the numbers."""
    frame, numbers = FRAMES[kind]
    np.testing.assert_array_equal(convert_data(frame), numbers)
    assert convert_data(frame).dtype == pytensor.config.floatX
    with pm.Model() as model:
        x = pm.Data("x", frame)
        pm.Normal("y", observed=frame)
    np.testing.assert_array_equal(x.get_value(), numbers)
    np.testing.assert_array_equal(model.rvs_to_values[model["y"]].data, numbers)
    [held] = raw(pm.Minibatch(frame, batch_size=2))
    np.testing.assert_array_equal(held.get_value(), numbers)


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_in_another_byte_order(kind):
    array, dtype = ARRAYS[kind]
    with pm.Model():
        x = pm.Data("x", array)
        pm.set_data({"x": array})
    [held] = raw(pm.Minibatch(array, batch_size=2))
    for found in (x.get_value(), held.get_value()):
        np.testing.assert_array_equal(found, array)
    assert held.get_value().dtype == dtype


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean"])
def test_what_is_missing_in_a_column_is_nan(dtype):
    column = pd.Series([1, None, 0], dtype=dtype)
    for data in (column, pd.DataFrame({"n": column, "x": [1.0, 2.0, 3.0]})):
        converted = convert_data(data)
        np.testing.assert_array_equal(np.ma.getmaskarray(converted), np.isnan(numbers_of(data)))
        [held] = raw(pm.Minibatch(data, batch_size=2))
        np.testing.assert_array_equal(held.get_value(), numbers_of(data))
    with (
        pm.Model() as model,
        pytest.warns(pm.exceptions.ImputationWarning, match="y contains missing"),
    ):
        pm.Normal("y", observed=column)
    assert model.rvs_to_values[model["y_observed"]].data.tolist() == [1, 0]


def test_what_is_no_number_stays_as_it_is():
    for data in (pd.DataFrame({"a": ["x"]}), pd.Series(["x"]), [1, 2], pd.DataFrame({"a": [1]}), X):
        assert numbers_of(data) is data


LARGE = np.array([1, 2**40, -(2**35)])


@pytest.mark.parametrize("floatX", ["float64", "float32"])
@pytest.mark.parametrize(
    "make",
    [
        np.asarray,
        np.ma.asarray,
        lambda array: np.ma.masked_equal(array, 7),
        lambda array: np.ma.array(array, mask=False),
        pd.Series,
        lambda array: pd.Series(array, dtype="Int64"),
    ],
    ids=["array", "masked array", "nothing is equal", "no mask", "Series", "Int64"],
)
def test_integers_are_no_others(make, floatX):
    """Those of 32 bits hold none of these, and those of 16 that a floatX of 32 goes with fewer still."""
    with pytensor.config.change_flags(floatX=floatX):
        for array in (LARGE, np.array([40_000, 3, -5])):
            data = make(array)
            with pm.Model() as model:
                x = pm.Data("x", data)
                pm.DiscreteUniform("y", -(2**45), 2**45, observed=data)
            np.testing.assert_array_equal(x.get_value(), array)
            np.testing.assert_array_equal(model.rvs_to_values[model["y"]].data, array)
            [held] = raw(pm.Minibatch(data, batch_size=2))
            np.testing.assert_array_equal(held.get_value(), array)
            assert [dtype.kind for dtype in (x.get_value().dtype, held.get_value().dtype)] == [
                "i",
                "i",
            ]


def test_integers_that_a_smaller_dtype_holds_have_it():
    assert convert_data(np.array([1, 2**31 - 1])).dtype == "int32"
    masked = convert_data(np.ma.array([1, 2**40], mask=[False, True]))
    assert (masked.dtype, masked.mask.tolist()) == ("int32", [False, True])
    assert convert_data(np.ma.array([1, 2**40, 3], mask=[True, False, False])).dtype == "int64"


@pytest.mark.parametrize(
    "make", [pytensor.shared, pt.as_tensor, lambda array: pm.Minibatch(array, batch_size=3)]
)
def test_integers_of_a_variable_are_no_others(make):
    observed = make(LARGE)
    assert convert_data(observed) is observed
    with pm.Model() as model:
        y = pm.DiscreteUniform("y", -(2**45), 2**45, observed=observed)
    assert sorted(model.rvs_to_values[y].eval(mode="FAST_COMPILE")) == sorted(LARGE)


@pytest.mark.parametrize("given", [LARGE, LARGE.tolist(), pd.Series(LARGE), pd.array(LARGE)])
def test_data_of_integers_are_set_to_no_others(given):
    with pm.Model():
        x = pm.Data("x", np.array([1, 2, 3]))
        with pytest.raises(
            ValueError, match=r"set_data of 'x' got integers from .* int32 can hold"
        ):
            pm.set_data({"x": given})
        pm.set_data({"x": LARGE // 2**20})
    assert x.get_value().tolist() == (LARGE // 2**20).tolist()


@pytest.mark.parametrize(
    "names",
    [("dataset", "batch_size"), ("layout", "blocks"), ("layout", "batch_size", "total_size")],
)
def test_a_frame_is_no_loader_by_the_names_of_its_columns(names):
    frame = pd.DataFrame({name: [1.0, 2.0] for name in names})
    with pm.Model():
        x = pm.Data("x", frame)
        pm.set_data({"x": 2 * frame})
    np.testing.assert_array_equal(x.get_value(), 2 * frame)
    np.testing.assert_array_equal(raw(pm.Minibatch(frame, batch_size=2))[0].get_value(), frame)
