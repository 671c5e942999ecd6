# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The scale of a Potential, and one that has the factor N/B, or N, already."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from scipy import stats

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.scaling import ratios
from tests.minibatch.enumeration import (
    PYTHON,
    assert_mean_is_full,
    full_logp_and_gradient,
    mean_over_batches,
    some_point,
)

N, B = 12, 2
Y = np.linspace(-1, 2, N)


def potential(form, n=N, b=B, **how):
    """Make a model of `form`, a function of log-likelihoods, the batch and the data."""
    with pm.Model(coords={"obs": range(n)}) as model:
        data = pm.Data("y", np.linspace(-1, 2, n), dims="obs")
        y = pm.Minibatch(data, batch_size=b, sampling="without_replacement")
        ll = -((y - pm.Normal("mu")) ** 2)
        pm.Potential("ll", form(ll, y, data), **how)
    return model


OF_A_SUM = {
    "N/B": lambda ll, y, data: ll.sum() * (N / B),
    "in two steps": lambda ll, y, data: ll.sum() * N / B,
    "1/B first": lambda ll, y, data: N * (1 / B * ll.sum()),
    "negative": lambda ll, y, data: -((N / B) * (-ll).sum()),
    "a mean times N": lambda ll, y, data: pt.mean(ll) * N,
    "a mean times the data's length": lambda ll, y, data: ll.mean() * data.shape[0],
    "lengths": lambda ll, y, data: ll.sum() * (data.shape[0] / y.shape[0]),
    "before the sum": lambda ll, y, data: (ll * (N / B)).sum(),
    "beside a prior": lambda ll, y, data: (N / B) * ll.sum() - 0.5,
    "around a bracket": lambda ll, y, data: (N / B) * (ll.sum() + ll.sum()),
    "N": lambda ll, y, data: ll.sum() * N,
    "beside a factor of the density": lambda ll, y, data: (N / B) * (-0.5 * -ll).sum(),
    "beside one and a parameter": lambda ll, y, data: 0.25 * ll.sum() * N / B / 2,
    "in a branch": lambda ll, y, data: pt.switch(data[0] < 0, (N / B) * ll.sum(), -np.inf),
    "reshaped": lambda ll, y, data: ((N / B) * ll).reshape((-1, 1)).sum(),
    "end to end": lambda ll, y, data: pt.concatenate([(N / B) * ll, (N / B) * ll]).sum(),
    "a dot product": lambda ll, y, data: pt.dot(ll, np.full(B, N / B)),
    "single precision": lambda ll, y, data: ll.sum() * np.float32(N / B),
}
OF_ROWS = {
    "N/B": lambda ll, y, data: ll * (N / B),
    "in two steps": lambda ll, y, data: ll / B * N,
    "for each row": lambda ll, y, data: ll * np.full(B, N / B),
    "N": lambda ll, y, data: N * ll,
}


@pytest.mark.parametrize("form", OF_A_SUM.values(), ids=OF_A_SUM)
def test_refuses_a_scaled_sum(form):
    with pytest.raises(ValueError, match=r"factor .*multiplied by N/B = 12/2 = 6.*Take the factor"):
        potential(form, total_size=N)


@pytest.mark.parametrize("how", [{"dims": "obs"}, {"total_size": N}], ids=str)
@pytest.mark.parametrize("form", OF_ROWS.values(), ids=OF_ROWS)
def test_refuses_scaled_rows(form, how):
    with pytest.raises(ValueError, match=r"factor .*multiplied by N/B = 12/2 = 6.*Take the factor"):
        potential(form, **how)


def test_refuses_a_mean():
    with pytest.raises(ValueError, match=r"is a mean over the 2 rows .*total_size=12 .*their sum"):
        potential(lambda ll, y, data: ll.mean(), total_size=N)


@pytest.mark.parametrize("factor", [10, 11, 105 / 10])
def test_refuses_a_rounded_ratio(factor):
    with pytest.raises(ValueError, match="Take the factor out"):
        potential(lambda ll, y, data: ll.sum() * factor, n=105, b=10, total_size=105)


def test_refuses_it_of_batches_fed_by_hand():
    with pm.Model():
        batch = pm.Data("batch", Y[:B])
        with pytest.raises(ValueError, match="factor 6 of its own"):
            pm.Potential("ll", -((batch - pm.Normal("mu")) ** 2) * (N / B), total_size=N)


def test_refuses_it_of_named_dims():
    with pm.Model(coords={"obs": range(N)}):
        data = pmd.Data("y", Y, dims="obs")
        y = pm.Minibatch(data, batch_size=B)
        ll = -((y - pmd.Normal("mu")) ** 2) * (N / B)
        with pytest.raises(ValueError, match="factor 6 of its own"):
            pmd.Potential("ll", ll)
        with pytest.raises(ValueError, match="factor 6 of its own"):
            pmd.Potential("sum", ll.sum(), total_size=N)


def test_what_to_write_is_said_before():
    with pytest.raises(ValueError, match=r"give total_size=.*take out a factor N/B of your own"):
        potential(OF_A_SUM["N/B"])


ACCEPTED = {
    "none": (lambda ll, y, data: ll.sum(), {"total_size": N}, 1),
    "a half": (lambda ll, y, data: 0.5 * ll.sum(), {"total_size": N}, 0.5),
    "a half, for each row": (lambda ll, y, data: 0.5 * ll, {"dims": "obs"}, 0.5),
    "a tempered likelihood": (lambda ll, y, data: ll.sum() / N, {"total_size": N}, 1 / N),
    "data": (lambda ll, y, data: ll * pm.Data("weight", N / B), {"dims": "obs"}, N / B),
    "shared": (lambda ll, y, data: ll.sum() * pytensor.shared(N / B), {"total_size": N}, N / B),
    "in a term of a density": (lambda ll, y, data: ll * (N / B) + 0 * y, {"dims": "obs"}, N / B),
}


@pytest.mark.parametrize(("form", "how", "weight"), ACCEPTED.values(), ids=ACCEPTED)
def test_other_numbers_are_the_models(form, how, weight):
    model = potential(form, **how)
    expected = stats.norm.logpdf(0.3) - weight * ((Y - 0.3) ** 2).sum()
    [found, *_] = mean_over_batches(model, {"mu": np.array(0.3)})
    np.testing.assert_allclose(found, expected)


def test_a_number_is_no_factor_of_what_stands_beside_it():
    potential(lambda ll, y, data: ll.sum() + N / B, total_size=N)


def test_a_model_of_all_rows_has_the_factors_that_it_has():
    with pm.Model(coords={"obs": range(N)}) as full:
        y = pm.Data("y", Y, dims="obs")
        pm.Normal("lik", pm.Normal("mu"), 1, observed=y, dims="obs")
        pm.Potential("ll", (N / B) * -((y - full["mu"]) ** 2), dims="obs")
    batched = pm.minibatch_model(full, B, sampling="without_replacement")
    point = some_point(full)
    np.testing.assert_allclose(
        mean_over_batches(batched, point), full_logp_and_gradient(full, point)
    )


TABLE = np.random.default_rng(2).normal(size=(5, 3))
COLUMN = TABLE[:, 0]
COORDS = {"obs": range(5), "feature": list("abc")}


class TestPotential:
    def term(self, batch, mu):
        return -((batch - mu) ** 2)

    def full(self, data=COLUMN):
        with pm.Model() as model:
            pm.Potential("term", self.term(data, pm.Normal("mu")))
        return model

    @pytest.mark.parametrize("kwargs", [{"dims": "obs"}, {"total_size": 5}, {"total_size": (5,)}])
    def test_one_value_a_row(self, kwargs):
        with pm.Model(coords=COORDS) as model:
            batch = pm.Minibatch(COLUMN, batch_size=B, sampling="without_replacement")
            pm.Potential("term", self.term(batch, pm.Normal("mu")), **kwargs)
        assert_mean_is_full(model, self.full())

    def test_sum_over_the_batch(self):
        with pm.Model() as model:
            batch = pm.Minibatch(COLUMN, batch_size=B, sampling="without_replacement")
            pm.Potential("term", self.term(batch, pm.Normal("mu")).sum(), total_size=5)
        assert_mean_is_full(model, self.full())

    def test_blocks(self):
        with pm.Model(coords=COORDS) as model:
            block = pm.Minibatch(TABLE, batch_size=[B, 2], sampling="without_replacement")
            pm.Potential("term", self.term(block, pm.Normal("mu")), dims=("obs", "feature"))
        assert_mean_is_full(model, self.full(TABLE))

    def test_named_dims(self):
        with pm.Model(coords=COORDS) as model:
            y = pmd.Data("y", COLUMN, dims="obs")
            pmd.Potential("term", self.term(pm.Minibatch(y, batch_size=5), 0.0))
        # A batch of all rows; the release has no gradient of a Potential with named dims
        value = pytensor.function([], model.logp(), mode=PYTHON)()
        np.testing.assert_allclose(value, self.term(COLUMN, 0.0).sum())
        assert len(ratios(model["term"])) == 1

    def test_sum_over_named_dims(self):
        with pm.Model(coords=COORDS) as model:
            batch = pm.Minibatch(pmd.Data("y", COLUMN, dims="obs"), batch_size=5)
            pmd.Potential("term", self.term(batch, 0.0).sum("obs"), total_size=5)
            with pytest.raises(ValueError, match="total_size is 7, but the data have 5 rows"):
                pmd.Potential("wrong", self.term(batch, 0.0).sum("obs"), total_size=7)
        value = pytensor.function([], model.logp(), mode=PYTHON)()
        np.testing.assert_allclose(value, self.term(COLUMN, 0.0).sum())

    def test_nothing_said(self):
        with pm.Model():
            term = self.term(pm.Minibatch(COLUMN, batch_size=B), pm.Normal("mu"))
            with pytest.raises(
                ValueError, match=r"Potential 'term' depends on.*dims=, or total_size="
            ):
                pm.Potential("term", term)
            with pytest.raises(ValueError, match=r"mixes the rows|has no axis of its rows"):
                pm.Potential("term", term.sum())

    def test_wrong_total(self):
        with pm.Model():
            term = self.term(pm.Minibatch(COLUMN, batch_size=B), pm.Normal("mu"))
            for var in (term, term.sum()):
                with pytest.raises(ValueError, match="total_size is 7, but the data have 5 rows"):
                    pm.Potential("term", var, total_size=7)

    def test_mixed(self):
        with pm.Model():
            term = self.term(pm.Minibatch(COLUMN, batch_size=B), pm.Normal("mu"))
            with pytest.raises(ValueError, match="mixes the rows"):
                pm.Potential("term", pt.cumsum(term), total_size=5)

    def test_sum_over_one_of_two_indexes(self):
        with pm.Model():
            block = pm.Minibatch(TABLE, batch_size=[B, 2])
            term = self.term(block, pm.Normal("mu"))
            with pytest.raises(ValueError, match="2 minibatch indexes"):
                pm.Potential("term", term.sum(), total_size=5)

    def test_out_of_step(self):
        with pm.Model():
            x, y = pm.Minibatch(TABLE, batch_size=B), pm.Minibatch(COLUMN, batch_size=B)
            with pytest.raises(ValueError, match="two minibatch indexes meet"):
                pm.Potential("term", y - x[:, 0], total_size=5)

    def test_of_a_scaled_one(self):
        with pm.Model(coords=COORDS) as model:
            batch = pm.Minibatch(COLUMN, batch_size=B)
            term = pm.Potential("term", self.term(batch, 0.0), dims="obs")
            twice = pm.Potential("twice", 2 * term, dims="obs")
            assert len(ratios(twice)) == 1
            with pytest.raises(ValueError, match="scaled to all rows already"):
                pm.Potential("more", term + batch, dims="obs")

    def test_one_more_axis_by_a_transformation(self):
        with pm.Model(coords=COORDS) as full:
            x = pm.Data("x", TABLE, dims=("obs", "feature"))
            pm.Potential("term", self.term(x, pm.Normal("mu")), dims=("obs", "feature"))
        model = pm.minibatch_model(full, {"obs": B}, sampling="without_replacement")
        model = pm.minibatch_model(model, {"feature": 2}, sampling="without_replacement")
        assert_mean_is_full(model, full)

    def test_hand_fed(self):
        with pm.Model() as model:
            batch = pm.Data("batch", COLUMN[:2])
            pm.Potential("term", self.term(batch, 0.0), total_size=100)
        value = model.potentiallogp.eval(mode=PYTHON)
        np.testing.assert_allclose(value, self.term(COLUMN[:2], 0.0).sum() * 50)

    def test_without_a_minibatch_it_is_the_release_s(self):
        with pm.Model():
            mu = pm.Normal("mu", shape=3)
            term = -(mu**2)
            assert pm.Potential("term", term) is term
