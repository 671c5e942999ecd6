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

"""What an error of 1 means for the parameters of a guide."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np

from pymc.variational.guides.full_rank import FullRankGuide
from pymc.variational.guides.mean_field import MeanFieldGuide
from pymc.variational.trajectory import mean_field_scales

__all__ = ["scales_of_guide"]


@singledispatch
def scales_of_guide(guide: Any, values: Mapping[Any, np.ndarray]) -> Mapping[Any, np.ndarray]:
    """Return the scales of the parameters of a guide, given their values, in their shapes.

    Register a function for the class of a new guide, where its parameters have one.
    """
    return {}


@scales_of_guide.register(MeanFieldGuide)
def _of_mean_field(guide: Any, values: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
    return dict(zip((guide.loc, guide.rho), mean_field_scales(values[guide.rho])))


@scales_of_guide.register(FullRankGuide)
def _of_full_rank(guide: Any, values: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
    entries = values[guide.tril]
    rows, _ = np.tril_indices(len(values[guide.loc]))
    sd = np.sqrt(np.bincount(rows, weights=entries**2))
    return {guide.loc: sd, guide.tril: sd[rows]}
