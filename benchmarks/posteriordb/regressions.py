# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Linear and logistic regressions."""

from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt

import pymc as pm

from posteriordb.data import Data

Build = Callable[[Data], pm.Model]


def columns(*values: np.ndarray | float) -> np.ndarray:
    """Put columns side by side; a number is repeated."""
    return np.column_stack(np.broadcast_arrays(*values)).astype("float64")


def linear(
    design: Callable[[Data], np.ndarray],
    response: Callable[[Data], np.ndarray],
    sigma_prior: Callable[[], object] = lambda: pm.HalfFlat("sigma"),
    beta_sd: float | None = None,
) -> Build:
    """Return what builds y ~ N(X beta, sigma), with a flat prior of beta or N(0, beta_sd)."""

    def build(data: Data) -> pm.Model:
        x, y = design(data), response(data)
        with pm.Model() as model:
            if beta_sd is None:
                beta = pm.Flat("beta", shape=x.shape[1])
            else:
                beta = pm.Normal("beta", 0, beta_sd, shape=x.shape[1])
            pm.Normal("y", pt.dot(x, beta), sigma_prior(), observed=y)
        return model

    return build


def half_cauchy_sigma() -> object:
    """Sigma ~ Cauchy(0, 2.5), above 0."""
    return pm.HalfCauchy("sigma", 2.5)


def logistic(design: Callable[[Data], np.ndarray]) -> Build:
    """Return what builds switched ~ Bernoulli(logit⁻¹(X beta)), with a flat prior of beta."""

    def build(data: Data) -> pm.Model:
        x = design(data)
        with pm.Model() as model:
            beta = pm.Flat("beta", shape=x.shape[1])
            pm.Bernoulli("y", logit_p=pt.dot(x, beta), observed=data["switched"].astype("int64"))
        return model

    return build


def kilpisjarvi(data: Data) -> pm.Model:
    """Build y ~ N(alpha + beta x, sigma), with normal priors of alpha and beta, and x in years."""
    with pm.Model() as model:
        alpha = pm.Normal("alpha", data["pmualpha"], data["psalpha"])
        beta = pm.Normal("beta", data["pmubeta"], data["psbeta"])
        sigma = pm.HalfFlat("sigma")
        pm.Normal("y", alpha + beta * data["x"], sigma, observed=data["y"])
    return model


def diamonds(data: Data) -> pm.Model:
    """Build Y ~ N(Intercept + X b, sigma), b ~ N(0, 1), with centred columns of X and two Student-t priors."""
    x = data["X"][:, 1:]  # the first column is 1
    x = x - x.mean(axis=0)
    with pm.Model() as model:
        b = pm.Normal("b", 0, 1, shape=x.shape[1])
        intercept = pm.StudentT("Intercept", nu=3, mu=8, sigma=10)
        sigma = pm.HalfStudentT("sigma", nu=3, sigma=10)
        pm.Normal("y", intercept + pt.dot(x, b), sigma, observed=data["Y"])
    return model


def nes_design(data: Data) -> np.ndarray:
    age = data["age_discrete"]
    return columns(
        1.0,
        data["real_ideo"],
        data["race_adj"],
        *(age == k for k in (2, 3, 4)),
        data["educ1"],
        data["gender"],
        data["income"],
    )


def mesquite_design(data: Data) -> np.ndarray:
    names = ("diam1", "diam2", "canopy_height", "total_height", "density", "group")
    return columns(1.0, *(data[name] for name in names))


def log_mesquite_design(data: Data) -> np.ndarray:
    """Logarithms of the volume, area and shape of the canopy and of the height, and the group."""
    area = data["diam1"] * data["diam2"]
    return columns(
        1.0,
        np.log(area * data["canopy_height"]),
        np.log(area),
        np.log(data["diam1"] / data["diam2"]),
        np.log(data["total_height"]),
        data["group"],
    )


def wells_design(data: Data) -> np.ndarray:
    distance = (data["dist"] - data["dist"].mean()) / 100
    arsenic = data["arsenic"] - data["arsenic"].mean()
    product = distance * arsenic
    return columns(1.0, distance, arsenic, product, data["assoc"], data["educ"] / 4)


earn_height = linear(lambda d: columns(1.0, d["height"]), lambda d: d["earn"])
log10earn_height = linear(lambda d: columns(1.0, d["height"]), lambda d: np.log10(d["earn"]))
logearn_interaction = linear(
    lambda d: columns(1.0, d["height"], d["male"], d["height"] * d["male"]),
    lambda d: np.log(d["earn"]),
)
kidscore_momhsiq = linear(
    lambda d: columns(1.0, d["mom_hs"], d["mom_iq"]), lambda d: d["kid_score"], half_cauchy_sigma
)
kidscore_interaction = linear(
    lambda d: columns(1.0, d["mom_hs"], d["mom_iq"], d["mom_hs"] * d["mom_iq"]),
    lambda d: d["kid_score"],
    half_cauchy_sigma,
)
mesquite = linear(mesquite_design, lambda d: d["weight"])
logmesquite_logvash = linear(log_mesquite_design, lambda d: np.log(d["weight"]))
nes = linear(nes_design, lambda d: d["partyid7"])
blr = linear(lambda d: d["X"], lambda d: d["y"], lambda: pm.HalfNormal("sigma", 10), 10)
wells_dist = logistic(lambda d: columns(1.0, d["dist"]))
wells_daae_c = logistic(wells_design)
