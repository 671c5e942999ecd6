# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Sampled nodes are drawn anew at each evaluation."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.variational.draws import draw_anew
from tests.variational.engine import PYTHON, normal_model, shared


@pytest.fixture(scope="module")
def approx():
    return pm.MeanField(model=normal_model(), random_seed=1)


def rng_of(name):
    return pytensor.shared(np.random.default_rng(1), name)


def test_eval_moves_the_generators_on():
    node = pt.random.normal(rng=rng_of("rng"))
    once = node + 0
    assert once.eval(mode=PYTHON) == once.eval(mode=PYTHON)
    draw_anew([node], given=[])
    assert len({float(node.eval(mode=PYTHON)) for _ in range(5)}) == 5


def test_generators_of_what_is_given_stay():
    own, new = rng_of("own"), rng_of("new")
    given = pt.random.normal(rng=own)
    node = given + pt.random.normal(rng=new)
    draw_anew([node], [given])
    node.eval(mode=PYTHON)
    assert own.default_update is None
    assert new.default_update is not None
    fresh = np.random.default_rng(1).bit_generator.state
    assert own.get_value().bit_generator.state == fresh
    assert new.get_value().bit_generator.state != fresh


def test_nodes_without_noise():
    x = shared(1.0)
    draw_anew([x + 1], given=[x])
    assert (x + 1).eval(mode=PYTHON) == 2


class TestSampleNode:
    @pytest.mark.parametrize("size", [None, 3])
    def test_each_evaluation_is_another_draw(self, approx, size):
        node = approx.sample_node(approx.model["mu"], size=size)
        draws = np.array([node.eval(mode=PYTHON) for _ in range(4)])
        assert draws.shape == ((4,) if size is None else (4, size))
        assert len(np.unique(draws)) == draws.size

    def test_a_symbolic_size(self, approx):
        size = pt.iscalar("size")
        node = approx.sample_node(approx.model["mu"], size=size)
        draws = [node.eval({size: np.int32(n)}, mode=PYTHON) for n in (2, 5, 5)]
        assert [draw.shape for draw in draws] == [(2,), (5,), (5,)]
        assert len(np.unique(np.concatenate(draws))) == 12

    def test_nodes_of_one_call_share_a_draw(self, approx):
        mu = approx.model["mu"]
        both = approx.sample_node([mu, 2 * mu])
        x, y = pytensor.function([], both, mode=PYTHON)()
        assert y == 2 * x

    def test_deterministic(self, approx):
        node = approx.sample_node(approx.model["mu"], deterministic=True)
        mean = approx.mean.eval(mode=PYTHON)
        assert node.eval(mode=PYTHON) == node.eval(mode=PYTHON) == mean[0]

    def test_the_models_generators_stay(self, approx):
        before = [rv.owner.inputs[0].get_value() for rv in approx.model.free_RVs]
        states = [rng.bit_generator.state for rng in before]
        approx.sample_node(approx.model["mu"]).eval(mode=PYTHON)
        after = [rv.owner.inputs[0].get_value() for rv in approx.model.free_RVs]
        assert [rng.bit_generator.state for rng in after] == states
