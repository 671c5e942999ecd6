# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Data` of a loader: fields, dims and dtypes; and `pm.set_data` of a batch."""

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.exceptions import ShapeError
from pymc.minibatch.array_data import cast_rows
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.data_placeholder import available_rows, check_row_numbers, unset_rows
from pymc.minibatch.plates import subsampled_dims
from pymc.minibatch.stream_index import loader_placeholders
from pymc.model.fgraph import clone_model
from tests.minibatch.streams import batch_of, feed, loader_of

N, B = 6, 2
DATA = np.random.default_rng(0).normal(size=(N, 3))
FIELDS = {"X": DATA[:, :2], "y": DATA[:, 2]}


@pytest.fixture
def model():
    with pm.Model() as model:
        batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
        pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 2], dims="obs")
    return model


@pytest.fixture
def of_fields():
    with pm.Model() as model:
        loader = loader_of(FIELDS, B)
        X = pm.Data("X", loader, dims=("obs", "column"))
        y = pm.Data("y", loader, dims="obs")
        pm.Normal("lik", X[:, 0] * pm.Normal("w"), 1, observed=y, dims="obs")
    return model


def index_of(model):
    return subsampled_dims(model)["obs"]


class TestData:
    def test_shape_dtype_and_start(self, model):
        value = model["batch"].get_value()
        np.testing.assert_array_equal(value, np.zeros((B, 3)))
        assert model["batch"].type.shape == (None, 3)
        assert model.data_vars == [model["batch"]]
        assert model.named_vars_to_dims["batch"] == ("obs", "column")

    @pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "int8", "bool"])
    @pytest.mark.parametrize("floatX", ["float32", "float64"])
    def test_dtype_is_that_of_data(self, dtype, floatX):
        array = np.zeros((N, 2), dtype)
        with pytensor.config.change_flags(floatX=floatX), pm.Model() as model:
            pm.Data("batch", loader_of(array, B))
            pm.Data("array", array)
        assert model["batch"].dtype == model["array"].dtype

    def test_a_field_that_is_not_there(self):
        with (
            pm.Model(),
            pytest.raises(ValueError, match=r"dicts of 'X', 'y'.*none of these is 'x'"),
        ):
            pm.Data("x", loader_of(FIELDS, B))

    def test_too_few_dims(self):
        with pm.Model(), pytest.raises(ShapeError, match=r"its batches have 2 axes"):
            pm.Data("batch", loader_of(DATA, B), dims="obs")

    def test_a_dim_of_another_length(self):
        with pm.Model(coords={"obs": range(5)}):
            with pytest.raises(
                ValueError, match=r"length 5 in the model, but the loader has 6 rows"
            ):
                pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))

    def test_coords_that_are_there_stay(self):
        coords = {"obs": list("uvwxyz"), "column": ["p", "q", "r"]}
        with pm.Model(coords=coords) as model:
            pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
        assert model.coords["obs"] == tuple("uvwxyz")
        assert model.coords["column"] == ("p", "q", "r")

    def test_a_dim_that_has_a_variable_already(self):
        with pm.Model(coords={"obs": range(N)}):
            pm.Normal("z", dims="obs")
            with pytest.raises(ValueError, match=r"pm.Data of a loader subsamples .* 'z'"):
                pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))

    def test_fields_have_one_dim(self):
        loader = loader_of(FIELDS, B)
        with pm.Model():
            pm.Data("X", loader, dims=("obs", "column"))
            with pytest.raises(ValueError, match=r"give both one dim"):
                pm.Data("y", loader, dims="row")

    @pytest.mark.parametrize(
        "use",
        [
            lambda loader: pm.Normal("y", observed=loader),
            lambda loader: pm.Minibatch(loader, batch_size=2),
        ],
    )
    def test_a_loader_is_no_data(self, use):
        with pm.Model(), pytest.raises(TypeError, match=r"is a loader.*pm.Data"):
            use(loader_of(DATA, B))

    def test_rows_without_batches(self):
        class Source:
            layout = loader_of(DATA, B).layout

            def blocks(self):
                return iter(())

        with pm.Model(), pytest.raises(TypeError, match=r"pm.DataLoader"):
            pm.Data("batch", Source())

    def test_a_model_within_a_model(self):
        with pm.Model() as model:
            with pm.Model(name="inner") as inner:
                batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
                pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 2], dims="obs")
                pm.set_data({"batch": DATA[:4]}, model=inner)
        assert loader_placeholders(model)[1]["inner::batch"] is model["inner::batch"]
        assert model["inner::batch"].get_value().shape == (4, 3)


class TestSetData:
    def test_any_number_of_rows(self, model):
        for n in (1, 2, 5, 9):
            pm.set_data({"batch": np.ones((n, 3))}, model=model)
            assert model["batch"].get_value().shape == (n, 3)
            np.testing.assert_array_equal(
                loader_placeholders(model)[0].state.get_value(), np.full(n, -1)
            )

    def test_rows_that_know_their_numbers(self, model):
        feed(model, DATA, [5, 0, 0])
        np.testing.assert_array_equal(loader_placeholders(model)[0].state.get_value(), [5, 0, 0])
        np.testing.assert_array_equal(model["batch"].get_value(), DATA[[5, 0, 0]])

    def test_a_batch_that_is_written_to_later(self, model):
        batch = DATA[:2].copy()
        pm.set_data({"batch": batch}, model=model)
        batch[:] = 0
        np.testing.assert_array_equal(model["batch"].get_value(), DATA[:2])

    def test_fields_of_the_same_rows(self, of_fields):
        feed(of_fields, FIELDS, [4, 1])
        np.testing.assert_array_equal(loader_placeholders(of_fields)[0].state.get_value(), [4, 1])
        np.testing.assert_array_equal(
            available_rows(of_fields, index_of(of_fields)).numbers, [4, 1]
        )

    def test_fields_of_other_rows(self, of_fields):
        batch = {"X": batch_of(FIELDS["X"], [0, 1]), "y": batch_of(FIELDS["y"], [1, 0])}
        with pytest.raises(ValueError, match=r"which are not the same rows"):
            pm.set_data(batch, model=of_fields)
        assert available_rows(of_fields, index_of(of_fields)) is None

    def test_a_field_alone(self, of_fields):
        with pytest.raises(ValueError, match=r"and none to .'y'."):
            pm.set_data({"X": FIELDS["X"][:2]}, model=of_fields)
        np.testing.assert_array_equal(of_fields["X"].get_value(), np.zeros((B, 2)))

    def test_a_field_after_the_other(self, of_fields):
        """Which rows the two have in common is not known then."""
        of_fields.set_data("X", batch_of(FIELDS["X"], [0, 1, 2]))
        with pytest.raises(ValueError, match=r"they have {'X': 3, 'y': 2} rows"):
            available_rows(of_fields, index_of(of_fields))
        of_fields.set_data("y", batch_of(FIELDS["y"], [3, 4, 5]))
        np.testing.assert_array_equal(
            available_rows(of_fields, index_of(of_fields)).numbers, [-1] * 3
        )

    def test_what_a_fit_leaves_was_not_given(self, model):
        assert available_rows(model, index_of(model)) is None
        feed(model, DATA, [1, 2])
        assert available_rows(model, index_of(model)) is not None
        unset_rows(model)
        assert available_rows(model, index_of(model)) is None

    def test_a_clone_has_what_was_given(self, model):
        feed(model, DATA, [1, 2])
        other = clone_model(model)
        np.testing.assert_array_equal(available_rows(other, index_of(other)).numbers, [1, 2])

    @pytest.mark.parametrize(
        "values, error, message",
        [
            (DATA[:, :2], ShapeError, r"shape \(6, 2\).*columns \['a', 'b', 'c'\]"),
            (DATA[0], ShapeError, r"shape \(3,\) for 'batch'"),
            (DATA[:0], ValueError, "no rows for 'batch'"),
            (np.where(DATA > DATA.max() - 1e-9, np.nan, DATA), ValueError, "NaN .* in rows"),
            ({"batch": DATA}, TypeError, r"pm.set_data\(batch\)"),
            (loader_of(DATA, B), TypeError, r"next\(iter\(loader\)\)"),
            (DATA.astype(str), TypeError, "placeholder holds float64"),
        ],
    )
    def test_what_is_no_batch(self, model, values, error, message):
        before = model["batch"].get_value()
        with pytest.raises(error, match=message):
            pm.set_data({"batch": values}, model=model)
        np.testing.assert_array_equal(model["batch"].get_value(), before)

    def test_rows_of_another_loader(self, model):
        batch = batch_of(DATA, [0, 1])
        batch.rows = np.array([0, N])
        with pytest.raises(ValueError, match=r"has the row 6, .* total_size=6"):
            pm.set_data({"batch": batch}, model=model)

    def test_coords_of_the_rows(self, model):
        pm.set_data({"batch": DATA[:2]}, model=model, coords={"obs": ["u", "v"]})
        assert available_rows(model, index_of(model)).coords == ("u", "v")
        with pytest.raises(ShapeError, match=r"coords of the dim 'obs'"):
            pm.set_data({"batch": DATA[:2]}, model=model, coords={"obs": ["u"]})
        pm.set_data({"batch": DATA[:2]}, model=model)  # of other rows, whose names are not these
        assert available_rows(model, index_of(model)).coords is None

    def test_coords_of_all_rows_name_those_that_are_known(self):
        with pm.Model(coords={"obs": list("uvwxyz")}) as model:
            batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
            pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 2], dims="obs")
        feed(model, DATA, [4, 0])
        assert available_rows(model, index_of(model)).coords == ("y", "u")

    def test_other_data_as_ever(self, model):
        with model:
            x = pm.Data("x", [1.0, 2.0])
        pm.set_data({"x": [1.0, 2.0, 3.0]}, model=model)
        assert x.get_value().shape == (3,)


class TestCast:
    def test_no_copy_of_what_fits(self):
        assert cast_rows(DATA, DATA.dtype, "it") is DATA

    @pytest.mark.parametrize(
        "value, dtype",
        [(2**53 + 1, "float64"), (2**24 + 1, "float32"), (2**31, "int32"), (-(2**15) - 1, "int16")],
    )
    def test_integers_without_a_place(self, value, dtype):
        with pytest.raises(ValueError, match=f"to {value}, not all of which {dtype} can"):
            cast_rows(np.array([value]), np.dtype(dtype), "it")

    def test_the_largest_integer_is_not_taken_for_exact(self):
        with pytest.raises(ValueError, match=r"not all of which float64"):
            cast_rows(np.array([np.iinfo("int64").max]), np.dtype("float64"), "it")

    def test_floats_are_no_integers(self):
        with pytest.raises(TypeError, match=r"placeholder holds int32"):
            cast_rows(np.array([1.5]), np.dtype("int32"), "it")

    def test_booleans_are_numbers(self):
        np.testing.assert_array_equal(
            cast_rows(np.array([True, False]), np.dtype("float64"), "it"), [1.0, 0.0]
        )


def test_rows_without_numbers(model):
    rows = Rows(index_of(model))
    with pytest.raises(ValueError, match=r"values of 'z' .* pm.Trainer"):
        check_row_numbers(rows, "values of 'z'")
    feed(model, DATA, [1, 2])
    check_row_numbers(rows, "values of 'z'")
    pm.set_data({"batch": DATA[:2]}, model=model)
    with pytest.raises(ValueError, match=r"values of 'z' .* pm.Trainer"):
        check_row_numbers(rows, "values of 'z'")
