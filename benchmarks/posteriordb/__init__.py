#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""25 posteriors of posteriordb: models, reference moments, and the methods that fit them.

posteriordb (Magnusson et al. 2025, "posteriordb: testing, benchmarking and developing Bayesian inference
algorithms") has the data, the models as Stan programs and reference draws. The models of this package are PyMC's,
written from their densities. ``reference.json`` has the means and sds of 10,000 reference draws, and for the two
models of wells_data those of importance sampling with 35,000 effective draws. The data are read from a checkout;
those of eight_schools (Rubin 1981) lie beside this file.
"""
