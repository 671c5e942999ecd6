# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""25 posteriors of posteriordb: models, reference moments, and the methods that fit them.

posteriordb (Magnusson et al. 2025, "posteriordb: testing, benchmarking and developing Bayesian inference
algorithms") has the data, the models as Stan programs and reference draws. The models of this package are PyMC's,
written from their densities. ``reference.json`` has the means and sds of 10,000 reference draws, and for the two
models of wells_data those of importance sampling with 35,000 effective draws. The data are read from a checkout;
those of eight_schools (Rubin 1981) lie beside this file.
"""
