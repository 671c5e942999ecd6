"""Free variables on a subsampled dim: a value for each row, and priors that count for all rows.

The proof is enumeration: the mean over all batches, each with the values of its own rows, is the
log-probability of the full model, and so is the gradient.
"""

import cloudpickle
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr

from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.plates import known_axes, local_axes, model_indexes
from pymc.minibatch.provenance import OWN
from pymc.model.fgraph import clone_model
from pymc.model.transform.optimization import freeze_dims_and_data, freeze_model
from tests.minibatch.enumeration import (
    PYTHON,
    full_logp_and_gradient,
    mean_over_batches,
    some_point,
)

N, B, SITES = 4, 2, 3
rng = np.random.default_rng(5)
COORDS = {"obs": range(N), "site": range(SITES), "k": range(3), "group": range(2)}
X, Y = rng.normal(size=(2, N))
Z = rng.normal(size=(N, 3))
PAIRS = rng.normal(size=(N, SITES))
GROUP = np.array([0, 1, 1, 0])
SIZES = {"obs": B}


def table(rows):
    return rows(
        pm.Data("x", X, dims="obs"),
        pm.Data("y", Y, dims="obs"),
        pm.Data("wide", Z, dims=("obs", "k")),
        pm.Data("g", GROUP, dims="obs"),
    )


def likelihood(mu, observed, dims="obs"):
    pm.Normal("lik", mu, 1.5, observed=observed, dims=dims)


def one_local(rows):
    x, y, *_ = table(rows)
    z = pm.Normal("z", 0.3, 1.2, dims="obs")
    likelihood(pm.Normal("w") * x + z, y)


def log_transformed(rows):
    x, y, *_ = table(rows)
    likelihood(x * pm.Gamma("z", 2, 1.5, dims="obs"), y)


def interval_transformed(rows):
    x, y, *_ = table(rows)
    likelihood(x * pm.Beta("z", 2, 1.5, dims="obs") + pm.Uniform("u", -1, 2, dims="obs"), y)


def simplex(rows):
    _, y, wide, _ = table(rows)
    likelihood((wide * pm.Dirichlet("z", np.array([1.0, 2.0, 3.0]), dims=("obs", "k"))).sum(-1), y)


def ordered(rows):
    _, y, wide, _ = table(rows)
    transform = pm.distributions.transforms.ordered
    z = pm.Normal("z", dims=("obs", "k"), transform=transform, initval=np.tile([0.0, 1, 2], (N, 1)))
    likelihood((wide * z).sum(-1), y)


def multivariate(rows):
    _, y, wide, _ = table(rows)
    cov = np.array([[2.0, 0.3, 0], [0.3, 1, 0], [0, 0, 1]])
    z = pm.MvNormal("z", pm.Normal("mu", dims="k"), cov, dims=("obs", "k"))
    likelihood((wide * z).sum(-1), y)


def zero_sum_within_a_row(rows):
    _, y, wide, _ = table(rows)
    likelihood((wide * pm.ZeroSumNormal("z", dims=("obs", "k"))).sum(-1), y)


def random_walk_of_each_row(rows):
    _, y, wide, _ = table(rows)
    init = pm.Normal.dist(0, 1)
    z = pm.GaussianRandomWalk("z", sigma=0.7, init_dist=init, steps=2, dims=("obs", "k"))
    likelihood((wide * z).sum(-1), y)


def one_on_the_other(rows):
    x, y, *_ = table(rows)
    scale = pm.HalfNormal("scale", dims="obs")
    z = pm.Normal("z", pm.Normal("mu"), scale, dims="obs")
    likelihood(pm.Normal("deeper", z * x, 1, dims="obs"), y)


def batch_axis_last(rows):
    x, y, *_ = table(rows)
    z = pm.Gamma("z", pm.HalfNormal("a", dims="group")[:, None] + 1, 1, dims=("group", "obs"))
    likelihood((z * x).sum(0), y)


def mean_from_data(rows):
    x, y, *_ = table(rows)
    likelihood(pm.Normal("z", pm.Normal("w") * x, pt.exp(x), dims="obs"), y)


def groups_by_an_index(rows):
    x, y, _, g = table(rows)
    a = pm.Normal("a", dims="group")
    likelihood(pm.Normal("z", a[g], 1, dims="obs") + x, y)


def crossed(rows):
    pairs = rows(pm.Data("pairs", PAIRS, dims=("obs", "site")))
    row, column = pm.Normal("row", dims="obs"), pm.Gamma("column", 2, 1, dims="site")
    cell = pm.Normal("cell", row[:, None] * column, 1, dims=("obs", "site"))
    likelihood(cell + pm.Normal("w"), pairs, ("obs", "site"))


def cell_of_two_plates(rows):
    pairs = rows(pm.Data("pairs", PAIRS, dims=("obs", "site")))
    pm.Normal("unobserved", dims="site")
    likelihood(pm.Normal("cell", dims=("site", "obs")).T, pairs, ("obs", "site"))


def deterministic_between(rows):
    x, y, *_ = table(rows)
    z = pm.Normal("z", dims="obs")
    likelihood(pm.Deterministic("mu", pt.exp(z) * x, dims="obs"), y)


def potential_of_a_local(rows):
    x, y, *_ = table(rows)
    z = pm.Normal("z", dims="obs")
    pm.Potential("soft", -(z**2) / 3, dims="obs")
    likelihood(x, y)


def discrete(rows):
    x, y, *_ = table(rows)
    likelihood(pm.Bernoulli("z", pm.Beta("p", 2, 2), dims="obs") * x, y)


def custom(rows):
    x, y, *_ = table(rows)
    z = pm.CustomDist("z", x, logp=lambda value, x: -((value - x) ** 2), dims="obs")
    likelihood(z, y)


def mixture(rows):
    _, y, *_ = table(rows)
    likelihood(pm.NormalMixture("z", [0.3, 0.7], pm.Normal("m", dims="group"), 1, dims="obs"), y)


def named(rows):
    x, y, *_ = rows(*(pmd.Data(n, v, dims="obs") for n, v in (("x", X), ("y", Y))))
    z = pmd.Gamma("z", 2, 1, dims="obs")
    deeper = pmd.Normal("deeper", pmd.Normal("w") + z * x, 1, dims="obs")
    pmd.Normal("lik", deeper, 1.5, observed=y)


def named_and_multivariate(rows):
    y = rows(pmd.Data("y", Z, dims=("obs", "k")))
    weights = pmd.as_xtensor(np.array([1.0, 2.0, 3.0]), dims=("k",))
    z = pmd.Dirichlet("z", weights, core_dims="k", dims=("obs", "k"))
    zero = pmd.ZeroSumNormal("zero", core_dims="k", dims=("k", "obs"))
    pmd.Normal("lik", z + zero, 1.5, observed=y)


FORMS = [
    form
    for form in list(globals().values())
    if callable(form)
    and getattr(form, "__module__", None) == __name__
    and form.__code__.co_varnames[:1] == ("rows",)
    and form is not table
]


def sizes_of(form):
    return {"obs": B, "site": 2} if form in (crossed, cell_of_two_plates) else SIZES


def all_of(*data):
    return data if len(data) > 1 else data[0]


def build(form, sampling=None):
    def some_of(*data):
        return pm.Minibatch(*data, batch_size=sizes_of(form), sampling=sampling)

    with pm.Model(coords=COORDS) as model:
        form(all_of if sampling is None else some_of)
    return model


@pytest.fixture(scope="module")
def full_model():
    built = {}
    return lambda form: (
        built.setdefault(form, None) or built.update({form: build(form)}) or built[form]
    )


def in_model(form, full, sampling):
    return build(form, sampling)


def of_full_data(form, full, sampling):
    return pm.minibatch_model(full, sizes_of(form), sampling)


class TestEnumeration:
    @pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
    def test_mean_over_batches_is_full_logp(self, form, full_model):
        full = full_model(form)
        point, sampling = some_point(full), "without_replacement"
        expected = full_logp_and_gradient(full, point)
        each = [
            mean_over_batches(write(form, full, sampling), point, reduce=None)
            for write in (in_model, of_full_data)
        ]
        np.testing.assert_allclose(each[0], each[1], rtol=1e-12)
        np.testing.assert_allclose(each[0].mean(0), expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
    def test_on_all_rows_it_is_the_full_model(self, form, full_model):
        full = full_model(form)
        point = some_point(full)
        back = pm.remove_minibatch(build(form, "epoch"))
        np.testing.assert_allclose(
            full_logp_and_gradient(back, point), full_logp_and_gradient(full, point), rtol=1e-12
        )
        assert {k: np.shape(v) for k, v in back.initial_point().items()} == {
            k: np.shape(v) for k, v in full.initial_point().items()
        }

    @pytest.mark.parametrize("write", [in_model, of_full_data])
    def test_rows_that_come_twice(self, write, full_model):
        full = full_model(one_on_the_other)
        point = some_point(full)
        found = mean_over_batches(write(one_on_the_other, full, "with_replacement"), point)
        np.testing.assert_allclose(found, full_logp_and_gradient(full, point), rtol=1e-10)


POINT = {
    "z": np.array([0.3, -1.0]),
    "scale_log__": np.array([0.2, -0.4]),
    "mu": np.array(0.7),
    "deeper": np.array([0.1, 0.6]),
}


def of_one_batch():
    """The model of `one_on_the_other`, of B rows that are all there are."""
    with pm.Model() as model:
        scale = pm.HalfNormal("scale", shape=B)
        z = pm.Normal("z", pm.Normal("mu"), scale)
        pm.Normal("deeper", z, 1)
    return model


def evaluate(model, outputs):
    inputs = [v for v in model.value_vars if v.name in POINT]
    fn = pytensor.function(inputs, outputs, mode=PYTHON, on_unused_input="ignore")
    return fn(*(POINT[v.name] for v in inputs))


NAMES = ["scale", "z", "mu"]


class TestScale:
    """What each term is multiplied by, whatever is asked for."""

    @pytest.fixture(scope="class")
    def model(self):
        return build(one_on_the_other, "epoch")

    @pytest.fixture(scope="class")
    def plain(self):
        return of_one_batch()

    @pytest.mark.parametrize("jacobian", [True, False])
    def test_priors_of_locals_alone(self, model, plain, jacobian):
        mine, there = (
            evaluate(m, m.logp([m[n] for n in NAMES], jacobian=jacobian, sum=False))
            for m in (model, plain)
        )
        for name, scaled, bare in zip(NAMES, mine, there, strict=True):
            np.testing.assert_allclose(scaled, bare * (1 if name == "mu" else N / B), rtol=1e-12)

    def test_variable_and_value_ask_alike(self, model, plain):
        [expected] = evaluate(plain, [plain.logp(plain["z"])])
        z = model["z"]
        for asked in (z, model.rvs_to_values[z], (z,)):
            assert evaluate(model, [model.logp(asked)]) == pytest.approx([expected * N / B])

    def test_sum_is_that_of_the_terms(self, model):
        terms = model.logp([model[n] for n in NAMES], sum=False)
        total, *each = evaluate(model, [model.logp([model[n] for n in NAMES]), *terms])
        assert total == pytest.approx(sum(t.sum() for t in each))
        assert model.logp().name == "__logp"
        assert model.logp(jacobian=False).name == "__logp_nojac"
        assert evaluate(model, [model.logp([])]) == [0]

    def test_gradient_of_the_prior(self, model, plain):
        def slope(m):
            return evaluate(m, [pt.grad(m.logp([m["z"]]), m.rvs_to_values[m["z"]])])[0]

        np.testing.assert_allclose(slope(model), slope(plain) * N / B, rtol=1e-12)

    def test_properties_follow(self, model):
        free, observed = model.free_RVs, model.observed_RVs
        for found, expected in [
            (model.varlogp, model.logp(free)),
            (model.varlogp_nojac, model.logp(free, jacobian=False)),
            (model.datalogp, model.logp(observed)),
        ]:
            rows = dict.fromkeys(drawn_indexes(found, expected), pt.as_tensor([0, 1]))
            graphs = graph_replace([found, expected], rows, strict=False)
            mine, there = (float(value) for value in evaluate(model, graphs))
            assert mine == pytest.approx(there)

    def test_frozen_model_keeps_it(self, model):
        frozen = freeze_model(model)
        assert frozen.logp() is frozen.logp()
        for name in NAMES:
            [found] = evaluate(frozen, [frozen.logp([frozen[name]])])
            [expected] = evaluate(model, [model.logp([model[name]])])
            assert float(found) == pytest.approx(float(expected))

    def test_in_a_nested_model(self):
        with pm.Model(coords=COORDS) as model:
            y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pm.Model(name="part") as part:
                z = pm.Normal("z", dims="obs")
            pm.Normal("lik", z, 1, observed=y, dims="obs")
        expected = [-0.5 * np.log(2 * np.pi) * N]
        zeros = {"part::z": np.zeros(B)}
        for m in (model, part):
            fn = pytensor.function([m.rvs_to_values[z]], [m.logp([z])], mode=PYTHON)
            assert fn(zeros["part::z"]) == pytest.approx(expected)


def drawn_indexes(*outputs):
    return [
        var
        for var in ancestors(outputs)
        if var.owner is not None
        and isinstance(var.owner.op, MinibatchIndexRV)
        and var is var.owner.outputs[1]
    ]


def pickled(model):
    return cloudpickle.loads(cloudpickle.dumps(model))


def without_the_weight(model):
    return pm.do(model, {"w": 2.0})


class TestModels:
    """Models made of models keep local variables what they are."""

    @pytest.mark.parametrize(
        "change",
        [clone_model, pickled, freeze_dims_and_data, freeze_model, without_the_weight],
        ids=lambda change: change.__name__,
    )
    @pytest.mark.parametrize("write", [in_model, of_full_data])
    def test_clones(self, change, write, full_model):
        model = change(write(one_local, full_model(one_local), "epoch"))
        [axes] = local_axes(model).values()
        assert [(rows.dim, rows.batch_size) for rows in axes] == [("obs", B)]
        assert model.rvs_to_values[model["z"]].type.shape == (B,)
        assert evaluate(model, [model.logp([model["z"]])]) == pytest.approx(
            [N / B * pm.logp(pm.Normal.dist(0.3, 1.2), POINT["z"]).eval(mode=PYTHON).sum()]
        )

    def test_observed_local(self, full_model):
        full = pm.observe(full_model(one_on_the_other), {"z": X})
        model = clone_model(pm.minibatch_model(full, B))
        assert [rv.name for rv in local_axes(model)] == ["scale", "deeper"]
        point = some_point(full)
        np.testing.assert_allclose(
            mean_over_batches(model, point), full_logp_and_gradient(full, point), rtol=1e-10
        )

    def test_replaced_local(self):
        with pytest.raises(ValueError, match="meet values that are not of the batch"):
            pm.do(build(one_local, "epoch"), {"z": np.zeros(B)})
        full = pm.do(pm.remove_minibatch(build(one_local, "epoch")), {"z": np.zeros(N)})
        assert local_axes(pm.minibatch_model(full, B)) == {}

    def test_axes(self):
        model = build(crossed, "epoch")
        found = local_axes(model)
        dims = {rv.name: [rows and rows.dim for rows in axes] for rv, axes in found.items()}
        assert dims == {"row": ["obs"], "column": ["site"], "cell": ["obs", "site"]}
        known = known_axes(model)
        for rv, axes in found.items():
            assert known[rv] == known[model.rvs_to_values[rv]] == axes
        assert model["w"] not in known

    def test_axes_of_the_value_of_a_draw_with_fewer(self):
        model = build(simplex, "epoch")
        [rows] = {axis for axis in local_axes(model)[model["z"]] if axis is not None}
        assert known_axes(model)[model.rvs_to_values[model["z"]]] == (rows, OWN)

    def test_a_model_without_any(self, full_model):
        assert local_axes(full_model(one_local)) == {}
        assert known_axes(full_model(one_local)) == {}

    def test_static_shapes(self):
        model = build(simplex, "epoch")
        assert model["z"].type.shape[0] == B
        assert model.rvs_to_values[model["z"]].type.shape[0] == B

    @pytest.mark.parametrize("form", [random_walk_of_each_row, mixture, multivariate])
    def test_static_shapes_behind_inner_graphs(self, form, full_model):
        model = of_full_data(form, full_model(form), "epoch")
        assert model.rvs_to_values[model["z"]].type.shape[0] == B

    def test_coords_stay_full(self):
        model = build(one_local, "epoch")
        assert model.dim_lengths["obs"].eval(mode=PYTHON) == N
        assert len(model.coords["obs"]) == N

    def test_without_a_likelihood(self):
        with pm.Model(coords=COORDS) as model:
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            pm.Normal("z", dims="obs")
        assert model_indexes(model) != []
        assert pm.remove_minibatch(model).initial_point()["z"].shape == (N,)


class TestInitval:
    @pytest.mark.parametrize("write", [in_model, of_full_data])
    def test_one_for_each_row(self, write):
        def with_initval(rows):
            _, y, *_ = table(rows)
            likelihood(pm.Gamma("z", 2, 1, dims="obs", initval=np.arange(1.0, N + 1)), y)

        full = build(with_initval)
        model = write(with_initval, full, "epoch")
        assert set(model.initial_point(3)["z_log__"]) < set(np.log(np.arange(1.0, N + 1)))
        np.testing.assert_allclose(
            pm.remove_minibatch(clone_model(model)).initial_point()["z_log__"],
            np.log(np.arange(1.0, N + 1)),
        )

    @pytest.mark.parametrize("initval", [0.5, [0.5], np.array([[0.5]] * 2), pt.constant(0.5)])
    def test_one_for_all(self, initval):
        with pm.Model(coords=COORDS) as model:
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            dims = ("group", "obs") if np.ndim(initval) == 2 else "obs"
            pm.Normal("z", dims=dims, initval=initval)
        assert model.initial_point()["z"].shape == (*([2] * (np.ndim(initval) == 2)), B)
        assert (model.initial_point()["z"] == 0.5).all()

    def test_strategy(self):
        with pm.Model(coords=COORDS) as model:
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            pm.Normal("z", dims="obs", initval="prior")
        assert (model.initial_point()["z"] != 0).all()

    def test_of_a_batch(self):
        with pm.Model(coords=COORDS):
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pytest.raises(ValueError, match="initval of 'z' has 2 rows along the dim 'obs'"):
                pm.Normal("z", dims="obs", initval=np.zeros(B))


def not_of_the_batch(y):
    return pm.Normal("z", pt.as_tensor(np.arange(float(B))), 1, dims="obs")


def of_full_length_data(y):
    return pm.Normal("z", pm.Data("all", X, dims="obs"), 1, dims="obs")


def of_rows_of_another(y):
    other = pm.Minibatch(pm.Data("pairs", PAIRS, dims=("obs", "site")), batch_size={"site": B})
    return pm.Normal("z", other[0], 1, dims="obs")


def random_walk_over_the_plate(y):
    init = pm.Normal.dist(0, 1)
    return pm.GaussianRandomWalk("z", init_dist=init, dims="obs", steps=B - 1)


def autoregression_over_the_plate(y):
    return pm.AR("z", [0.5], init_dist=pm.Normal.dist(0, 1), dims=("group", "obs"))


def zero_sum_over_the_plate(y):
    return pm.ZeroSumNormal("z", dims="obs")


def correlated_over_the_plate(y):
    return pm.MvNormal("z", np.zeros(B), np.eye(B), dims="obs")


def shares_over_the_plate(y):
    return pm.Dirichlet("z", np.ones(B), dims="obs")


def named_zero_sum_over_the_plate(y):
    return pmd.ZeroSumNormal("z", core_dims="obs", dims=("obs",))


def named_shares_over_the_plate(y):
    weights = pmd.as_xtensor(np.ones(B), dims=("obs",))
    return pmd.Dirichlet("z", weights, core_dims="obs", dims=("obs",))


def without_its_dim(y):
    return pm.Normal("z", y, 1)


def with_another_dim(y):
    return pm.Normal("z", y, 1, dims="group")


def on_another_local_without_its_dim(y):
    return pm.Normal("z", pm.Normal("local", dims="obs"), 1)


def global_of_mixed_locals(y):
    return pm.Normal("z", pm.Normal("local", dims="obs").sum(), 1)


def global_of_mixed_data(y):
    return pm.Normal("z", y.mean(), 1)


def local_of_mixed_locals(y):
    return pm.Normal("z", pm.Normal("local", dims="obs").mean(), 1, dims="obs")


def slots_meet_rows(y):
    return pm.Normal("z", pm.Normal("slots", shape=B), 1, dims="obs")


def with_too_long_a_shape(y):
    return pm.Normal("z", shape=N, dims="obs")


def with_the_length_of_all_data(y):
    return pm.Normal("z", shape=pm.modelcontext(None)["y"].shape, dims="obs")


def sized_by_all_data(y):
    return pm.Normal("z", size=N, dims="obs")


def of_the_number_of_rows(y):
    return pm.Normal("z", 0, 1 / y.shape[0], dims="obs")


def on_the_diagonal(y):
    return pm.Normal("z", dims=("obs", "obs"))


def custom_that_mixes(y):
    def dist(mu, size):
        return pm.math.cumsum(pm.Normal.dist(mu, 1, size=size))

    return pm.CustomDist("z", 0.0, dist=dist, dims="obs")


def custom_that_hides_its_data(y):
    return pm.CustomDist("z", logp=lambda value: -((value - y) ** 2), dims="obs")


WITHIN_A_DRAW = (
    "'z' has the subsampled dim 'obs' on axis .* which is within one draw of its distrib"
)


class TestRefused:
    """Before anything is compiled, and by name."""

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            (not_of_the_batch, "axis 0, but a parameter has values of its own there"),
            (of_full_length_data, "axis 0, but a parameter has values of its own there"),
            (
                of_rows_of_another,
                "but its parameters are rows of the minibatch index of dim 'site'",
            ),
            (random_walk_over_the_plate, WITHIN_A_DRAW),
            (autoregression_over_the_plate, WITHIN_A_DRAW),
            (zero_sum_over_the_plate, WITHIN_A_DRAW),
            (correlated_over_the_plate, WITHIN_A_DRAW),
            (shares_over_the_plate, WITHIN_A_DRAW),
            (named_zero_sum_over_the_plate, WITHIN_A_DRAW),
            (named_shares_over_the_plate, WITHIN_A_DRAW),
            (without_its_dim, r"'z', axis 0, has parameters that are rows .* Give it dims='obs'"),
            (with_another_dim, r"its dims \(\('group',\)\) do not say so"),
            (on_another_local_without_its_dim, "'z', axis 0, has parameters that are rows of"),
            (global_of_mixed_locals, "The parameters of the free variable 'z': .* mixes the rows"),
            (global_of_mixed_data, "The parameters of the free variable 'z': .* mixes the rows"),
            (local_of_mixed_locals, "The parameters of the free variable 'z': .* mixes the rows"),
            (slots_meet_rows, "a parameter has values of its own there"),
            (with_too_long_a_shape, "it has 2 rows, those of a batch, but its length there is 4"),
            (with_the_length_of_all_data, "those of a batch, but its length there is 4"),
            (sized_by_all_data, "those of a batch, but its length there is 4"),
            (of_the_number_of_rows, "'z' computes with the number of rows of a batch"),
            (on_the_diagonal, "'z': one minibatch index on two axes picks the diagonal"),
            (custom_that_mixes, "The parameters of the free variable 'z': .* rows of a minibatch"),
            (custom_that_hides_its_data, "the logp= of 'z' uses the minibatch index of dim 'obs'"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_forms(self, form, message):
        with pm.Model(coords=COORDS):
            y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pytest.raises(ValueError, match=message):
                form(y)

    def test_registered_before(self):
        with pm.Model(coords=COORDS):
            y = pm.Data("y", Y, dims="obs")
            pm.Normal("z", dims="obs")
            with pytest.raises(
                ValueError, match="'obs', but 'z' was registered with that dim before"
            ):
                pm.Minibatch(y, batch_size=B)

    def test_an_observed_value_of_all_rows(self):
        with pm.Model(coords=COORDS):
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            z = pm.Normal("z", dims="obs")
            with pytest.raises(
                ValueError, match="its observed value is not, so that x and y are out"
            ):
                pm.Normal("lik", z, 1, observed=np.arange(float(B)))

    def test_a_potential_that_does_not_say_its_rows(self):
        with pm.Model(coords=COORDS):
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            z = pm.Normal("z", dims="obs")
            with pytest.raises(ValueError, match="nothing says that it is a sum over rows"):
                pm.Potential("soft", -(z**2))

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            (zero_sum_over_the_plate, WITHIN_A_DRAW),
            (with_too_long_a_shape, "those of a batch, but its length there is 4"),
            (global_of_mixed_locals, "The parameters of the free variable 'z': .* mixes the rows"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_in_a_model_of_full_data(self, form, message):
        with pm.Model(coords=COORDS) as full:
            y = pm.Data("y", Y, dims="obs")
            z = form(y)
            pm.Normal("lik", z, 1, observed=y, dims="obs")
        with pytest.raises(ValueError, match=message):
            pm.minibatch_model(full, B)

    @pytest.mark.parametrize("fit", [pm.sample, pm.find_MAP, pm.sample_smc])
    def test_methods_that_need_one_log_probability(self, fit):
        with pytest.raises(ValueError, match=r"pm\.remove_minibatch"):
            fit(model=build(one_local, "epoch"))


def test_an_explicit_length_of_the_batch_is_the_same():
    with pm.Model(coords=COORDS) as model:
        y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
        pm.Normal("z", dims="obs", shape=y.shape)
        pm.Normal("literal", dims="obs", shape=B)
    assert [rv.name for rv in local_axes(model)] == ["z", "literal"]


class TestAllRows:
    """Functions about all rows take and give N values of a local variable."""

    @pytest.fixture(scope="class")
    def model(self):
        return build(deterministic_between, "epoch")

    @pytest.fixture(scope="class")
    def posterior(self):
        z = np.random.default_rng(2).normal(size=(1, 5, N))
        return xr.Dataset({"z": (("chain", "draw", "obs"), z)}, {"obs": range(N)})

    def test_prior_predictive(self, model):
        drawn = pm.sample_prior_predictive(3, model=model)
        assert drawn.prior["z"].sizes == {"chain": 1, "draw": 3, "obs": N}
        assert drawn.prior_predictive["lik"].sizes["obs"] == N

    def test_posterior_predictive(self, model, posterior):
        drawn = pm.sample_posterior_predictive(posterior, model=model, progressbar=False)
        assert drawn.posterior_predictive["lik"].sizes == {"chain": 1, "draw": 5, "obs": N}

    def test_log_likelihood(self, model, posterior):
        found = pm.compute_log_likelihood(
            xr.DataTree.from_dict({"posterior": posterior}), model=model, progressbar=False
        )
        mu = np.exp(posterior["z"].to_numpy()) * X
        expected = -0.5 * ((Y - mu) / 1.5) ** 2 - np.log(1.5 * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(found.log_likelihood["lik"], expected)

    def test_deterministics(self, model, posterior):
        found = pm.compute_deterministics(posterior, model=model, progressbar=False)
        np.testing.assert_allclose(found["mu"], np.exp(posterior["z"].to_numpy()) * X)
