# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The methods that are compared, and which Python runs each."""

from dataclasses import dataclass

from _common import PATCH, RELEASE

OTHERS = "others"  # a Python with NumPyro and pymc-extras, and the PyMC that the latter needs
AUTO = "auto"


@dataclass(frozen=True)
class Method:
    """A way to fit a model.

    Parameters
    ----------
    label : str
        In tables and the picture.
    python : str
        Which Python runs it: :data:`PATCH`, :data:`RELEASE` or :data:`OTHERS`.
    module : str
        Has it in its table ``FITS``.
    """

    label: str
    python: str = PATCH
    module: str = "pymc_fits"


METHODS = {
    AUTO: Method('pm.fit(method="auto")'),
    "default": Method("pm.fit(), the patch"),
    "release": Method("pm.fit(), PyMC 6.4", RELEASE),
    "tuned": Method('pm.fit(obj_optimizer="tuned")'),
    "adam": Method("Adam 0.01, 20,000 steps"),
    "mean_field": Method("mean-field, falling rate"),
    "full_rank": Method("full-rank, falling rate"),
    "low_rank": Method("low-rank, falling rate"),
    "numpyro_normal": Method("NumPyro AutoNormal, Adam 0.01", OTHERS, "numpyro_fits"),
    "numpyro_full_rank": Method(
        "NumPyro AutoMultivariateNormal, Adam 0.01", OTHERS, "numpyro_fits"
    ),
    "numpyro_laplace": Method(
        "NumPyro AutoLaplaceApproximation, Adam 0.01", OTHERS, "numpyro_fits"
    ),
    "pathfinder": Method("pymc-extras Pathfinder", OTHERS, "extras_fits"),
    "laplace": Method("pymc-extras Laplace", OTHERS, "extras_fits"),
    "dadvi": Method("pymc-extras DADVI", OTHERS, "extras_fits"),
    "nuts": Method("pm.sample(), NUTS"),
}

EXPLAINED = """\
- `pm.fit()` is mean-field ADVI with the default optimizer, 10,000 steps; so is `"tuned"`, with that one.
- A falling rate is Adam's, from 0.1 to 0.0001 in 60,000 steps; in 30,000 with more than 15 variables or 2,000 rows.
- NumPyro's guides fit the log-density of the PyMC model, as a function of JAX, on its unconstrained space, from the
  starting point that PyMC has: Adam 0.01, 20,000 steps.
- Pathfinder, Laplace and DADVI have their defaults, and 4,000 draws.
- NUTS has 1,000 steps of tuning and 1,000 draws in 2 chains, one after the other where there are two cores.
- Gradients and seconds are medians over the posteriors that were run, with seed 1. pymc-extras compiles within its calls,
  and Pathfinder does not say how many gradients it took."""
