# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The scale of a term: forms of total_size, imputation, new data, and float32."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.tensor.type_other import NoneConst
from scipy import stats

import pymc as pm

from pymc.variational.minibatch_rv import get_scaling, minibatch_rv

PYTHON = Mode(linker="py", optimizer="fast_compile")
N = 30
BATCH = np.random.default_rng(7).normal(size=(10, 3))


def normal(total_size):
    return pm.Normal("lik", pm.Normal("mu", shape=3), 1, observed=BATCH, total_size=total_size)


def mv_normal(total_size):
    mu = pm.Normal("mu", shape=3)
    return pm.MvNormal("lik", mu, np.eye(3), observed=BATCH, total_size=total_size)


def terms(model):
    """The terms of the log-probability at the initial point, by name; imputed ones too."""
    rvs = model.basic_RVs
    evaluate = pytensor.function(
        model.value_vars, model.logp(rvs, sum=False), mode=PYTHON, on_unused_input="ignore"
    )
    point = model.initial_point()
    values = evaluate(*(point[v.name] for v in model.value_vars))
    return {rv.name: value for rv, value in zip(rvs, values, strict=True)}


TOTAL_SIZES = {
    "int": lambda: N,
    "numpy int": lambda: np.int32(N),
    "symbolic": lambda: pt.as_tensor(N),
    "shared": lambda: pytensor.shared(N),
    "None": lambda: (N, None),
    "Ellipsis": lambda: [N, ...],
    "shape": lambda: np.empty((N, 3)).shape,
    "symbolic shape": lambda: pytensor.shared(np.empty((N, 3))).shape,
}


class TestTotalSize:
    @pytest.mark.parametrize("lik", [normal, mv_normal])
    @pytest.mark.parametrize("form", TOTAL_SIZES)
    def test_logp(self, form, lik):
        with pm.Model() as model:
            lik(TOTAL_SIZES[form]())
        full = N / len(BATCH) * stats.norm.logpdf(BATCH).sum()
        np.testing.assert_allclose(terms(model)["lik"].sum(), full, rtol=1e-12)

    @pytest.mark.parametrize("method", ["advi", "fullrank_advi"])
    @pytest.mark.parametrize("lik", [normal, mv_normal])
    def test_fit_of_data_shape(self, lik, method):
        """An IndexError in the release."""
        with pm.Model():
            lik((N, 3))
            approx = pm.fit(
                2, method=method, progressbar=False, compile_kwargs={"mode": PYTHON}, random_seed=1
            )
        assert np.isfinite(approx.hist).all()
        constant = approx.symbolic_normalizing_constant.eval(mode=PYTHON)
        np.testing.assert_allclose(constant, N / len(BATCH))

    def test_columns(self):
        with pm.Model() as model:
            normal((..., 6))
        full = 2 * stats.norm.logpdf(BATCH)
        np.testing.assert_allclose(terms(model)["lik"], full, rtol=1e-12)

    def test_scalar_has_no_rows(self):
        with pm.Model(), pytest.raises((TypeError, ValueError), match="total"):
            pm.Normal("lik", 0, 1, observed=1.0, total_size=N)

    def test_new_data_move_the_scale(self):
        with pm.Model() as model:
            data = pm.Data("data", np.ones(10))
            pm.Normal("lik", 0, 1, observed=pm.Minibatch(data, batch_size=5))
        logp = pytensor.function([], model.logp(sum=False), mode=PYTHON)
        for rows in (10, 25, 8):
            with model:
                pm.set_data({"data": np.ones(rows)})
            expected = np.full(5, rows / 5 * stats.norm.logpdf(1.0))
            np.testing.assert_allclose(logp()[0], expected, rtol=1e-12)


class TestGetScaling:
    @pytest.mark.parametrize(
        "total_size, shape, expected",
        [
            ([30], pt.as_tensor([10]), 3),
            ([30, None], pt.as_tensor([10, 3]), 3),
            ([NoneConst, pt.as_tensor(6)], pt.as_tensor([10, 3]), 2),
            ([30, 6], pt.as_tensor([10, 3]), 6),
            ([30, 6], (np.array([10, 3]),), 6),  # as constant_fold returns it
            ([30, None], [pt.as_tensor([10, 3])], 3),
            ([None], (10,), 1),
            ([], (), 1),
            ([7], (3,), 7 / 3),
        ],
    )
    def test_values(self, total_size, shape, expected):
        scaling = get_scaling(total_size, shape)
        assert scaling.type.ndim == 0
        assert scaling.type.dtype == pytensor.config.floatX
        np.testing.assert_allclose(scaling.eval(mode=PYTHON), expected, rtol=1e-15)


class TestNode:
    def test_rebuilt_from_its_own_inputs(self):
        """The release's cannot be, for more than one axis: total sizes that are None come back."""
        node = minibatch_rv(pm.Normal.dist(shape=(10, 3)), N, None).owner
        again = node.op.make_node(*node.inputs)
        assert again.inputs == node.inputs

    def test_wrong_number_of_total_sizes(self):
        with pytest.raises(ValueError, match="has 2 axes, got 1 total sizes"):
            minibatch_rv(pm.Normal.dist(shape=(10, 3)), N)


@pytest.mark.filterwarnings(
    "ignore:Data in lik contains missing values:pymc.exceptions.ImputationWarning"
)
class TestImputation:
    """The observed values stand for the rows in all; the prior of imputed ones is not scaled."""

    y = np.array([0.5, np.nan, 2.0, np.nan, -1.0])

    @pytest.mark.parametrize("total_size", [50, (50,), np.int64(50)])
    def test_vector(self, total_size):
        with pm.Model() as model:
            pm.Normal("lik", pm.Normal("mu"), 1, observed=self.y, total_size=total_size)
        logp = terms(model)
        np.testing.assert_allclose(
            logp["lik_observed"], 10 * stats.norm.logpdf([0.5, 2.0, -1.0]), rtol=1e-12
        )
        np.testing.assert_allclose(logp["lik_unobserved"], stats.norm.logpdf([0, 0]), rtol=1e-12)

    @pytest.mark.parametrize(
        "total_size, scale", [(40, 10), ((40, None), 10), ((40, 6), 20), ((..., 6), 2)]
    )
    def test_matrix(self, total_size, scale):
        y = np.arange(12.0).reshape(4, 3)
        y[[1, 2, 2], [0, 1, 2]] = np.nan
        with pm.Model() as model:
            mu = pm.Normal("mu", shape=3)
            pm.Normal("lik", mu, 1, observed=y, total_size=total_size)
        logp = terms(model)
        expected = scale * stats.norm.logpdf(y[~np.isnan(y)])
        np.testing.assert_allclose(logp["lik_observed"], expected, rtol=1e-12)
        np.testing.assert_allclose(logp["lik_unobserved"], stats.norm.logpdf(np.zeros(3)))

    @pytest.mark.parametrize("total_size", [40, (40, None), (40, 2)])
    def test_multivariate_without_whole_rows(self, total_size):
        y = np.arange(8.0).reshape(4, 2)
        y[[1, 2]] = np.nan
        with pm.Model() as model:
            mu = pm.Normal("mu", shape=2)
            pm.MvNormal("lik", mu, np.eye(2), observed=y, total_size=total_size)
        logp = terms(model)
        expected = 10 * stats.norm.logpdf(y[[0, 3]]).sum(1)
        np.testing.assert_allclose(logp["lik_observed"], expected, rtol=1e-12)
        prior = stats.norm.logpdf(np.zeros((2, 2))).sum(1)
        np.testing.assert_allclose(logp["lik_unobserved"], prior, rtol=1e-12)

    def test_multivariate_without_parts_of_rows(self):
        y = np.arange(8.0).reshape(4, 2)
        y[1, 0] = np.nan
        with pm.Model(), pytest.raises(NotImplementedError, match="cannot be scaled apart from"):
            mu = pm.Normal("mu", shape=2)
            pm.MvNormal("lik", mu, np.eye(2), observed=y, total_size=40)

    @pytest.mark.parametrize(
        "lik",
        [
            lambda mu, **kwargs: pm.Censored("lik", pm.Normal.dist(mu, 1), -2, 1.5, **kwargs),
            lambda mu, **kwargs: pm.NormalMixture("lik", [0.3, 0.7], [mu, mu + 1], 1, **kwargs),
            lambda mu, **kwargs: pm.CustomDist(
                "lik", mu, dist=lambda mu, size: pm.Normal.dist(mu, 1, size=size) * 2, **kwargs
            ),
        ],
        ids=["censored", "mixture", "custom"],
    )
    def test_made_of_other_distributions(self, lik):
        """Their observed and imputed values are of one node: what is scaled is one of its terms."""
        logps = []
        for total_size in (None, 50):
            with pm.Model() as model:
                lik(pm.Normal("mu"), observed=np.minimum(self.y, 1.5), total_size=total_size)
            logps.append(terms(model))
        bare, scaled = logps
        np.testing.assert_allclose(scaled["lik_observed"], 10 * bare["lik_observed"], rtol=1e-12)
        np.testing.assert_array_equal(scaled["lik_unobserved"], bare["lik_unobserved"])

    def test_parameters_of_a_minibatch(self):
        with pm.Model(), pytest.raises(ValueError, match="x and y are out of step"):
            x = pm.Minibatch(np.arange(50.0), batch_size=5)
            pm.Normal("lik", x * pm.Normal("mu"), 1, observed=self.y)

    def test_posterior(self):
        """By quadrature: as of 10 copies of the observed values, whatever the imputed ones."""
        with pm.Model() as model:
            pm.Normal("lik", pm.Normal("mu"), 1, observed=self.y, total_size=50)
        logp = pytensor.function(model.value_vars, model.logp(), mode=PYTHON)
        mu, z = np.linspace(-2, 4, 121), np.linspace(-7, 9, 41)
        names = [v.name for v in model.value_vars]
        assert names == ["mu", "lik_unobserved"]
        # The two imputed values are alike, so that one of them on a grid is enough
        density = np.array([np.exp([logp(m, np.array([at, m])) for at in z]).sum() for m in mu])
        density /= density.sum()
        mean = density @ mu
        sd = np.sqrt(density @ (mu - mean) ** 2)
        precision = 1 + 10 * 3
        np.testing.assert_allclose(mean, 10 * 1.5 / precision, rtol=1e-6)
        np.testing.assert_allclose(sd, precision**-0.5, rtol=1e-6)


@pytest.fixture
def float32():
    with pytensor.config.change_flags(floatX="float32", warn_float64="raise"):
        yield


class TestFloat32:
    def model(self):
        x, y = BATCH[:, :2].astype("float32"), BATCH[:, 2].astype("float32")
        with pm.Model() as model:
            x, y = pm.Minibatch(pm.Data("x", x), y, batch_size=5)
            pm.Normal("lik", x @ pm.Normal("b", shape=2), 1, observed=y)
        return model

    def test_logp(self, float32):
        model = self.model()
        assert [logp.type.dtype for logp in model.logp(sum=False)] == ["float32"] * 2
        assert model.logp().type.dtype == "float32"
        assert model.dlogp().type.dtype == "float32"

    def test_scale(self, float32):
        assert get_scaling([30, None], (10, 3)).type.dtype == "float32"

    @pytest.mark.parametrize("n_particles", [1, 3])
    def test_fit(self, n_particles):
        with pytensor.config.change_flags(floatX="float32"):
            inference = pm.ADVI(model=self.model(), random_seed=1)
            step = inference.objective.step_function(
                obj_n_mc=n_particles, score=True, compile_kwargs={"mode": PYTHON}
            )
            loss = step()
        assert np.isfinite(loss)
        assert loss.dtype == "float32"
        assert all(param.get_value().dtype == "float32" for param in inference.approx.params)
        # The ratio of two whole numbers is one of float64, before it becomes one of float32
        outputs = [var for node in step.maker.fgraph.toposort() for var in node.outputs]
        wide = [v for v in outputs if getattr(v.type, "dtype", None) == "float64" and v.type.ndim]
        assert not wide
