# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Guides beyond mean-field come nearer to posteriors that are known; the table is in docs/how_to/own_guide.md."""

from __future__ import annotations

import numpy as np
import pytest

from tests.variational.guides.known_answers import PROBLEMS, fitted

#: By problem and guide: the largest gap in nats, and how far the sd may be off. Draws alone make an error of
#: 4 sd / sqrt(2 * 4000), 0.045 times the sd.
NEAR = {
    ("correlated normals", "pm.NormalizingFlow"): (0.05, 0.06),
    ("funnel", "pm.NormalizingFlow"): (0.1, 0.4),
    ("20 rows", "pm.Structured"): (0.05, 0.04),
}
#: The gap of the best mean-field guide, by hand or by its fit.
MEAN_FIELD = {"correlated normals": -0.5 * np.log(0.19), "funnel": 1.12, "20 rows": 0.26}


@pytest.mark.parametrize(("title", "guide"), NEAR)
def test_a_guide_comes_near(title: str, guide: str) -> None:
    problem, (gap, off) = PROBLEMS[title], NEAR[title, guide]
    found = fitted(problem, problem.guides[guide])
    assert -4 * found.error - 1e-6 < found.gap < gap < MEAN_FIELD[title]
    np.testing.assert_allclose(found.sd, problem.sd, atol=off)
