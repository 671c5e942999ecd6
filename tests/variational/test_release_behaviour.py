# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the release's variational inference does, and its users rely on.

The behaviours are those that PyMC's own variational tests ask for. Nothing here needs the patch: the
file passes on plain PyMC as well.
"""

import io

import cloudpickle
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode

import pymc as pm

from pymc.model.transform.basic import remove_minibatched_nodes
from pymc.testing import assert_no_rvs
from pymc.variational import opvi
from pymc.variational.approximations import (
    Empirical,
    EmpiricalGroup,
    FullRank,
    FullRankGroup,
    MeanField,
    MeanFieldGroup,
)
from pymc.variational.callbacks import CheckParametersConvergence, Tracker
from pymc.variational.operators import KL

# Compiles nothing: what is asked of graphs and values is the same for every backend
PYTHON = Mode(linker="py", optimizer="fast_compile")
OPTIMIZERS = [
    *("sgd", "momentum", "nesterov_momentum", "adagrad", "adagrad_window", "rmsprop"),
    *("adadelta", "adam", "adamax"),
]


@pytest.fixture(autouse=True, scope="module")
def python_mode():
    with pytensor.config.change_flags(mode=PYTHON):
        yield


def small_model():
    with pm.Model() as model:
        mu = pm.Normal("mu", 2, 3)
        pm.Normal("y", mu, 1, observed=[1.0, 2.0, 4.0])
    return model


@pytest.fixture
def three_variables():
    with pm.Model() as model:
        pm.HalfNormal("scale", size=(4, 2))
        pm.Normal("vector", size=3)
        pm.Normal("cube", size=(2, 1, 2))
    return model


N_VALUES = 8 + 3 + 4


class TestMethods:
    @pytest.mark.parametrize(
        "method, class_name",
        [("advi", "MeanField"), ("FULLRANK_ADVI", "FullRank"), ("svgd", "Empirical")],
    )
    def test_by_name(self, method, class_name):
        with small_model():
            approx = pm.fit(3, method=method, progressbar=False, total_grad_norm_constraint=10)
        assert type(approx).__name__ == class_name
        assert len(approx.hist) == (0 if method == "svgd" else 3)

    def test_asvgd_warns(self):
        with small_model(), pytest.warns(UserWarning, match="experimental inference Operator"):
            pm.ASVGD()

    @pytest.mark.parametrize(
        "method, error, match",
        [
            ("nothing", KeyError, "method.* should be one of"),
            (1, TypeError, "method.* should be one of"),
            ("nfvi=scale", KeyError, "method.* should be one of"),
        ],
    )
    def test_unknown(self, method, error, match):
        with small_model(), pytest.raises(error, match=match):
            pm.fit(1, method=method)

    def test_discrete_variables(self):
        with pm.Model():
            k = pm.Poisson("k", 3)
            pm.Normal("y", k, 1, observed=2.0)
            with pytest.raises(opvi.ParametrizationError, match="Discrete variables"):
                pm.fit(1)

    def test_start(self):
        with small_model():
            approx = pm.ADVI(start={"mu": 17.0}, start_sigma={"mu": 13.0}).fit(0)
            np.testing.assert_allclose(approx.mean.eval(), [17])
            np.testing.assert_allclose(approx.std.eval(), [13])
            np.testing.assert_allclose(pm.FullRankADVI(start={"mu": 17.0}).approx.mean.eval(), [17])
            svgd = pm.SVGD(n_particles=400, start={"mu": 17.0}, jitter=0.5, random_seed=1)
        x = svgd.approx.histogram.get_value()
        assert abs(x.mean() - 17) < 5 * 0.5 / np.sqrt(400)

    def test_same_seed(self):
        with small_model() as model:
            fits = [pm.fit(5, random_seed=42, progressbar=False) for _ in range(2)]
            other = pm.fit(5, random_seed=43, progressbar=False)
        np.testing.assert_array_equal(fits[0].hist, fits[1].hist)
        np.testing.assert_array_equal(*(fit.mean.eval() for fit in fits))
        assert (fits[0].hist != other.hist).all()
        assert fits[0].model is model

    @pytest.mark.parametrize("score", [True, False])
    def test_nan(self, score):
        with small_model(), pytest.raises(FloatingPointError, match=r"(?i)nan"):
            pm.fit(
                5,
                score=score,
                obj_optimizer=pm.adam(learning_rate=float("nan")),
                progressbar=False,
            )

    def test_refine_continues(self):
        with small_model():
            inference = pm.ADVI(random_seed=1)
            inference.fit(4, progressbar=False)
            before = inference.hist.copy()
            inference.refine(3, progressbar=False)
        assert len(inference.hist) == 7
        np.testing.assert_array_equal(inference.hist[:4], before)

    def test_profile_has_no_scan(self):
        buffer = io.StringIO()
        with small_model():
            pm.ADVI().run_profiling(n=2).summary(buffer)
        assert "Scan" not in buffer.getvalue()


class TestGroups:
    @pytest.mark.parametrize(
        "name, cls",
        [
            ("mean_field", MeanFieldGroup),
            ("mf", MeanFieldGroup),
            ("full_rank", FullRankGroup),
            ("FR", FullRankGroup),
        ],
    )
    def test_by_name(self, three_variables, name, cls):
        with three_variables:
            assert type(opvi.Group([three_variables["scale"]], name)) is cls

    def test_empirical_needs_a_size(self, three_variables):
        with three_variables:
            group = [three_variables["scale"]]
            assert isinstance(opvi.Group(group, "empirical", size=10), EmpiricalGroup)
            with pytest.raises(ValueError, match="Need `trace` or `size`"):
                opvi.Group(group, "empirical")

    @pytest.mark.parametrize("cls, second", [(MeanFieldGroup, "rho"), (FullRankGroup, "L_tril")])
    def test_by_params(self, three_variables, cls, second):
        sizes = {"rho": 8, "L_tril": 36}
        params = {"mu": np.ones(8), second: np.ones(sizes[second])}
        with three_variables:
            group = opvi.Group([three_variables["scale"]], params=params)
        assert type(group) is cls
        logq = group.set_size_and_deterministic(group.logq, 1, 0)
        assert np.isfinite(logq.eval())

    @pytest.mark.parametrize(
        "cls, group_cls, kwargs",
        [
            (MeanField, MeanFieldGroup, {}),
            (FullRank, FullRankGroup, {}),
            (Empirical, EmpiricalGroup, {"size": 10}),
        ],
    )
    def test_approximations_of_one(self, three_variables, cls, group_cls, kwargs):
        with three_variables:
            approx = cls(**kwargs)
        [group] = approx.groups
        assert type(group) is group_cls
        assert approx.ndim == N_VALUES

    @pytest.mark.parametrize(
        "names, match",
        [
            ([["scale", "vector"]], "No approximation is specified"),
            ([["scale"], ["vector", "scale"], ["cube"]], "Found duplicates"),
        ],
    )
    def test_every_variable_once(self, three_variables, names, match):
        with three_variables, pytest.raises(TypeError, match=match):
            groups = [MeanFieldGroup([three_variables[n] for n in group]) for group in names]
            opvi.Approximation(groups)

    @pytest.fixture(params=["mean-field and the rest", "with particles"])
    def approx(self, request, three_variables):
        model = three_variables
        first = MeanFieldGroup([model["scale"]], model=model)
        if request.param == "with particles":
            rest = EmpiricalGroup([model["vector"], model["cube"]], model=model, size=20)
        else:
            rest = FullRankGroup(None, model=model)
        return opvi.Approximation([first, rest], model=model)

    def test_sample(self, approx):
        assert approx.ndim == N_VALUES
        draws = approx.sample(7, return_inferencedata=False)
        assert set(draws.varnames) == {"scale", "scale_log__", "vector", "cube"}
        assert draws["scale"].shape == (7, 4, 2)
        assert draws["cube"].shape == (7, 2, 1, 2)
        assert (draws["scale"] > 0).all()

    def test_logq(self, approx):
        if not approx.has_logq:
            pytest.skip("particles have no density")
        for size in (1, 2):
            logq, each = approx.set_size_and_deterministic(
                [approx.logq, approx.symbolic_logq], size, 0
            )
            logq, each = pytensor.function([], [logq, each])()
            assert each.shape == (size,)
            np.testing.assert_allclose(logq, each.mean())

    def test_pickle(self, approx):
        again = cloudpickle.loads(cloudpickle.dumps(approx))
        assert again.sample(2).posterior["vector"].shape == (1, 2, 3)


class TestObjective:
    Y, MU0, M, S = np.array([1.6, 1.4]), 1.5, 1.88, 0.7

    def negative_elbo(self, total_size=None, beta=1.0, scale=True):
        """Compute the mean and standard error over 4,000 draws."""
        with pm.Model() as model:
            mu = pm.Normal("mu", self.MU0, 1)
            pm.Normal("y", mu, 1, observed=self.Y, total_size=total_size)
            guide = MeanField(random_seed=1)
        guide.scale_cost_to_minibatch = scale
        guide.shared_params["mu"].set_value(np.array([self.M]))
        guide.shared_params["rho"].set_value(np.log(np.expm1([self.S])))
        assert model is guide.model
        return pytensor.function([], KL(guide, beta=beta)()(4000))()

    def exact(self, n_times=1.0):
        """-ELBO with the likelihood's weight; and a bound of the sd of one draw's loss."""
        squares = ((self.Y - self.M) ** 2 + self.S**2).sum() + 2 * np.log(2 * np.pi)
        prior = (self.M - self.MU0) ** 2 + self.S**2 - 1 - 2 * np.log(self.S)
        slope = n_times * 2 * (self.M - self.Y.mean()) + (self.M - self.MU0)
        curvature = n_times * 2 + 1 - self.S**-2
        sd = np.hypot(slope * self.S, curvature * self.S**2 / np.sqrt(2))
        return 0.5 * (n_times * squares + prior), 4.4 * sd / np.sqrt(4000)

    def test_closed_form(self):
        loss, tolerance = self.exact()
        assert abs(self.negative_elbo() - loss) < tolerance

    @pytest.mark.parametrize("total_size", [2, 8])
    def test_total_size(self, total_size):
        ratio = total_size / 2
        loss, tolerance = self.exact(ratio)
        # By default the loss is in units of the batch: divided by the ratio
        assert abs(self.negative_elbo(total_size) - loss / ratio) < tolerance / ratio
        assert abs(self.negative_elbo(total_size, scale=False) - loss) < tolerance

    def test_beta_weighs_as_total_size(self):
        loss, tolerance = self.exact(4.0)
        assert abs(self.negative_elbo(beta=0.25) - loss / 4) < tolerance / 4


class TestSampledNodes:
    @pytest.fixture
    def approx(self):
        with pm.Model() as model:
            p = pm.Beta("p", 1, 1)
            pm.Binomial("x", n=1, p=p, observed=[0, 1, 0, 0])
            return model, pm.ADVI(random_seed=1).approx

    def test_sizes(self, approx):
        model, approx = approx
        size = pt.iscalar("size")
        node = approx.sample_node(model["p"] ** 3, size=size)
        draw = pytensor.function([size], node)
        assert draw(5).shape == (5,) and draw(6).shape == (6,)
        assert len(np.unique(draw(5))) == 5

    def test_deterministic(self, approx):
        model, approx = approx
        switch = pytensor.shared(np.int8(1))
        draw = pytensor.function([], approx.sample_node(model["p"], deterministic=switch))
        assert len({float(draw()) for _ in range(3)}) == 1
        switch.set_value(np.int8(0))
        values = pm.draw(approx.sample_node(model["p"]), draws=3, random_seed=1)
        assert len(np.unique(values)) == 3

    def test_replacements_of_another_length(self):
        n_rows = pytensor.shared(4)
        with pm.Model():
            x = pm.Normal("x", shape=(n_rows,))
            b = pm.Normal("b")
            pm.Normal("y", b * x, 1, shape=x.shape, observed=np.ones(4))
            approx = pm.ADVI().approx
        assert approx.sample_node(b * x).eval().shape == (4,)
        node = approx.sample_node(b * x, more_replacements={x: np.ones(6)})
        assert node.eval().shape == (6,)


class TestResults:
    def test_coords(self):
        with pm.Model(coords={"a": range(2), "b": range(3)}):
            sigma = pm.HalfNormal("sigma")
            pm.Normal("x", 0, sigma, dims=("a", "b"))
            approx = pm.fit(1, progressbar=False)
        for data in (approx.mean_data, approx.std_data):
            assert set(data) == {"sigma_log__", "x"}
            assert data["x"].dims == ("a", "b")
            assert list(data["x"].coords) == ["a", "b"]
        assert set(approx.state.mean) == {"sigma", "x"}

    def test_empirical_from_a_trace(self):
        with small_model():
            with pytest.warns(FutureWarning, match="return_inferencedata"):
                trace = pm.sample(
                    6,
                    step=pm.Metropolis(),
                    chains=2,
                    tune=0,
                    random_seed=1,
                    cores=1,
                    progressbar=False,
                    return_inferencedata=False,
                    compute_convergence_checks=False,
                )
            assert Empirical(trace).histogram.get_value().shape == (12, 1)
            with pytest.raises(NotImplementedError, match="return_inferencedata=False"):
                Empirical(pm.ADVI().approx.sample(3))

    def test_no_random_variables_in_the_normalizing_constant(self):
        with pm.Model():
            data = pm.Data("data", np.zeros(10))
            pm.Normal("x")
            pm.Flat("y", observed=pm.Minibatch(data, batch_size=2), total_size=10)
            approx = pm.ADVI().approx
        assert_no_rvs(approx.symbolic_normalizing_constant)

    def test_draws_on_all_rows(self):
        with pm.Model(coords={"row": range(3)}) as model:
            x, y = (pm.Data(name, [1.0, 2.0, 3.0], dims="row") for name in "xy")
            x_batch, y_batch = pm.Minibatch(x, y, batch_size=2)
            beta = pm.Normal("beta")
            pm.Normal("obs", beta * x_batch, 1, observed=y_batch, total_size=3, dims="row")
            approx = pm.fit(3, progressbar=False)
        with remove_minibatched_nodes(model):
            draws = approx.sample(4)
            assert draws.constant_data["x"].shape == (3,)
            assert draws.observed_data["obs"].shape == (3,)
            pm.set_data({"x": np.ones(5), "y": np.ones(5)}, coords={"row": range(5)})
            new = pm.sample_posterior_predictive(draws, predictions=True, progressbar=False)
        assert new.predictions["obs"].shape == (1, 4, 5)


class TestCallbacks:
    @pytest.mark.parametrize("diff", ["relative", "absolute"])
    @pytest.mark.parametrize("norm", [1, 2, np.inf])
    def test_convergence(self, diff, norm):
        class Still:
            params = (pytensor.shared(np.arange(1.0, 4)),)

        check = CheckParametersConvergence(every=1, diff=diff, ord=norm)
        check(Still, None, 1)
        with pytest.raises(StopIteration, match="Convergence achieved"):
            check(Still, None, 2)

    def test_tracker(self):
        tracker = Tracker(step=lambda approx, losses, i: i, none=lambda: 0)
        for i in range(4):
            tracker(None, None, i)
        assert tracker["step"] == tracker.hist["step"] == [0, 1, 2, 3]
        assert tracker["none"] == [0] * 4
        with pytest.raises(TypeError, match=r"missing|positional|argument"):
            Tracker(one=lambda approx: 0)(None, None, 1)

    def test_in_a_fit(self):
        seen = []

        def stop(approx, losses, i):
            seen.append((i, len(losses)))
            if i == 4:
                raise StopIteration("enough")

        with small_model():
            pm.fit(10, callbacks=[stop], progressbar=False)
        assert seen == [(1, 1), (2, 2), (3, 3), (4, 4)]


class TestOptimizers:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_updates(self, name):
        optimizer = getattr(pm, name)
        x, y = pytensor.shared(1.0), pytensor.shared(np.ones((2, 3)))
        loss = x**2 + (y**2).sum()
        updates = optimizer(loss, [x, y])
        assert {x, y} <= set(updates)
        assert optimizer(learning_rate=0.01)(loss, [x]).keys() >= {x}
        for arguments in ((loss, None), (None, [x])):
            with pytest.raises(ValueError, match=r"loss_or_grads|params"):
                optimizer(*arguments)
        step = pytensor.function([], loss, updates=updates)
        losses = [float(step()) for _ in range(3)]
        assert losses[2] < losses[0]


class TestTotals:
    """How `total_size` is read."""

    @pytest.mark.parametrize(
        "rows", [[[1.0, 1.0], [1.0, 1.0]], [[1.0], [1.0]], [[1.0, 1.0]], [[1.0]]]
    )
    def test_of_two_axes(self, rows):
        exact = 4 * pm.logp(pm.Normal.dist(), 1.0).eval()
        for total_size in ([2, 2], [2, ..., 2]):
            with pm.Model() as model:
                pm.Normal("x", observed=rows, total_size=total_size)
            np.testing.assert_allclose(model.compile_logp()({}), exact)

    @pytest.mark.parametrize(
        "total_size, error",
        [
            ([2, ..., 2, 2], ValueError),
            ([2, 2, 2], ValueError),
            ("foo", TypeError),
            ([..., ...], ValueError),
        ],
    )
    def test_errors(self, total_size, error):
        with pm.Model(), pytest.raises(error, match="total_size"):
            pm.Normal("x", observed=[[1.0]], total_size=total_size)

    def test_only_of_observed(self):
        with pm.Model(), pytest.raises(ValueError, match="only be passed to observed RVs"):
            pm.Normal("x", shape=(1, 1), total_size=[2, 2])
