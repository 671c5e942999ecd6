# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models of customer lifetime value, as those of pymc-marketing are written, by customers.

Terms of two columns, Potentials, censoring, customers with their own latent value: with recency, age
and cohort as constants.
"""

import numpy as np
import pytensor.tensor as pt
import pytest

from pytensor.tensor.random.op import RandomVariable

import pymc as pm

from pymc.distributions.dist_math import betaln, check_parameters
from tests.minibatch.enumeration import full_logp_and_gradient, mean_over_batches, some_point

N, B = 7, 3
rng = np.random.default_rng(1)
FREQUENCY = np.array([0.0, 1, 3, 2, 0, 5, 1])
T = np.array([20.0, 25, 30, 22, 38, 31, 27])
RECENCY = np.array([0.0, 9, 27, 15, 0, 30, 2])
BOUGHT = np.stack([RECENCY, FREQUENCY], axis=1)
SPEND = rng.gamma(5, 8, N)
COHORT = np.array([0, 1, 1, 0, 2, 2, 0])
COLUMNS = rng.normal(size=(N, 2))


class PurchasesRV(RandomVariable):
    """Recency and frequency of a customer: a draw is a pair."""

    name = "purchases"
    signature = "(),(),(),(),()->(2)"
    dtype = "floatX"
    _print_name = ("Purchases", "Purchases")


class BetaGeoNBDRV(PurchasesRV):
    pass


class ParetoNBDRV(PurchasesRV):
    pass


class BetaGeoNBD(pm.Continuous):
    """Fader, Hardie and Lee (2005), equation 6."""

    rv_op = BetaGeoNBDRV()

    @classmethod
    def dist(cls, *params, **kwargs):
        return super().dist([pt.as_tensor(param) for param in params], **kwargs)

    def logp(value, a, b, r, alpha, T):
        t_x, x = value[..., 0], value[..., 1]
        common = pt.gammaln(r + x) - pt.gammaln(r) + r * pt.log(alpha)
        alive = betaln(a, b + x) - (r + x) * pt.log(alpha + T)
        left = betaln(a + 1, b + x - 1) - (r + x) * pt.log(alpha + t_x)
        either = pt.switch(x > 0, pt.logaddexp(alive, left), alive)
        return check_parameters(common + either - betaln(a, b), a > 0, b > 0, alpha > 0)


class ParetoNBD(pm.Continuous):
    """Fader and Hardie (2005), for alpha >= beta."""

    rv_op = ParetoNBDRV()

    @classmethod
    def dist(cls, *params, **kwargs):
        return super().dist([pt.as_tensor(param) for param in params], **kwargs)

    def logp(value, r, alpha, s, beta, T):
        t_x, x = value[..., 0], value[..., 1]
        total = r + s + x

        def part(t):
            z = (alpha - beta) / (alpha + t)
            return pt.hyp2f1(total, s + 1, total + 1, z) / (alpha + t) ** total

        left = s / total * (part(t_x) - part(T))
        alive = 1 / ((alpha + T) ** (r + x) * (beta + T) ** s)
        common = pt.gammaln(r + x) - pt.gammaln(r) + r * pt.log(alpha) + s * pt.log(beta)
        return common + pt.log(alive + left)


def beta_geo():
    a, b, r, alpha = (pm.HalfNormal(name) for name in ["a", "b", "r", "alpha"])
    dims = ("customer", "column")
    BetaGeoNBD("lik", a, b, r, alpha, T, observed=BOUGHT, dims=dims)


def beta_geo_with_covariates():
    """Covariates are pm.Data with dims, the age is a constant."""
    columns = pm.Data("columns", COLUMNS, dims=("customer", "column"))
    effect = pt.exp(-pt.dot(columns, pm.Normal("effect", dims="column")))
    alpha = pm.Deterministic("alpha", pm.HalfNormal("alpha_scale") * effect, dims="customer")
    a, b, r = (pm.HalfNormal(name) for name in ["a", "b", "r"])
    BetaGeoNBD("lik", a, b, r, alpha, T, observed=BOUGHT, dims=("customer", "column"))


def pareto():
    r, s, beta = (pm.HalfNormal(name) for name in ["r", "s", "beta"])
    alpha = beta + pm.HalfNormal("more")
    ParetoNBD("lik", r, alpha, s, beta, T, observed=BOUGHT, dims=("customer", "column"))


def gamma_gamma():
    """A Potential with the customers' dim, and no observed variable."""
    p, q, v = (pm.HalfNormal(name, 5) for name in "pqv")
    x, mean = FREQUENCY + 1, SPEND
    term = pt.gammaln(p * x + q) - pt.gammaln(p * x) - pt.gammaln(q) + q * pt.log(v)
    term += (p * x - 1) * pt.log(mean) + p * x * pt.log(x) - (p * x + q) * pt.log(x * mean + v)
    pm.Potential("lik", term, dims="customer")


def gamma_gamma_of_individuals():
    p, q, v = (pm.HalfNormal(name, 5) for name in "pqv")
    nu = pm.Gamma("nu", q, v, dims="customer")
    pm.Gamma("lik", p * (FREQUENCY + 1), nu * (FREQUENCY + 1), observed=SPEND, dims="customer")


def shifted_beta_geo_of_individuals():
    alpha, beta = (pm.HalfNormal(name, 5) for name in ["alpha", "beta"])
    theta = pm.Beta("theta", alpha, beta, dims="customer")
    churn = pm.Geometric.dist(theta)
    observed = np.minimum(FREQUENCY + 1, 4)
    pm.Censored("lik", churn, lower=None, upper=T * 0 + 4, observed=observed, dims="customer")


def shifted_beta_geo_of_cohorts():
    """The lifetime marginalised over customers of a cohort, censored at their age."""
    alpha, beta = (pm.HalfNormal(name, 5, dims="cohort")[COHORT] for name in ["alpha", "beta"])

    def logp(value, alpha, beta):
        died = betaln(alpha + 1, beta + value - 1)
        alive = betaln(alpha, beta + value)
        return pt.switch(value < CENSORED_AT, died, alive) - betaln(alpha, beta)

    CENSORED_AT = np.array([2.0, 3, 4, 3, 9, 6, 2])
    pm.CustomDist("lik", alpha, beta, logp=logp, observed=FREQUENCY + 1, dims="customer")


@pytest.mark.parametrize(
    "form",
    [
        beta_geo,
        beta_geo_with_covariates,
        pareto,
        gamma_gamma,
        gamma_gamma_of_individuals,
        shifted_beta_geo_of_individuals,
        shifted_beta_geo_of_cohorts,
    ],
)
def test_lifetime_value(form):
    with pm.Model(coords={"customer": range(N), "column": range(2), "cohort": range(3)}) as full:
        form()
    batched = pm.minibatch_model(full, {"customer": B})
    point = some_point(full)
    mean = mean_over_batches(batched, point, gradient=False)
    expected = full_logp_and_gradient(full, point, gradient=False)
    assert np.isfinite(expected)
    np.testing.assert_allclose(mean, expected, rtol=1e-8)
