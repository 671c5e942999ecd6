# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules against their closed forms."""

import doctest
import math
import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given
from hypothesis import strategies as st
from pytensor.compile.mode import Mode

from pymc.variational import schedules
from pymc.variational.schedules import (
    constant,
    cosine_decay,
    exponential_decay,
    join,
    linear_warmup,
    piecewise_constant,
    rate_at,
)

PYTHON = Mode(linker="py", optimizer=None)

rates = st.floats(1e-6, 10)
counts = st.integers(1, 10**6)
fractions = st.floats(0, 1)


def inverse_time(step):
    return 1 / (1 + step)


class TestClosedForms:
    steps = np.array([0, 1, 7, 99, 100, 101, 250, 10**6])

    def test_constant(self):
        np.testing.assert_array_equal(constant(0.3)(self.steps), np.full(8, 0.3))

    @pytest.mark.parametrize("staircase", [False, True])
    def test_exponential_decay(self, staircase):
        exponent = self.steps // 100 if staircase else self.steps / 100
        np.testing.assert_allclose(
            exponential_decay(0.3, 100, 0.8, staircase)(self.steps),
            0.3 * 0.8**exponent,
            rtol=1e-12,
        )

    @pytest.mark.parametrize("final_fraction", [0, 0.1, 1])
    def test_cosine_decay(self, final_fraction):
        falling = (1 + np.cos(np.pi * np.minimum(self.steps / 100, 1))) / 2
        np.testing.assert_allclose(
            cosine_decay(0.3, 100, final_fraction)(self.steps),
            0.3 * (final_fraction + (1 - final_fraction) * falling),
            rtol=1e-12,
        )

    @pytest.mark.parametrize("initial_fraction", [0, 0.25])
    def test_linear_warmup(self, initial_fraction):
        actual = linear_warmup(exponential_decay(0.3, 50, 0.8), 100, initial_fraction)(self.steps)
        growing = 0.3 * (initial_fraction + (1 - initial_fraction) * self.steps / 100)
        falling = 0.3 * 0.8 ** ((self.steps - 100) / 50)
        np.testing.assert_allclose(actual, np.where(self.steps < 100, growing, falling), rtol=1e-12)

    def test_linear_warmup_to_a_number(self):
        np.testing.assert_allclose(
            linear_warmup(0.4, 4)(np.arange(6)), [0, 0.1, 0.2, 0.3, 0.4, 0.4]
        )

    def test_piecewise_constant(self):
        actual = piecewise_constant([0.3, 0.2, 0.1], [7, 100])(self.steps)
        np.testing.assert_array_equal(actual, [0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1])

    def test_join_starts_each_schedule_anew(self):
        actual = join([0.5, inverse_time, exponential_decay(1, 1, 0.5)], [2, 4])(np.arange(7))
        np.testing.assert_allclose(actual, [0.5, 0.5, 1, 0.5, 1, 0.5, 0.25], rtol=1e-12)


class TestRules:
    @given(rates, counts, fractions, st.integers(0, 2 * 10**6))
    def test_decay_never_rises_and_stays_in_its_range(self, rate, n_steps, fraction, step):
        for schedule, lowest in [
            (cosine_decay(rate, n_steps, fraction), rate * fraction),
            (exponential_decay(rate, n_steps, max(fraction, 0.01)), 0),
        ]:
            now, then = schedule([step, step + 1])
            assert lowest * (1 - 1e-12) <= then <= now * (1 + 1e-12) <= rate * (1 + 1e-9)

    @given(rates, counts, fractions)
    def test_warmup_goes_on_without_a_jump(self, rate, n_steps, fraction):
        schedule = linear_warmup(cosine_decay(rate, 1000), n_steps, fraction)
        first, before, reached = schedule([0, n_steps - 1, n_steps])
        assert reached == rate
        assert first == pytest.approx(fraction * rate, abs=1e-12 * rate)
        assert reached - before <= rate / n_steps * (1 + 1e-9)

    @given(st.lists(st.tuples(rates, counts), min_size=1, max_size=4), st.integers(0, 10**6))
    def test_pieces_are_found_by_bisection(self, pieces, step):
        values = [rate for rate, _ in pieces]
        boundaries = np.cumsum([n for _, n in pieces[1:]]).tolist()
        expected = values[np.searchsorted(boundaries, step, side="right")]
        assert piecewise_constant(values, boundaries)(step) == expected

    @given(rates, counts, fractions)
    def test_values(self, rate, n_steps, fraction):
        """Equal, pickled and shown by their arguments."""
        schedule = linear_warmup(cosine_decay(rate, n_steps, fraction), n_steps)
        assert schedule == linear_warmup(cosine_decay(rate, n_steps, fraction), n_steps)
        assert schedule != linear_warmup(cosine_decay(rate, n_steps + 1, fraction), n_steps)
        assert pickle.loads(pickle.dumps(schedule)) == schedule
        assert eval(repr(schedule), vars(schedules)) == schedule


class TestLongRuns:
    """Steps are told apart at 10^9 and more, where float32 has lost them."""

    schedules_at_their_end = (
        cosine_decay(0.1, 10**9),
        linear_warmup(0.1, 10**9),
        join([0.1, inverse_time], [10**9]),
    )

    @pytest.mark.parametrize("floatX", ["float32", "float64"])
    def test_float_type(self, floatX):
        with pytensor.config.change_flags(floatX=floatX):
            step = pt.scalar("step", dtype="int64")
            for schedule in (*self.schedules_at_their_end, exponential_decay(0.1, 10, 0.9)):
                assert rate_at(schedule, step).dtype == floatX
            last = [10**9 - 1, 10**9, 10**9 + 1, 3 * 10**9]
            np.testing.assert_array_equal(
                self.schedules_at_their_end[2](last), np.array([0.1, 1, 0.5, 1 / (2e9 + 1)], floatX)
            )

    def test_float32_keeps_its_digits(self):
        steps = 10**9 - np.array([10**8, 10**4, 1, 0])
        falling = np.sin(np.pi / 2 * (10**9 - steps) / 1e9) ** 2
        with pytensor.config.change_flags(floatX="float32"):
            actual = cosine_decay(0.1, 10**9)(steps)
        # the argument of the sine, the sine, its square and the product: four roundings of 2^-24
        np.testing.assert_allclose(actual, 0.1 * falling, rtol=8 * 2**-24)

    def test_decay_ends_at_zero(self):
        assert exponential_decay(0.1, 1, 0.5)(10**18) == 0
        assert cosine_decay(0.1, 100)(10**18) == 0


class TestArguments:
    @pytest.mark.parametrize("bad", [0, -0.1, math.nan, math.inf, True, "0.1", None, [0.1]])
    @pytest.mark.parametrize(
        "make",
        [
            constant,
            lambda rate: exponential_decay(rate, 10, 0.5),
            lambda rate: cosine_decay(rate, 10),
            lambda rate: linear_warmup(rate, 10),
            lambda rate: piecewise_constant([0.1, rate], [10]),
            lambda rate: join([rate, 0.1], [10]),
        ],
    )
    def test_rate(self, make, bad):
        with pytest.raises(
            (TypeError, ValueError), match=r"(learning_rates?|schedules)=.* of \w+ must be "
        ):
            make(bad)

    @pytest.mark.parametrize("bad", [0, -1, 2.0, True, "10", 2**63, math.nan])
    @pytest.mark.parametrize(
        "make",
        [
            lambda n: exponential_decay(0.1, n, 0.5),
            lambda n: cosine_decay(0.1, n),
            lambda n: linear_warmup(0.1, n),
            lambda n: join([0.1, 0.2], [n]),
        ],
    )
    def test_count(self, make, bad):
        with pytest.raises(
            (TypeError, ValueError), match=r"_steps=.* must be |boundaries=.* must be "
        ):
            make(bad)

    @pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, True, "1"])
    @pytest.mark.parametrize(
        "make",
        [
            lambda x: exponential_decay(0.1, 10, x),
            lambda x: cosine_decay(0.1, 10, x),
            lambda x: linear_warmup(0.1, 10, x),
        ],
    )
    def test_fraction(self, make, bad):
        with pytest.raises(
            (TypeError, ValueError), match=r"(decay_rate|_fraction)=.* of \w+ must be "
        ):
            make(bad)

    def test_decay_rate_of_zero(self):
        with pytest.raises(
            ValueError, match="decay_rate=0 of exponential_decay must be above 0 and at most 1"
        ):
            exponential_decay(0.1, 10, 0)

    def test_staircase(self):
        with pytest.raises(TypeError, match=r"staircase=2 of .* must be True or False"):
            exponential_decay(0.1, 10, 0.5, 2)

    @pytest.mark.parametrize("boundaries", [[], [10], [10, 10], [20, 10], [10, 20, 30]])
    def test_boundaries(self, boundaries):
        with pytest.raises(ValueError, match="3 of them need 2 boundaries that rise, got"):
            piecewise_constant([0.3, 0.2, 0.1], boundaries)

    def test_lists(self):
        with pytest.raises(
            TypeError, match=r"learning_rates=0.1 of piecewise_constant must be a list"
        ):
            piecewise_constant(0.1, [])
        with pytest.raises(TypeError, match="boundaries=10 of join must be a list"):
            join([0.1, 0.2], 10)

    def test_numpy_numbers_become_pythons(self):
        schedule = join([np.float64(0.1), np.float32(0.5)], np.array([3]))
        assert schedule == join([0.1, 0.5], [3])

    @pytest.mark.parametrize("step", [-1, 0.5, [0.0], True, "0"])
    def test_step(self, step):
        with pytest.raises(ValueError, match="function of the step, an integer of at least 0"):
            constant(0.1)(step)


class TestRateAt:
    step = pt.scalar("step", dtype="int64")

    @pytest.mark.parametrize("schedule", [lambda step: 0.25, lambda step: 1 / (step + 1), 0.25])
    def test_value(self, schedule):
        rate = rate_at(schedule, self.step)
        assert rate.type == pt.scalar().type
        assert rate.eval({self.step: 3}, mode=PYTHON, on_unused_input="ignore") == 0.25

    @pytest.mark.parametrize(
        "schedule",
        [
            lambda step: 0.1 if step < 10 else 0.01,
            lambda step: max(0.1 - step / 100, 0.01),
            lambda step: math.exp(-step),
            lambda step: np.linspace(0.1, 0.01)[step],
            lambda step: None,
            lambda: 0.1,
        ],
    )
    def test_functions_of_numbers(self, schedule):
        with pytest.raises((TypeError, IndexError, NotImplementedError)) as info:
            rate_at(schedule, self.step)
        assert "called with a symbolic step, once for all steps" in info.value.__notes__[0]

    def test_vector(self):
        with pytest.raises(ValueError, match="share one learning rate: return a scalar"):
            rate_at(lambda step: step * np.array([0.1, 0.2]), self.step)

    @pytest.mark.parametrize("schedule", [lambda step: step > 3, lambda step: step * 1j])
    def test_not_real(self, schedule):
        with pytest.raises(TypeError, match="a learning rate is a real number: return a float"):
            rate_at(schedule, self.step)


def test_examples():
    failed, attempted = doctest.testmod(schedules)
    assert attempted and not failed
