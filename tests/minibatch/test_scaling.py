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
"""The ratio of rows is an Op of its own in the graph of a model, and a division when compiled."""

import numpy as np
import pytensor.tensor as pt
import pytest

from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import ancestors

from pymc.minibatch.scaling import RowRatio, ratios, scale_factor


@pytest.mark.parametrize("stage", ["canonicalize", "specialize"])
def test_ratio_is_gone_by_each_stage_alone(stage):
    total, batch = pt.lscalars("total", "batch")
    rewritten = rewrite_graph(RowRatio()(total, batch), include=(stage,))
    ops = [var.owner.op for var in ancestors([rewritten]) if var.owner is not None]
    assert ops and not any(isinstance(op, RowRatio) for op in ops)
    assert rewritten.eval({total: 7, batch: 2}, mode="FAST_COMPILE") == 3.5


def test_factor_of_two_axes():
    factor = scale_factor([10, None, 6], [5, 3, 4])
    assert len(ratios(factor * pt.ones(2))) == 2
    np.testing.assert_allclose(factor.eval(mode="FAST_COMPILE"), 3)
    assert scale_factor([None], [5]).eval(mode="FAST_COMPILE") == 1
