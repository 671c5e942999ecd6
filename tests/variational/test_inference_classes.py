# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Groups, operators and test functions of users, and every method, through the engine."""

from contextlib import contextmanager

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc import variational
from pymc.variational.approximations import Approximation, MeanFieldGroup
from pymc.variational.operators import KL
from pymc.variational.opvi import Group, Operator, TestFunction, node_property
from tests.variational.engine import (
    PYTHON,
    assert_same,
    counted_compilations,
    params_of,
    quiet,
)

TestFunction.__test__ = False  # its name looks like one of a test to pytest


def two_variables():
    with pm.Model() as model:
        w = pm.Normal("w", 0, 1, shape=2)
        b = pm.Normal("b", 0, 1)
        pm.Normal("y", w.sum() + b, 1, observed=[1.0, 2.0, 0.5])
    return model


class Tilted(Operator):
    """A user's operator: the negative ELBO, times two."""

    def apply(self, f):
        return 2 * (self.logq_norm - self.logp_norm)


@contextmanager
def registered(group):
    """Let `vfam` name a group, for a while."""
    tables = (Group._Group__param_registry, Group._Group__name_registry)
    before = [dict(table) for table in tables]
    Group.register(group)
    try:
        yield
    finally:
        for table, old in zip(tables, before):
            table.clear()
            table.update(old)


class TestOwnClasses:
    def test_groups(self):
        model = two_variables()
        with model:
            groups = [Group([model["w"]], vfam="fr"), Group(None, vfam="mf")]
            inference = variational.KLqp(Approximation(groups))
            approx = inference.fit(
                30, **quiet(obj_optimizer=pm.adam(learning_rate=0.05), average=0.5)
            )
        assert len(approx.params) == 4
        assert approx.hist.shape == (30,)
        assert np.isfinite(approx.hist).all()
        assert all(np.any(param != 0) for param in params_of(approx))
        with pytensor.config.change_flags(mode=PYTHON):
            draws = approx.sample(7, random_seed=1)
        assert draws["posterior"]["w"].shape == (1, 7, 2)

    def test_groups_are_seeded(self):
        fits = []
        for _ in range(2):
            model = two_variables()
            with model:
                groups = [
                    Group([model["w"]], vfam="fr", random_seed=1),
                    Group(None, vfam="mf", random_seed=2),
                ]
                fits.append(variational.KLqp(Approximation(groups)).fit(10, **quiet()).hist)
        assert_same(*fits)

    def test_user_parameters(self):
        """Groups made from a user's graph: what is fitted is behind it."""
        model = two_variables()
        with model:
            mu = pytensor.shared(np.zeros(3), "own_mu")
            rho = pytensor.shared(np.zeros(3), "own_rho")
            group = Group(None, params={"mu": 2 * mu, "rho": rho + 1})
            inference = variational.KLqp(Approximation([group]))
            inference.approx.groups[0].rng = np.random.RandomState(1)
            inference.fit(50, **quiet(more_obj_params=[mu, rho], obj_optimizer=pm.adam()))
        assert np.all(mu.get_value() != 0)
        assert np.all(rho.get_value() != 0)
        assert inference.hist.shape == (50,)

    def test_operator(self):
        class TiltedADVI(variational.Inference):
            def __init__(self, **kwargs):
                super().__init__(Tilted, pm.MeanField(**kwargs), None)

        model = two_variables()
        tilted = TiltedADVI(model=model, random_seed=1)
        tilted.fit(1, **quiet())
        plain = pm.ADVI(model=model, random_seed=1)
        plain.fit(1, **quiet())
        np.testing.assert_allclose(tilted.hist, 2 * plain.hist, rtol=1e-12)
        assert tilted.approx.report.method == "TiltedADVI"

    def test_group(self):
        class Narrow(MeanFieldGroup):
            """Half the standard deviation of mean-field; of other parameters' names."""

            __param_spec__ = {"m": ("d",), "r": ("d",)}
            short_name = "narrow"
            alias_names = frozenset(["nw"])

            @node_property
            def mean(self):
                return self.params_dict["m"]

            @node_property
            def rho(self):
                return self.params_dict["r"]

            @node_property
            def std(self):
                return 0.5 * pt.softplus(self.rho)

            def create_shared_params(self, start=None, start_sigma=None):
                made = super().create_shared_params(start, start_sigma)
                return {"m": made["mu"], "r": made["rho"]}

        with registered(Narrow), two_variables():
            inference = variational.KLqp(Approximation([Group(None, vfam="nw", random_seed=1)]))
            approx = inference.fit(20, **quiet())
        assert np.isfinite(approx.hist).all()
        np.testing.assert_allclose(
            approx.groups[0].std.eval(mode=PYTHON), 0.5 * np.log1p(np.exp(params_of(approx)[1]))
        )

    def test_test_function(self):
        """With parameters of its own, which are optimised against the objective's."""

        class Affine(TestFunction):
            def __init__(self, d):
                super().__init__()
                names = ("scale", "shift")
                self.shared_params = {name: pytensor.shared(np.ones(d), name) for name in names}

            def __call__(self, z):
                return self.shared_params["scale"] * z + self.shared_params["shift"]

        class Adversarial(KL):
            has_test_function = True

            def apply(self, f):
                return super().apply(None) + f(self.approx.groups[0].symbolic_random).sum()

        function = Affine(3)
        approx = pm.MeanField(model=two_variables(), random_seed=1)
        inference = variational.Inference(Adversarial, approx, function)
        inference.fit(10, **quiet(tf_n_mc=2, test_optimizer=pm.sgd(learning_rate=0.01)))
        assert np.isfinite(inference.hist).all()
        for param in function.params:
            assert np.isfinite(param.get_value()).all()
            assert np.all(param.get_value() != 1)


@pytest.mark.filterwarnings("ignore:You are using experimental inference Operator:UserWarning")
@pytest.mark.parametrize("method", ["advi", "fullrank_advi", "svgd", "asvgd"])
def test_methods(method):
    with two_variables() as model, counted_compilations() as graphs:
        kwargs = {"inf_kwargs": {"n_particles": 5}} if method == "svgd" else {}
        fits = [pm.fit(6, method, random_seed=1, **kwargs, **quiet()) for _ in range(2)]
    del model
    assert len(graphs) == 1
    assert_same(params_of(fits[0]), params_of(fits[1]))
