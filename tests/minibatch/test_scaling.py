# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The ratio of rows is an Op of its own in the graph of a model, and a division when compiled."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import get_mode
from pytensor.graph.replace import vectorize_graph
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import ancestors
from pytensor.tensor.blockwise import Blockwise

from pymc.minibatch.scaling import RowRatio, ratios, scale_factor


def is_in(graph):
    return any(isinstance(v.owner.op, RowRatio) for v in ancestors([graph]) if v.owner)


def test_ratio_is_gone_by_specialization_alone():
    total, batch = pt.lscalars("total", "batch")
    rewritten = rewrite_graph(RowRatio()(total, batch), include=("specialize",))
    assert rewritten.owner is not None and not is_in(rewritten)
    assert rewritten.eval({total: 7, batch: 2}, mode="FAST_COMPILE") == 3.5


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
def test_ratio_stays_until_it_is_compiled(mode):
    ratio = rewrite_graph(RowRatio()(7, 2) * 2, include=("canonicalize", "stabilize", "fold"))
    assert is_in(ratio)
    compiled = pytensor.function([], ratio, mode=get_mode(mode).clone(linker="py"))
    assert not is_in(compiled.maker.fgraph.outputs[0]) and compiled() == 7


def test_ratio_of_each_particle():
    total, batch = pt.lscalars("total", "batch")
    ratio = vectorize_graph(RowRatio()(total, batch) * 2, {batch: pt.constant([2, 4])})
    assert is_in(ratio) and not any(
        isinstance(v.owner.op, Blockwise) for v in ancestors([ratio]) if v.owner
    )
    np.testing.assert_array_equal(ratio.eval({total: 8}, mode="FAST_COMPILE"), [8, 4])


def test_factor_of_two_axes():
    factor = scale_factor([10, None, 6], [5, 3, 4])
    assert len(ratios(factor * pt.ones(2))) == 2
    np.testing.assert_allclose(factor.eval(mode="FAST_COMPILE"), 3)
    assert scale_factor([None], [5]).eval(mode="FAST_COMPILE") == 1
