# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Minibatch`: what it takes, what it gives, and what it refuses."""

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from pytensor.xtensor.type import XTensorVariable

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.axis_tracking import Rows, indexes
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.shuffle import SAMPLING

PYTHON = Mode(linker="py", optimizer=None)
X = np.arange(60.0).reshape(20, 3)  # a row tells which it is
Y = np.arange(20.0)


def evaluate(*variables):
    return pytensor.function([], list(variables), mode=PYTHON)()


def only_index(*variables):
    [index] = indexes(variables)
    return index


class TestForms:
    def test_one_variable_in_one_tensor_out(self):
        batch = pm.Minibatch(Y, batch_size=4)
        assert batch.type.shape == (4,)

    def test_several_in_a_list_out_in_step(self):
        batches = pm.Minibatch(X, Y, batch_size=4)
        assert isinstance(batches, list)
        x, y = evaluate(*batches)
        np.testing.assert_array_equal(x[:, 0], 3 * y)

    def test_rows_and_columns(self):
        [block] = evaluate(pm.Minibatch(X, batch_size=[4, 2]))
        rows, columns = block[:, :1] // 3, block[:1] % 3
        np.testing.assert_array_equal(block, 3 * rows + columns)
        assert len(indexes([pm.Minibatch(X, batch_size=[4, 2])])) == 2

    @pytest.mark.parametrize(
        "batch_size, shape",
        [
            (2, (2, 5, 6, 7)),
            ([2, ..., 3], (2, 5, 6, 3)),
            ([2, None, 3], (2, 5, 3, 7)),
            ([2, None, 3, ..., 4], (2, 5, 3, 4)),
            ((..., 3), (4, 5, 6, 3)),
            ([None, 2], (4, 2, 6, 7)),
        ],
    )
    def test_sizes_by_place(self, batch_size, shape):
        data = np.arange(4.0 * 5 * 6 * 7).reshape(4, 5, 6, 7)
        batch = pm.Minibatch(data, batch_size=batch_size)
        assert batch.type.shape == shape
        [value] = evaluate(batch)
        assert np.isin(value, data).all()

    def test_ellipsis_may_stand_for_no_axis(self):
        data = np.zeros((4, 5, 6))
        assert pm.Minibatch(data, batch_size=[2, None, ..., 3]).type.shape == (2, 5, 3)

    def test_per_variable(self):
        x, y = pytensor.shared(X), pytensor.shared(Y)
        batches = pm.Minibatch({x: (4, ...), y: 4})
        assert isinstance(batches, tuple)
        x, y = evaluate(*batches)
        np.testing.assert_array_equal(x[:, 0], 3 * y)

    def test_one_variable_in_a_dict_is_a_tuple(self):
        [batch] = pm.Minibatch({pytensor.shared(X): (4, 2)})
        assert evaluate(batch)[0].shape == (4, 2)

    def test_by_dim(self):
        with pm.Model():
            x = pm.Data("x", X, dims=("obs", "feature"))
            w = pm.Data("w", np.arange(3.0), dims="feature")
            y = pm.Data("y", Y, dims="obs")
            batches = pm.Minibatch(x, w, y, batch_size={"obs": 4, "feature": 2})
        x, w, y = evaluate(*batches)
        np.testing.assert_array_equal(x, 3 * y[:, None] + w)
        assert {i.owner.op.dim for i in indexes(batches)} == {"obs", "feature"}

    @pytest.mark.parametrize("sampling", SAMPLING)
    def test_sampling(self, sampling):
        index = only_index(pm.Minibatch(Y, batch_size=4, sampling=sampling))
        assert isinstance(index.owner.op, MinibatchIndexRV)
        assert index.owner.op.sampling == sampling

    def test_epoch_is_the_default(self):
        batch = pm.Minibatch(Y, batch_size=4)
        draw = pm.compile([], batch, random_seed=1, mode=PYTHON)
        np.testing.assert_array_equal(np.sort(np.concatenate([draw() for _ in range(5)])), Y)

    def test_numpy_integers(self):
        assert pm.Minibatch(Y, batch_size=np.int32(4)).type.shape == (4,)


class TestData:
    def test_floats_are_cast_and_integers_kept(self):
        x, y, z = pm.Minibatch(X.astype("float32"), Y.astype("int32"), Y > 3, batch_size=2)
        assert (x.dtype, y.dtype, z.dtype) == (pytensor.config.floatX, "int32", "bool")

    def test_large_integers(self):
        large = np.array([2**40, 70_000, 1])
        batch = pm.Minibatch(large, batch_size=3)
        assert batch.dtype == "int64"
        assert set(evaluate(batch)[0]) == set(large)

    def test_pandas(self):
        frame = pd.DataFrame(X, columns=list("abc"))
        x, y = evaluate(*pm.Minibatch(frame, frame["a"], batch_size=4))
        np.testing.assert_array_equal(x[:, 0], y)

    def test_lists(self):
        assert evaluate(pm.Minibatch([1.0, 2.0, 3.0], batch_size=2))[0].shape == (2,)

    def test_raw_arrays_are_shared_and_not_constants(self):
        batch = pm.Minibatch(X, batch_size=4)
        data = batch.owner.inputs[0]
        assert isinstance(data, pytensor.compile.SharedVariable)
        assert data.type.shape == X.shape

    def test_expressions(self):
        x = pytensor.shared(X)
        standardized = (x - x.mean(0)) / x.std(0)
        batch, y = pm.Minibatch(standardized, Y, batch_size=4)
        batch, y = evaluate(batch, y)
        expected = (X - X.mean(0)) / X.std(0)
        np.testing.assert_allclose(batch, expected[y.astype(int)])

    def test_named_dims(self):
        with pm.Model(coords={"obs": range(20), "feature": list("abc")}):
            x = pmd.Data("x", X, dims=("obs", "feature"))
            y = pmd.Data("y", Y, dims="obs")
            batches = pm.Minibatch(x, y, batch_size=4)
        assert all(isinstance(b, XTensorVariable) for b in batches)
        assert [b.type.dims for b in batches] == [("obs", "feature"), ("obs",)]
        x, y = pytensor.function([], [b.values for b in batches], mode=Mode("py", "fast_compile"))()
        np.testing.assert_array_equal(x[:, 0], 3 * y)
        assert only_index(*batches).owner.op.dim == "obs"

    def test_names(self):
        with pm.Model():
            batch = pm.Minibatch(pm.Data("y", Y), batch_size=2)
        assert batch.name == "minibatch(y)"

    def test_static_shape_of_data_with_changing_rows(self):
        with pm.Model():
            batch = pm.Minibatch(pm.Data("x", X), batch_size=4)
        assert batch.type.shape == (4, None)


class TestSharing:
    def coords(self):
        return pm.Model(coords={"obs": range(20)})

    def test_two_calls_share_the_index_of_a_dim(self):
        with self.coords():
            x, y = pm.Data("x", X, dims=("obs", None)), pm.Data("y", Y, dims="obs")
            first = pm.Minibatch(x, batch_size=4)
            second = pm.Minibatch(y, batch_size=4)
        assert Rows(only_index(first)) == Rows(only_index(second))
        a, b = evaluate(first, second)
        np.testing.assert_array_equal(a[:, 0], 3 * b)

    def test_two_calls_share_it_after_a_clone(self):
        with self.coords() as model:
            y = pm.Data("y", Y, dims="obs")
            batch = pm.Minibatch(y, batch_size=4)
            pm.Normal("lik", pm.Normal("mu"), 1, observed=batch, dims="obs")
        with model.copy() as clone:
            again = pm.Minibatch(clone["y"], batch_size=4)
        [index] = indexes([clone.rvs_to_values[clone["lik"]]])
        assert Rows(only_index(again)) == Rows(index)

    def test_data_of_fixed_length_share_one_node(self):
        with self.coords():
            first = pm.Minibatch(pmd.as_xtensor(Y, dims=("obs",)), batch_size=4)
            second = pm.Minibatch(pmd.as_xtensor(Y, dims=("obs",)), batch_size=4)
        assert only_index(first) is only_index(second)

    @pytest.mark.parametrize("changed", ["x", "y"])
    def test_new_lengths_of_one_of_them(self, changed):
        """One index, and each call's data are checked at each draw."""
        with self.coords() as model:
            x, y = pm.Data("x", Y, dims="obs"), pm.Data("y", Y, dims="obs")
            batches = [pm.Minibatch(x, batch_size=4), pm.Minibatch(y, batch_size=4)]
            draw = pm.compile([], batches, mode=PYTHON, random_seed=1)
            for _ in range(7):
                np.testing.assert_array_equal(*draw())
            model[changed].set_value(np.arange(30.0))
            with pytest.raises(ValueError, match="different numbers of rows"):
                draw()

    @pytest.mark.parametrize("other", [{"batch_size": 5}, {"batch_size": 4, "sampling": "epoch"}])
    def test_not_alike(self, other):
        with self.coords():
            y = pm.Data("y", Y, dims="obs")
            pm.Minibatch(y, batch_size=4, sampling="with_replacement")
            with pytest.raises(ValueError, match="dim 'obs' is subsampled twice in one model"):
                pm.Minibatch(y, **other)

    def test_two_models_do_not_share(self):
        found = []
        for _ in range(2):
            with self.coords():
                found.append(only_index(pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=4)))
        assert found[0].owner.inputs[0] is not found[1].owner.inputs[0]

    def test_another_number_of_rows(self):
        with self.coords():
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=4)
            with pytest.raises(ValueError, match=r"has 10 rows, but the dim 'obs'.*has 20"):
                z = pm.Data("z", Y[:10])
                z_named = pmd.as_xtensor(z, dims=("obs",))
                pm.Minibatch(z_named, batch_size=4)

    def test_nameless_data_join_the_dim(self):
        with self.coords():
            batches = pm.Minibatch(pm.Data("y", Y, dims="obs"), X, batch_size=4)
        assert only_index(*batches).owner.op.dim == "obs"


class TestErrors:
    @pytest.mark.parametrize("size", [True, 2.0, "2", np.bool_(True), pt.lscalar()])
    def test_size_is_no_whole_number(self, size):
        with pytest.raises(
            TypeError, match=r"batch_size=.* of pm.Minibatch must be a whole number; got"
        ):
            pm.Minibatch(Y, batch_size=size)

    @pytest.mark.parametrize("size", [0, -3])
    def test_size_below_one(self, size):
        with pytest.raises(
            ValueError, match=f"batch_size={size} of pm.Minibatch must be at least 1"
        ):
            pm.Minibatch(Y, batch_size=size)

    def test_larger_than_the_data(self):
        with pytest.raises(
            ValueError, match=r"batch_size of pm.Minibatch is 21, but the data .* have 20 rows"
        ):
            pm.Minibatch(Y, batch_size=21)

    def test_as_large_as_the_data(self):
        assert sorted(evaluate(pm.Minibatch(Y, batch_size=20))[0]) == list(Y)

    def test_no_size(self):
        with pytest.raises(TypeError, match=r"pm.Minibatch needs batch_size"):
            pm.Minibatch(Y)

    def test_dict_and_more(self):
        with pytest.raises(TypeError, match=r"takes one dict .* batch_size=4"):
            pm.Minibatch({pytensor.shared(Y): 4}, batch_size=4)

    def test_array_as_a_key(self):
        # NumPy arrays cannot be keys at all; what can be one and is no variable says so
        with pytest.raises(TypeError, match="keys must be symbolic"):
            pm.Minibatch({"y": 4})

    def test_lengths_differ(self):
        with pytest.raises(ValueError, match=r"numbers of rows differ: .* has 20, .* has 19"):
            pm.Minibatch(Y, Y[:-1], batch_size=4)

    def test_sizes_differ_on_one_axis(self):
        x, y = pytensor.shared(X), pytensor.shared(Y)
        with pytest.raises(ValueError, match="batch_size is 4 and 5 for axes that share one index"):
            pm.Minibatch({x: 4, y: 5})

    def test_too_many_axes(self):
        with pytest.raises(ValueError, match=r"for 2 axes, but .* has 1"):
            pm.Minibatch(Y, batch_size=[2, 2])

    def test_two_ellipses(self):
        with pytest.raises(ValueError, match="may have one Ellipsis"):
            pm.Minibatch(X, batch_size=[..., 2, ...])

    def test_no_axis(self):
        with pytest.raises(ValueError, match="subsamples no axis"):
            pm.Minibatch(X, batch_size=[None, None])

    def test_no_dim_of_one_variable(self):
        with pm.Model():
            y = pm.Data("y", Y, dims="obs")
            w = pm.Data("w", Y, dims="rows")
            with pytest.raises(
                ValueError, match=r"for the dims 'rows', but y has the dims .*'obs'"
            ):
                pm.Minibatch(w, y, batch_size={"rows": 4})

    def test_unknown_dim(self):
        with pm.Model():
            y = pm.Data("y", Y, dims="obs")
            with pytest.raises(ValueError, match="'row', which none of the data has"):
                pm.Minibatch(y, batch_size={"obs": 4, "row": 4})

    def test_dims_of_raw_arrays_are_not_known(self):
        with pytest.raises(ValueError, match="name one of its dims"):
            pm.Minibatch(Y, batch_size={"obs": 4})

    def test_leading_axes_of_two_dims(self):
        with pm.Model():
            x, y = pm.Data("x", X, dims=("a", "b")), pm.Data("y", Y, dims="c")
            with pytest.raises(ValueError, match="is the dim 'a' and 'c', which one index cannot"):
                pm.Minibatch(x, y, batch_size=4)

    def test_unknown_sampling(self):
        with pytest.raises(ValueError, match=r"shuffled. of pm.Minibatch must be one of .epoch"):
            pm.Minibatch(Y, batch_size=4, sampling="shuffled")

    def test_several_data_in_a_list(self):
        with pytest.raises(TypeError, match="several data are arguments of their own"):
            pm.Minibatch([X, Y], batch_size=4)

    def test_empty_dict(self):
        with pytest.raises(ValueError, match="empty dict"):
            pm.Minibatch({})

    def test_masked_integers(self):
        masked = np.ma.array([1, 2, 3], mask=[False, True, False])
        with pytest.raises(
            NotImplementedError, match=r"int64 with 1 masked values.*astype\(float\)"
        ):
            pm.Minibatch(masked, batch_size=2)
        batch = pm.Minibatch(masked.astype(float).filled(np.nan), batch_size=3)
        np.testing.assert_array_equal(np.sort(evaluate(batch)[0]), [1, 3, np.nan])

    def test_integers_without_a_mask_stay_as_they_are(self):
        large = np.ma.array([2**40 + 3, 1])
        batch = pm.Minibatch(large, batch_size=2)
        assert batch.type.dtype == "int64"
        assert sorted(evaluate(batch)[0]) == [1, 2**40 + 3]

    def test_the_user_s_array_is_copied(self):
        mine = np.ones(3)
        batch = pm.Minibatch(mine, batch_size=3)
        mine[:] = 0
        assert evaluate(batch)[0].sum() == 3

    def test_random_data(self):
        with pytest.raises(ValueError, match="only non-random variables are allowed"):
            pm.Minibatch(pm.Normal.dist(shape=10), batch_size=2)

    def test_scalar(self):
        with pytest.raises(ValueError, match="at least one axis"):
            pm.Minibatch(np.array(1.0), batch_size=1)

    @pytest.mark.parametrize("data", [np.array(["a", "b"]), {"a"}, "text", np.array([None, 1])])
    def test_not_numeric(self, data):
        with pytest.raises(TypeError, match="takes"):
            pm.Minibatch(data, batch_size=1)

    def test_registered_before(self):
        with pm.Model():
            y = pm.Data("y", Y, dims="obs")
            pm.Normal("early", dims="obs")
            with pytest.raises(ValueError, match="'early' was registered with that dim before"):
                pm.Minibatch(y, batch_size=4)


@settings(max_examples=60)
@given(data=st.data())
def test_any_axes_of_any_shape(data):
    """Every element of a batch is the one that the indexes of its axes say."""
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    size = st.one_of(st.none(), st.integers(1, 6))
    sizes = [data.draw(size.filter(lambda s, n=n: s is None or s <= n)) for n in shape]
    if all(s is None for s in sizes):
        sizes[0] = 1
    full = np.arange(np.prod(shape)).reshape(shape)
    batch = pm.Minibatch(full, batch_size=sizes)
    found = indexes([batch])
    value, *rows = evaluate(batch, *found)
    assert value.shape == tuple(n if s is None else s for s, n in zip(sizes, shape))
    assert len(found) == sum(s is not None for s in sizes)
    # Along each axis the coordinates are those of one draw
    for k, coordinates in enumerate(np.unravel_index(value, shape)):
        lines = np.moveaxis(coordinates, k, 0).reshape(value.shape[k], -1)
        assert (lines == lines[:, :1]).all()
        if sizes[k] is None:
            np.testing.assert_array_equal(lines[:, 0], np.arange(shape[k]))
        else:
            assert any(np.array_equal(lines[:, 0], r) for r in rows)
