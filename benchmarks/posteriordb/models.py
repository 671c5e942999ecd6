# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The models by the names of their posteriors."""

from pathlib import Path

import pymc as pm

from posteriordb import latent, regressions, time_series
from posteriordb.data import data_name, read_data
from posteriordb.regressions import Build

MODELS: dict[str, Build] = {
    "earnings-earn_height": regressions.earn_height,
    "earnings-log10earn_height": regressions.log10earn_height,
    "earnings-logearn_interaction": regressions.logearn_interaction,
    "kidiq-kidscore_momhsiq": regressions.kidscore_momhsiq,
    "kidiq-kidscore_interaction": regressions.kidscore_interaction,
    "mesquite-mesquite": regressions.mesquite,
    "mesquite-logmesquite_logvash": regressions.logmesquite_logvash,
    "nes1972-nes": regressions.nes,
    "nes2000-nes": regressions.nes,
    "sblrc-blr": regressions.blr,
    "sblri-blr": regressions.blr,
    "kilpisjarvi_mod-kilpisjarvi": regressions.kilpisjarvi,
    "diamonds-diamonds": regressions.diamonds,
    "wells_data-wells_dist": regressions.wells_dist,
    "wells_data-wells_daae_c_model": regressions.wells_daae_c,
    "arK-arK": time_series.autoregression,
    "arma-arma11": time_series.arma11,
    "garch-garch11": time_series.garch11,
    "hmm_example-hmm_example": time_series.hidden_markov,
    "hudson_lynx_hare-lotka_volterra": time_series.lotka_volterra,
    "eight_schools-eight_schools_noncentered": latent.eight_schools_noncentered,
    "eight_schools-eight_schools_centered": latent.eight_schools_centered,
    "gp_pois_regr-gp_regr": latent.gp_regression,
    "gp_pois_regr-gp_pois_regr": latent.gp_poisson,
    "low_dim_gauss_mix-low_dim_gauss_mix": latent.gauss_mixture,
}


def build_model(posterior: str, folder: Path) -> pm.Model:
    """Build the model of a posterior, with the data that lie in a folder."""
    return MODELS[posterior](read_data(folder, data_name(posterior)))
