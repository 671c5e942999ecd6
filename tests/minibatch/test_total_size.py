# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""How many rows a term stands for: found, checked, or refused."""

from itertools import permutations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor.scan import scan
from pytensor.scan.utils import until

import pymc as pm
import pymc.dims as pmd

from tests.minibatch.enumeration import (
    PYTHON,
    assert_mean_is_full,
    mean_over_batches,
)

N, B = 5, 2
rng = np.random.default_rng(2)
X = rng.normal(size=(N, 3))
Y = rng.normal(size=N)
COORDS = {"obs": range(N), "feature": list("abc")}

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning")


def factor(model, name="lik"):
    """Tell by what the log-probability of a term is multiplied, at present."""
    term, bare = model[name], model[name].owner.inputs[0]
    value = model.rvs_to_values[term]
    scaled, plain = pm.logp(term, value).sum(), pm.logp(bare, value).sum()
    givens = model.replace_rvs_by_values([scaled, plain])
    point = model.initial_point()
    fn = pytensor.function(model.value_vars, givens, mode=PYTHON, on_unused_input="ignore")
    scaled, plain = fn(*(point[v.name] for v in model.value_vars))
    return float(scaled / plain)


class TestExactAnswers:
    """Cases of known value."""

    @pytest.mark.parametrize(
        "sampling, variance",
        [("with_replacement", 3.43365), ("without_replacement", 2.28910), ("epoch", 2.28910)],
    )
    def test_mean_and_variance_of_the_scaled_logp(self, sampling, variance):
        """A2 and A7: the variance without replacement is (N-B)/(N-1) of that with it."""
        data = np.array([0.5, -1.0, 2.0, 0.3])
        with pm.Model() as model:
            mu = pm.Normal("mu")
            y = pm.Minibatch(data, batch_size=2, sampling=sampling)
            pm.Normal("lik", mu, 1, observed=y)
        values = mean_over_batches(model, {"mu": np.array(0.2)}, reduce=None, terms=[model["lik"]])
        np.testing.assert_allclose(values[:, 0].mean(), -6.065754, atol=5e-7)
        np.testing.assert_allclose(values[:, 0].var(), variance, atol=5e-6)

    def test_blocks_of_rows_and_columns(self):
        """A5: NM/(nm) over all blocks; N/n alone gives half."""
        data = rng.normal(size=(5, 4))
        with pm.Model() as model:
            pm.Normal("lik", pm.Normal("mu"), 1, observed=pm.Minibatch(data, batch_size=[2, 2]))
        with pm.Model() as full:
            pm.Normal("lik", pm.Normal("mu"), 1, observed=data)
        assert factor(model) == pytest.approx(5 * 4 / (2 * 2), rel=1e-12)
        assert_mean_is_full(model, full)

    def test_batches_of_other_sizes(self):
        """A8: scaled by the rows really there, the mean over all orders is the full logp."""
        with pm.Model() as model:
            batch = pm.Data("batch", Y[:2])
            pm.Normal("lik", pm.Normal("mu"), 1, observed=batch, total_size=N)
        logp = model.compile_fn(model.observedlogp, mode=PYTHON, on_unused_input="ignore")
        of_part = {}
        for part in (*permutations(range(N), 2), *permutations(range(N), 1)):
            model.set_data("batch", Y[list(part)])
            of_part[part] = float(logp({"mu": 0.3}))
        orders = [
            np.mean([of_part[order[:2]], of_part[order[2:4]], of_part[order[4:]]])
            for order in permutations(range(N))
        ]
        full = pm.logp(pm.Normal.dist(0.3, 1), Y).eval(mode=PYTHON).sum()
        np.testing.assert_allclose(np.mean(orders), full, rtol=1e-10)


class TestDims:
    def models(self, build):
        with pm.Model(coords=COORDS) as model:
            build(
                pm.Minibatch(
                    pm.Data("x", X, dims=("obs", "feature")),
                    pm.Data("y", Y, dims="obs"),
                    batch_size=B,
                    sampling="without_replacement",
                )
            )
        with pm.Model(coords=COORDS) as full:
            build((pt.as_tensor(X), pt.as_tensor(Y)))
        return model, full

    def test_dims_mean_the_rows_of_the_batch(self):
        def build(data):
            x, y = data
            w = pm.Normal("w", dims="feature")
            pm.Normal("lik", x @ w, 1, observed=y, dims="obs")

        model, full = self.models(build)
        assert model["lik"].type.shape == (B,)
        assert len(model.coords["obs"]) == N
        assert_mean_is_full(model, full)

    def test_scalar_parameters(self):
        def build(data):
            pm.Normal("lik", pm.Normal("mu"), 1, observed=data[1], dims="obs")

        assert_mean_is_full(*self.models(build))

    def test_two_dims(self):
        def build(data):
            mu = pm.Normal("mu", dims="feature")
            pm.Normal("lik", mu, 1, observed=data[0], dims=("obs", "feature"))

        assert_mean_is_full(*self.models(build))

    def test_dims_of_equal_length_are_not_confused(self):
        square = rng.normal(size=(3, 3))
        coords = {"obs": range(3), "feature": range(3)}

        def build(data):
            mu = pm.Normal("mu", shape=3)
            pm.Normal("lik", mu, 1, observed=data, dims=("obs", "feature"))

        for dim in coords:
            with pm.Model(coords=coords) as model:
                data = pm.Data("x", square, dims=("obs", "feature"))
                batch = pm.Minibatch(data, batch_size={dim: 3}, sampling="without_replacement")
                if dim == "feature":
                    with pytest.raises(
                        ValueError, match=r"axis 1.*a parameter has values of its own"
                    ):
                        build(batch)
                    continue
                build(batch)
            with pm.Model(coords=coords) as full:
                build(square)
            assert_mean_is_full(model, full)

    def test_raw_arrays_under_dims(self):
        with pm.Model(coords=COORDS) as model:
            y = pm.Minibatch(Y, batch_size=B)
            pm.Normal("lik", pm.Normal("mu"), 1, observed=y, dims="obs")
        assert factor(model) == pytest.approx(N / B)

    def test_length_of_the_batch_is_no_length_of_the_dim(self):
        with pm.Model(coords={"obs": range(B)}):
            y = pm.Minibatch(Y, batch_size=B)
            with pytest.raises(ValueError, match=r"the dim 'obs' has length 2, but .* out of 5"):
                pm.Normal("lik", 0, 1, observed=y, dims="obs")

    def test_another_dim_of_equal_length(self):
        with pm.Model(coords={"obs": range(N), "other": range(N)}):
            y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pytest.raises(ValueError, match="has the dim 'other', but it is rows of"):
                pm.Normal("lik", 0, 1, observed=y, dims="other")

    def test_new_dim_has_all_rows(self):
        with pm.Model() as model:
            y = pm.Minibatch(Y, batch_size=B)
            pm.Normal("lik", pm.Normal("mu"), 1, observed=y, dims="obs", shape=y.shape)
        assert model.dim_lengths["obs"].eval() == N

    def test_unknown_dim_is_the_release_s_error(self):
        with pm.Model():
            y = pm.Minibatch(Y, batch_size=B)
            with pytest.raises(KeyError, match="unknown to the model"):
                pm.Normal("lik", 0, 1, observed=y, dims="obs")

    def test_full_data_on_a_subsampled_dim(self):
        with pm.Model(coords=COORDS):
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pytest.raises(ValueError, match=r"'lik' has the dim 'obs', which pm.Minibatch"):
                pm.Normal("lik", 0, 1, observed=Y, dims="obs")

    @pytest.mark.parametrize("family", ["univariate", "multivariate"])
    def test_named_dims(self, family):
        def build(x, y):
            w = pmd.Normal("w", dims="feature")
            if family == "univariate":
                pmd.Normal("lik", (x * w).sum("feature"), 1, observed=y)
            else:
                cov = pmd.as_xtensor(np.eye(3), dims=("feature", "feature_"))
                pmd.MvNormal("lik", w, cov, core_dims=("feature", "feature_"), observed=x)

        with pm.Model(coords=COORDS) as model:
            x, y = pmd.Data("x", X, dims=("obs", "feature")), pmd.Data("y", Y, dims="obs")
            build(*pm.Minibatch(x, y, batch_size=B, sampling="without_replacement"))
        with pm.Model(coords=COORDS) as full:
            build(pmd.Data("x", X, dims=("obs", "feature")), pmd.Data("y", Y, dims="obs"))
        assert_mean_is_full(model, full)

    def test_named_dims_in_another_order(self):
        def build(x):
            mu = pmd.Normal("mu", dims="feature")
            pmd.Normal("lik", mu, 1, observed=x, dims=("feature", "obs"))

        with pm.Model(coords=COORDS) as model:
            data = pmd.Data("x", X, dims=("obs", "feature"))
            build(pm.Minibatch(data, batch_size=B, sampling="without_replacement"))
        with pm.Model(coords=COORDS) as full:
            build(pmd.Data("x", X, dims=("obs", "feature")))
        assert_mean_is_full(model, full)


class TestTotalFollowsTheData:
    def test_set_data(self):
        with pm.Model() as model:
            y = pm.Data("y", Y)
            pm.Normal("lik", pm.Normal("mu"), 1, observed=pm.Minibatch(y, batch_size=B))
            assert factor(model) == pytest.approx(N / B)
            pm.set_data({"y": np.concatenate([Y, Y])})
        assert factor(model) == pytest.approx(2 * N / B)

    def test_explicit_shape_follows_too(self):
        with pm.Model() as model:
            y = pm.Data("y", Y)
            batch = pm.Minibatch(y, batch_size=B)
            pm.Normal("lik", pm.Normal("mu"), 1, observed=batch, total_size=y.shape)
            pm.set_data({"y": np.concatenate([Y, Y])})
        assert factor(model) == pytest.approx(2 * N / B)


class TestExplicit:
    @pytest.mark.parametrize(
        "total_size",
        [
            N,
            np.int64(N),
            (N,),
            [N, None],
            (N, ...),
            (..., None),
            [N, 3],
            (N, ..., 3),
            np.array([N, 3]),
            pt.as_tensor(N),
            "symbolic",
            "shape",
        ],
        ids=str,
    )
    def test_forms(self, total_size):
        data = pytensor.shared(X)
        if isinstance(total_size, str):
            total_size = {"symbolic": data.shape[0], "shape": data.shape}[total_size]
        with pm.Model() as model:
            batch = pm.Minibatch(data, batch_size=B)
            pm.Normal("lik", pm.Normal("mu"), 1, observed=batch, total_size=total_size)
        assert factor(model) == pytest.approx(N / B)

    def test_multivariate(self):
        data = pytensor.shared(X)
        with pm.Model() as model:
            batch = pm.Minibatch(data, batch_size=B)
            mu = pm.Normal("mu", shape=3)
            pm.MvNormal("lik", mu, np.eye(3), observed=batch, total_size=data.shape)
        assert factor(model) == pytest.approx(N / B)

    def test_hand_fed_batches_are_taken_as_given(self):
        with pm.Model() as model:
            batch = pm.Data("batch", X[:2])
            pm.Normal("lik", pm.Normal("mu"), 1, observed=batch, total_size=(100, 6))
        assert factor(model) == pytest.approx(100 / 2 * 6 / 3)

    @pytest.mark.parametrize("total_size", [N + 1, (N + 1, ...), pt.as_tensor(N + 1)], ids=str)
    def test_wrong(self, total_size):
        with pm.Model():
            batch = pm.Minibatch(X, batch_size=B)
            with pytest.raises(
                ValueError, match="axis 0: total_size is 6, but the data have 5 rows"
            ):
                pm.Normal("lik", 0, 1, observed=batch, total_size=total_size)

    @pytest.mark.parametrize("data", [Y, "minibatch"], ids=str)
    @pytest.mark.parametrize(
        "total_size, error",
        [
            (0, ValueError),
            (-5, ValueError),
            (pt.as_tensor(0), ValueError),
            (5.0, TypeError),
            (True, TypeError),
            (np.bool_(True), TypeError),
            ("5", TypeError),
            (pt.as_tensor(5.0), TypeError),
            ({"obs": 5}, TypeError),
        ],
        ids=str,
    )
    def test_no_size(self, data, total_size, error):
        data = pm.Minibatch(Y, batch_size=B) if isinstance(data, str) else data
        with (
            pm.Model(),
            pytest.raises(error, match=r"total_size=.* of 'lik' must be .*rows of the full data"),
        ):
            pm.Normal("lik", 0, 1, observed=data, total_size=total_size)

    @pytest.mark.parametrize("total_size", [(5, 3, 2), np.array([5, 3, 2])])
    def test_too_many(self, total_size):
        with pm.Model(), pytest.raises(ValueError, match="more entries than the 2 axes"):
            pm.Normal("lik", 0, 1, observed=X, total_size=total_size)

    def test_two_ellipses(self):
        with pm.Model(), pytest.raises(ValueError, match="Only one Ellipsis"):
            pm.Normal("lik", 0, 1, observed=X, total_size=(..., 5, ...))

    def test_fewer_than_there_are(self):
        with (
            pm.Model(),
            pytest.raises(ValueError, match="is 4 along axis 0, but 5 rows are observed"),
        ):
            pm.Normal("lik", 0, 1, observed=Y, total_size=4)

    def test_scalar(self):
        with pm.Model(), pytest.raises(ValueError, match="more entries than the 0 axes"):
            pm.Normal("lik", 0, 1, observed=1.0, total_size=5)


class TestOutOfStep:
    """What would be a wrong posterior, silently, is an error."""

    def test_two_calls_for_x_and_y(self):
        x, y = pm.Minibatch(X, batch_size=B), pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="two minibatch indexes meet"):
            pm.Normal("lik", x[:, 0], 1, observed=y)

    def test_two_indexes_in_the_parameters(self):
        x, z = pm.Minibatch(X, batch_size=B), pm.Minibatch(X, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="rows of two minibatch indexes meet"):
            pm.Normal("lik", x[:, 0] + z[:, 0], 1, observed=pm.Minibatch(Y, batch_size=B))

    def test_y_but_not_x(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="a parameter has values of its own"):
            pm.Normal("lik", X[:B, 0], 1, observed=y)

    def test_x_but_not_y(self):
        x = pm.Minibatch(X, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="its observed value is not"):
            pm.Normal("lik", x[:, 0], 1, observed=Y[:B])

    def test_constant_y(self):
        x = pm.Minibatch(X, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="its observed value is not"):
            pm.Normal("lik", x[:, 0], 1, observed=np.zeros(B))

    def test_full_length_weights(self):
        y = pm.Minibatch(Y, batch_size=N)
        with pm.Model(), pytest.raises(ValueError, match="a parameter has values of its own"):
            pm.Normal("lik", 0, np.arange(1.0, N + 1), observed=y)

    def test_variable_with_slots_for_the_rows(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model():
            z = pm.Normal("z", shape=B)
            with pytest.raises(ValueError, match="other rows would reuse its slots"):
                pm.Normal("lik", z, 1, observed=y)

    def test_it_is_named_where_it_meets_the_rows(self):
        x, y = pm.Minibatch(X, Y, batch_size=B)
        with pm.Model():
            z = pm.Normal("z", shape=B)
            with pytest.raises(ValueError, match=r"not of the batch \(z\)"):
                pm.Normal("lik", z + x[:, 0], 1, observed=y)

    def test_observed_variable_of_other_rows_as_a_parameter(self):
        y, z = pm.Minibatch(Y, batch_size=B), pm.Minibatch(Y, batch_size=B)
        with pm.Model():
            first = pm.Normal("first", 0, 1, observed=z)
            with pytest.raises(ValueError, match="two minibatch indexes meet"):
                pm.Normal("lik", first, 1, observed=y)

    def test_one_index_on_two_axes(self):
        square = pytensor.shared(np.eye(N))
        batch = pm.Minibatch(square, batch_size=B)
        index = batch.owner.inputs[1]
        with pm.Model(), pytest.raises(ValueError, match="picks the diagonal"):
            pm.Normal("lik", 0, 1, observed=square[index][:, index])

    def test_rows_within_one_draw(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="within one draw"):
            pm.MvNormal("lik", np.zeros(B), np.eye(B), observed=y)

    def test_random_walk_over_rows(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="within one draw"):
            pm.GaussianRandomWalk("lik", init_dist=pm.Normal.dist(), observed=y)

    def test_zerosum_over_rows(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="within one draw"):
            pm.ZeroSumNormal("lik", observed=y, shape=(B,))


class TestMixed:
    """Rows that are mixed before the likelihood."""

    @pytest.mark.parametrize(
        "mix, match",
        [
            (lambda y: pt.cumsum(y), "mixes the rows"),
            (lambda y: pt.sort(y), "mixes the rows"),
            (lambda y: y - y.mean(), "mixes the rows"),
            (lambda y: y / y.max(), "mixes the rows"),
            (lambda y: y[::-1], "by their place in the batch"),
            (lambda y: y[:1], "by their place in the batch"),
            (lambda y: y[[1, 0]], "by their place in the batch"),
            (lambda y: y[y > 0], "by their place in the batch"),
            (lambda y: pt.concatenate([y, y]), "joins arrays along the rows"),
            (lambda y: pt.repeat(y, 2), "mixes the rows"),
            (lambda y: pt.diff(y), "by their place in the batch"),
            (lambda y: pt.outer(y, y).ravel(), "mixes the rows|one minibatch index on two axes"),
        ],
    )
    @pytest.mark.parametrize("vouched", [False, True])
    def test_surely(self, mix, match, vouched):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match=match):
            pm.Normal("lik", 0, 1, observed=mix(y), total_size=N if vouched else None)

    def test_in_the_parameters(self):
        x, y = pm.Minibatch(X, Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match=r"parameters: .*mixes the rows"):
            pm.Normal("lik", x[:, 0] - x[:, 0].mean(), 1, observed=y)

    def test_columns_may_be_mixed(self):
        x, y = pm.Minibatch(X, Y, batch_size=B)
        with pm.Model() as model:
            pm.Normal("lik", pt.cumsum(x, axis=1).sum(1), 1, observed=y)
        assert factor(model) == pytest.approx(N / B)

    def unknown(self, y):
        """A loop that stops by a condition: nobody has a rule for it."""
        return scan(lambda row: (row * 2, until(row.sum() > 1e9)), y, return_updates=False)

    def test_unknown_op(self):
        y = pm.Minibatch(Y, batch_size=B)
        with (
            pm.Model(),
            pytest.raises(ValueError, match=r"cannot be followed through.*total_size="),
        ):
            pm.Normal("lik", 0, 1, observed=self.unknown(y))

    def test_unknown_op_is_vouched_for_by_total_size(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model() as model:
            pm.Normal("lik", pm.Normal("mu"), 1, observed=self.unknown(y), total_size=N)
        assert factor(model) == pytest.approx(N / B)

    def test_dims_do_not_vouch(self):
        """All write them: they say how long an axis is, and not what is done to its rows."""
        with pm.Model(coords=COORDS):
            y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pytest.raises(ValueError, match=r"cannot be followed through.*total_size="):
                pm.Normal("lik", 0, 1, observed=self.unknown(y), dims="obs")

    def test_an_empty_total_does_not_vouch(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="cannot be followed through"):
            pm.Normal("lik", 0, 1, observed=self.unknown(y), total_size=(None,))

    @pytest.mark.parametrize("total_size", [None, N])
    def test_in_a_model_of_full_data(self, total_size):
        with pm.Model(coords=COORDS) as full:
            y = pm.Data("y", Y, dims="obs")
            mu = self.unknown(y * pm.Normal("b"))
            pm.Normal("lik", mu, 1, observed=y, dims="obs", total_size=total_size)
        assert factor(pm.minibatch_model(full, batch_size=B)) == pytest.approx(N / B)

    @pytest.mark.parametrize("total_size", [17, (None, 1)])
    def test_a_wrong_total_does_not_vouch(self, total_size):
        x, y = pm.Minibatch(X, Y, batch_size=B)
        observed = x * self.unknown(y)[:, None]
        match = r"total_size is (17|1), but the data have 5 rows"
        with pm.Model(), pytest.raises(ValueError, match=match):
            pm.Normal("lik", 0, 1, observed=observed, total_size=total_size)

    def test_an_axis_of_rows_needs_its_total(self):
        x, y = pm.Minibatch(X, Y, batch_size=B)
        mu = self.unknown(y)[:, None]
        with pm.Model(), pytest.raises(ValueError, match=r"axis 0 is rows of .* no entry for it"):
            pm.Normal("lik", mu, 1, observed=x, total_size=(None, N))

    def test_another_index_cannot_be_vouched_for(self):
        x, y = pm.Minibatch(X, batch_size=B), pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="of another minibatch index"):
            pm.Normal("lik", self.unknown(x[:, 0]), 1, observed=y, total_size=N)

    def test_rows_within_one_draw_cannot_be_vouched_for(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.raises(ValueError, match="within one draw"):
            pm.MvNormal("lik", self.unknown(y), np.eye(B), observed=y, total_size=N)

    def test_column_against_vector(self):
        x, y = pm.Minibatch(X, Y[:, None], batch_size=B)

        def logp(value, mu):
            return -((value - mu) ** 2)

        with pm.Model(), pytest.raises(ValueError, match=r"axis 1.*has length 1 there"):
            pm.CustomDist("lik", x[:, 0] * pm.Normal("b"), logp=logp, observed=y)

    def test_simulator_with_a_summary(self):
        def simulate(rng, mu, size):
            return rng.normal(mu, 1, size=size)

        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model(), pytest.warns(DeprecationWarning, match="RandomVariable"):
            with pytest.raises(ValueError, match=r"Sort.*mixes the rows.*sum over its rows"):
                pm.Simulator("lik", simulate, 0.0, sum_stat="sort", observed=y)


class TestUsersFunctions:
    def test_draws_that_depend_on_each_other(self):
        def walk(sigma, size):
            return pt.cumsum(pm.Normal.dist(0, sigma, size=size))

        y = pm.Minibatch(Y, batch_size=B)
        # The log-probability is that of the steps, from one row to the next
        with pm.Model(), pytest.raises(ValueError, match=r"by their place.*sum over its rows"):
            pm.CustomDist("lik", pm.HalfNormal("s"), dist=walk, observed=y)

    @pytest.mark.parametrize("kind", ["logp", "dist and logp"])
    def test_logp_that_reaches_for_a_minibatch(self, kind):
        x, y = pm.Minibatch(X, Y, batch_size=B)

        def logp(value, w):
            return -((value - x[:, 0] * w) ** 2)

        dist = {"dist": lambda w, size: pm.Normal.dist(w, 1, size=size)} if "dist" in kind else {}
        with pm.Model(), pytest.raises(ValueError, match="not among its parameters"):
            pm.CustomDist("lik", pm.Normal("w"), logp=logp, observed=y, **dist)


class TestAncestry:
    def test_random_observed_value(self):
        with pm.Model():
            x = pm.Normal("x")
            with pytest.raises(
                TypeError,
                match=r"Variables that depend on other nodes.*random variable 'x' \(.* <- x\)",
            ):
                pm.Normal("lik", 0, 1, observed=x + 1)

    def test_behind_a_minibatch(self):
        y = pm.Minibatch(Y, batch_size=B)
        with pm.Model():
            x = pm.Normal("x")
            with pytest.raises(TypeError, match="random variable 'x'"):
                pm.Normal("lik", 0, 1, observed=y + x)

    def test_unregistered(self):
        with pm.Model(), pytest.raises(TypeError, match="random variable 'normal_rv"):
            pm.Normal("lik", 0, 1, observed=pm.Normal.dist(shape=3))

    def test_inside_of_an_inner_graph(self):
        with pm.Model(), pytest.raises(TypeError, match="random variable"):
            mixture = pm.NormalMixture.dist([0.5, 0.5], [0, 1], 1)
            pm.Normal("lik", 0, 1, observed=mixture * 2)


class TestFreeVariables:
    def test_with_parameters_of_a_minibatch_and_without_its_dim(self):
        x = pm.Minibatch(X, batch_size=B)
        with (
            pm.Model(),
            pytest.raises(ValueError, match="'z', axis 0, has parameters that are rows"),
        ):
            pm.Normal("z", x[:, 0])

    def test_shape_of_a_minibatch_is_no_dependence(self):
        with pm.Model() as model:
            x, y = pm.Minibatch(pm.Data("x", X), Y, batch_size=B)
            w = pm.Normal("w", shape=x.shape[1])
            pm.Normal("lik", x @ w, 1, observed=y)
            pm.Potential("ridge", -(w**2))
        assert factor(model) == pytest.approx(N / B)


class TestNumberOfRows:
    """B as a number where N is meant."""

    @pytest.fixture
    def batch(self):
        with pm.Model():
            return pm.Minibatch(pm.Data("x", X), Y, batch_size=B)

    @pytest.mark.parametrize(
        "number",
        [
            lambda x: x.shape[0],
            lambda x: pt.sqrt(x.shape[0]),
            lambda x: 1 / x.shape[0],
            lambda x: x.shape[0] * 2,
            lambda x: x.T.shape[1] + x.shape[1],
            lambda x: pt.cast(x[:, 0].shape[0], "float64"),
            lambda x: pt.as_tensor(np.ones(3)) * x.shape[0],
        ],
    )
    def test_refused(self, batch, number):
        x, y = batch
        match = "computes with the number of rows of a batch, 2"
        with pm.Model():
            w = pm.Normal("w", shape=3)
            with pytest.raises(ValueError, match=match):
                pm.Normal("lik", (x @ w) * number(x).sum(), 1, observed=y)
            with pytest.raises(ValueError, match=match):
                pm.Normal("v", 0, pt.exp(number(x)).sum())
            with pytest.raises(ValueError, match=match):
                pm.Potential("ridge", -number(x).sum() * (w**2).sum())

    @pytest.mark.parametrize(
        "use",
        [
            lambda x, y: pt.zeros(x.shape[0]),
            lambda x, y: pt.ones((x.shape[0], 1)) @ [1.0],
            lambda x, y: x.reshape((x.shape[0], 3)).sum(1),
            lambda x, y: x.mean(axis=1),
            lambda x, y: x.sum(1) / x.shape[1],
            lambda x, y: pt.concatenate([pt.ones((x.shape[0], 1)), x], axis=1).sum(1),
            lambda x, y: pt.special.softmax(x, axis=1)[:, 0],
        ],
    )
    def test_sizes_are_no_numbers(self, batch, use):
        x, y = batch
        with pm.Model() as model:
            pm.Normal("lik", pm.Normal("b") + use(x, y), 1, observed=y)
        assert factor(model) == pytest.approx(N / B)

    def test_number_in_a_sum_over_the_batch(self):
        """A scalar Potential may count its rows: all of it is scaled."""

        def build(y, **kwargs):
            sigma = pm.HalfNormal("sigma")
            term = -y.shape[0] * pt.log(sigma) - (y**2).sum() / sigma**2
            pm.Potential("term", term, **kwargs)

        with pm.Model() as model:
            y = pm.Minibatch(Y, batch_size=B, sampling="without_replacement")
            build(y, total_size=N)
        with pm.Model() as full:
            build(pt.as_tensor(Y))
        assert_mean_is_full(model, full)


@settings(max_examples=40)
@given(data=st.data())
def test_factor_of_any_axes(data):
    """N/B over the subsampled axes, whatever their order, and dims of one length included."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    dims = [f"dim{k}" for k in range(len(shape))]
    chosen = data.draw(st.lists(st.sampled_from(dims), min_size=1, unique=True))
    sizes = {d: data.draw(st.integers(1, shape[dims.index(d)])) for d in chosen}
    order = data.draw(st.permutations(range(len(shape))))
    full = rng.normal(size=shape)
    with pm.Model(coords={d: range(n) for d, n in zip(dims, shape)}) as model:
        x = pm.Data("x", full, dims=dims)
        batch = pm.Minibatch(x, batch_size=sizes).transpose(*order)
        pm.Normal("lik", pm.Normal("mu"), 1, observed=batch, dims=[dims[k] for k in order])
    expected = np.prod([shape[dims.index(d)] / n for d, n in sizes.items()])
    assert factor(model) == pytest.approx(expected, rel=1e-12)
