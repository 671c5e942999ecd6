# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Links of optimizers: what each adds to the parameters, alone, in a chain, and for rows."""

import re

from dataclasses import dataclass

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.index import minibatch_index
from pymc.variational import schedules
from pymc.variational.fit_options import settings_of
from pymc.variational.local_params.row_optimizer import RowGradient, all_updates, guarded
from pymc.variational.local_params.table import ParamTable
from pymc.variational.optimizer_base import step_counter
from pymc.variational.optimizers import (
    Optimizer,
    adamw,
    add_decayed_weights,
    as_optimizer,
    chain,
    clip,
    clip_by_global_norm,
    scale,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_schedule,
)
from tests.variational.engine import (
    BACKENDS,
    JAX_COPIES,
    OPTIMIZERS,
    PYTHON,
    bare_step,
    params_of,
    quiet,
    shared,
)

GRADIENTS = [np.array([[3.0, -4.0], [0.1, 12.0]]), np.array([0.5, -2.0])]
STARTS = [np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([0.3, -0.7])]


def path(optimizer, n=4, gradients=GRADIENTS):
    """Return the parameters after each step of gradients that grow with the parameters."""
    params = [shared(start, name) for start, name in zip(STARTS, ("matrix", "vector"))]
    grads = [pt.as_tensor(g) * (1 + 0.1 * p) for g, p in zip(gradients, params)]
    step = pytensor.function([], [], updates=dict(optimizer(grads, params)), mode=PYTHON)
    found = []
    for _ in range(n):
        step()
        found.append([p.get_value() for p in params])
    return found


def expected(change, n=4):
    """Return the same by a function of (gradients, parameters, step)."""
    params, found = [start.copy() for start in STARTS], []
    for k in range(n):
        grads = [g * (1 + 0.1 * p) for g, p in zip(GRADIENTS, params)]
        params = [p + c for p, c in zip(params, change(grads, params, k))]
        found.append(params)
    return found


def assert_path(optimizer, change):
    for got, want in zip(path(optimizer), expected(change), strict=True):
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12)


def descend(grads, rate=0.1):
    return [-rate * g for g in grads]


class TestLinks:
    """Each as its formula, before plain gradient descent."""

    def test_clip(self):
        assert_path(
            chain(clip(2.0), pm.sgd(learning_rate=0.1)),
            lambda grads, params, k: descend([np.clip(g, -2, 2) for g in grads]),
        )

    @pytest.mark.parametrize("max_norm", [1.0, 100.0])
    def test_clip_by_global_norm(self, max_norm):
        """The norm of all parameters together, and no change at all below the bound."""

        def change(grads, params, k):
            norm = np.sqrt(sum((g**2).sum() for g in grads))
            return descend([g * min(1.0, max_norm / norm) for g in grads])

        assert_path(chain(clip_by_global_norm(max_norm), pm.sgd(learning_rate=0.1)), change)

    def test_no_gradient_has_no_norm(self):
        [after] = path(
            chain(clip_by_global_norm(1.0), scale(-1.0)), 1, [np.zeros((2, 2)), np.zeros(2)]
        )
        np.testing.assert_array_equal(after[0], STARTS[0])

    @pytest.mark.parametrize("mask", [None, ["vector"]])
    def test_add_decayed_weights(self, mask):
        assert_path(
            chain(add_decayed_weights(0.3, mask), pm.sgd(learning_rate=0.1)),
            lambda grads, params, k: descend(
                [
                    g + 0.3 * p * (mask is None or i == 1)
                    for i, (g, p) in enumerate(zip(grads, params))
                ]
            ),
        )

    def test_scale(self):
        assert_path(chain(scale(-0.1)), lambda grads, params, k: descend(grads))

    def test_scale_by_schedule(self):
        """It is multiplied with what a whole optimizer does."""
        warm = schedules.linear_warmup(1.0, 3)
        assert_path(
            chain(pm.sgd(learning_rate=0.1), scale_by_schedule(warm)),
            lambda grads, params, k: descend(grads, 0.1 * warm(k)),
        )

    @pytest.mark.parametrize(
        "rate", [0.2, schedules.exponential_decay(0.2, 2, 0.5), lambda step: 0.2 / (1 + step)]
    )
    def test_scale_by_learning_rate(self, rate):
        at = schedules.join([rate, 1.0], [100]) if callable(rate) else lambda k: rate
        assert_path(
            chain(scale_by_learning_rate(rate)),
            lambda grads, params, k: descend(grads, at(k)),
        )

    def test_adamw(self):
        means, squares = [0.0, 0.0], [0.0, 0.0]

        def change(grads, params, k):
            changes = []
            for i, (g, p) in enumerate(zip(grads, params)):
                means[i] = 0.8 * means[i] + 0.2 * g
                squares[i] = 0.9 * squares[i] + 0.1 * g**2
                mean, square = means[i] / (1 - 0.8 ** (k + 1)), squares[i] / (1 - 0.9 ** (k + 1))
                changes.append(-0.1 * (mean / (np.sqrt(square) + 1e-8) + 0.3 * p))
            return changes

        assert_path(adamw(0.1, beta1=0.8, beta2=0.9, weight_decay=0.3), change)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda function: function.__name__)
class TestReleased:
    """PyMC's own optimizers as links."""

    def test_alone_in_a_chain(self, optimizer):
        for got, want in zip(path(chain(optimizer)), path(optimizer)):
            np.testing.assert_array_equal(got[0], want[0])

    def test_its_steps_go_on(self, optimizer):
        [once] = path(optimizer, 1)
        [halved] = path(chain(optimizer, scale(0.5)), 1)
        for x, y, start in zip(halved, once, STARTS):
            np.testing.assert_allclose(x - start, 0.5 * (y - start), rtol=1e-9)

    def test_explicit_state(self, optimizer):
        """The same from `init` and `update`, as functions of values."""
        link = chain(clip(2.0), optimizer(learning_rate=0.05))
        params = [shared(start) for start in STARTS]
        state = link.init(params)
        names = {name: [pt.as_tensor(v).type() for v in state[name]] for name in state}
        inputs = [var for variables in names.values() for var in variables]
        grads = [pt.as_tensor(g) * (1 + 0.1 * p) for g, p in zip(GRADIENTS, params)]
        changes, after = link.update(grads, names, params, step_counter())
        outputs = [*changes, *(var for name in names for var in after[name])]
        compiled = pytensor.function(inputs, outputs, mode=PYTHON, on_unused_input="ignore")
        values = [v for variables in state.values() for v in variables]
        for want in path(link):
            (*changes,) = compiled(*values)
            values = changes[2:]
            for param, change, expected in zip(params, changes, want):
                param.set_value(param.get_value() + change)
                np.testing.assert_allclose(param.get_value(), expected, rtol=1e-10)


@dataclass(frozen=True)
class Lion(Optimizer):
    """A user's own, with a state."""

    beta: float = 0.9

    def init(self, params):
        return {"mean": [np.zeros_like(p.get_value()) for p in params]}

    def update(self, grads, state, params, step):
        mean = [self.beta * m + (1 - self.beta) * g for m, g in zip(state["mean"], grads)]
        return [pt.sign(m) for m in mean], {"mean": mean}


class TestOwn:
    def test_of_a_fit(self):
        """The first step of each parameter is as long as the rate."""
        lion = chain(Lion(), scale_by_learning_rate(0.01))
        with pm.Model():
            pm.Normal("mu", 3.0, 0.1)
            fits = [pm.fit(n, obj_optimizer=lion, random_seed=1, **quiet()) for n in (0, 1)]
        for before, after in zip(*map(params_of, fits)):
            np.testing.assert_allclose(abs(after - before), 0.01)

    def test_a_chain_of_chains(self):
        inner = chain(clip(2.0), Lion())
        for got, want in zip(
            path(chain(inner, scale(-0.1))), path(chain(clip(2.0), Lion(), scale(-0.1)))
        ):
            np.testing.assert_array_equal(got[1], want[1])

    def test_another_state(self):
        class Forgetful(Lion):
            def update(self, grads, state, params, step):
                return grads, {}

        with pytest.raises(TypeError, match=r"2 changes, one for each gradient.*\{'mean': 2\}"):
            path(Forgetful())

    def test_too_few_changes(self):
        class First(Lion):
            def update(self, grads, state, params, step):
                return grads[:1], state

        with pytest.raises(TypeError, match="It returned 1 changes"):
            path(First())

    def test_no_chain_of_what_is_none(self):
        with pytest.raises(
            TypeError, match=r"obj_optimizer='adam' is no optimizer: write pm\.adam"
        ):
            chain("adam")
        with pytest.raises(TypeError, match=r"chain\(\) has no optimizer"):
            chain()

    def test_no_optimizer(self):
        with pm.Model():
            pm.Normal("mu")
            with pytest.raises(TypeError, match=r"obj_optimizer=0\.1 is no optimizer"):
                pm.fit(1, obj_optimizer=0.1, **quiet())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: clip(0.0), ValueError, "max_delta=0.0 of Clip must be above 0"),
        (lambda: clip("1"), TypeError, "max_delta='1' of Clip must be a number; got a str"),
        (lambda: clip_by_global_norm(np.inf), ValueError, "max_norm=inf .* must be finite"),
        (
            lambda: add_decayed_weights(-1.0),
            ValueError,
            "weight_decay=-1.0 of .* must be at least 0",
        ),
        (lambda: add_decayed_weights(0.1, "w"), TypeError, r"mask='w' of .*: write \['w'\]"),
        (lambda: scale_by_schedule(0.1), TypeError, r"got 0.1: write scale\(...\) for a number"),
        (
            lambda: scale_by_adam(beta2=1.0),
            ValueError,
            "beta2=1.0 of ScaleByAdam must be .* below 1",
        ),
        (lambda: scale_by_learning_rate(None), TypeError, "learning_rate .* got None"),
    ],
)
def test_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_mask_of_no_parameter():
    with pytest.raises(
        ValueError, match=r"has 'weights', and the parameters .* 'matrix', 'vector'"
    ):
        path(adamw(mask=["weights"]))


def test_in_reports():
    optimizer = chain(clip(1.0), pm.adam(learning_rate=0.1))
    text = settings_of({"obj_optimizer": optimizer})["obj_optimizer"]
    assert re.match(r"chain\(Clip\(max_delta=1.0\), adam\(learning_rate=0.1, .*\)\)$", text)


class TestRows:
    """Of a plate: each row as if it were alone, but for a norm of all."""

    targets = np.random.default_rng(3).normal(size=(7, 2))
    start = np.random.default_rng(4).normal(size=(7, 2))

    def run(self, optimizer, n=12, sampling="with_replacement"):
        """Take steps, and return the batches, the rows and the dense parameter after each."""
        rows, top = Rows(minibatch_index(7, 5, sampling)), shared([0.5, -0.5], "top")
        table = ParamTable.of((rows,), self.start, "z")
        lines, params = table.gather()
        slots = pt.constant(np.arange(1.0, 6.0))[:, None]
        loss = (slots * (params - pt.constant(self.targets)[table.index]) ** 2).sum() + (
            3 * top**2
        ).sum()
        of_rows, of_top = pt.grad(loss, [params, top])
        gradients = [RowGradient(table, (lines, params), of_rows)]
        updates, updated = all_updates(optimizer, [top], [of_top], gradients)
        loss, updates = guarded(loss, updates, updated)
        compiled = pm.compile([], table.index, updates=updates, mode=PYTHON, random_seed=3)
        return [(compiled(), table.parameters().copy(), top.get_value()) for _ in range(n)]

    def check(self, optimizer, change_of_row, change_of_top, max_norm=np.inf, **kwargs):
        params, top = self.start.copy(), np.array([0.5, -0.5])
        repeated = 0
        for k, (index, got, got_top) in enumerate(self.run(optimizer, **kwargs)):
            slopes = {}
            for slot, row in enumerate(index):
                slope = 2 * (slot + 1) * (params[row] - self.targets[row])
                slopes[row] = slopes.get(row, 0) + slope
            repeated += len(slopes) < 5
            slope_of_top = 6 * top
            squares = sum((s**2).sum() for s in (*slopes.values(), slope_of_top))
            factor = min(1.0, max_norm / np.sqrt(squares))
            for row, slope in slopes.items():
                params[row] += change_of_row(row, factor * slope, params[row], k)
            top = top + change_of_top(factor * slope_of_top, top, k)
            np.testing.assert_allclose(got, params, rtol=1e-9)
            np.testing.assert_allclose(got_top, top, rtol=1e-9)
        assert repeated > 2 or kwargs

    @pytest.mark.parametrize("sampling", ["with_replacement", "without_replacement"])
    def test_the_norm_is_of_rows_and_of_globals(self, sampling):
        """A row that is in the batch twice counts once, with the sum of its gradients."""
        kwargs = {} if sampling == "with_replacement" else {"sampling": sampling}
        self.check(
            chain(clip_by_global_norm(2.0), pm.sgd(learning_rate=0.1)),
            lambda row, slope, param, k: -0.1 * slope,
            lambda slope, param, k: -0.1 * slope,
            max_norm=2.0,
            **kwargs,
        )

    def test_after_other_links(self):
        """Of the signs of all gradients: the root of how many there are."""
        optimizer = chain(Lion(beta=0.0), clip_by_global_norm(0.5), scale(-1.0))
        for (index, *_), (_, rows, top) in zip(*[self.run(optimizer, 1)] * 2):
            length = 0.5 / np.sqrt(2 * len(set(index)) + 2)
            np.testing.assert_allclose(abs(top - [0.5, -0.5]), length)
            moved = abs(rows - self.start)
            np.testing.assert_allclose(moved[sorted(set(index))], length)

    def test_adamw_counts_the_visits_of_a_row(self):
        moments = {key: [0.0, 0.0, 0] for key in (*range(7), "top")}

        def change(key, slope, param, k):
            mean, square, n = moments[key]
            n += 1
            mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
            moments[key] = [mean, square, n]
            step = (mean / (1 - 0.9**n)) / (np.sqrt(square / (1 - 0.999**n)) + 1e-8)
            return -0.1 / (1 + k) * (step + 0.3 * param)

        self.check(
            adamw(lambda step: 0.1 / (1 + step), weight_decay=0.3),
            change,
            lambda slope, param, k: change("top", slope, param, k),
        )

    def test_one_step_for_all(self):
        """A schedule is about the steps of the fit, for rows as for globals."""
        warm = schedules.linear_warmup(1.0, 6)
        self.check(
            chain(pm.sgd(learning_rate=0.1), scale_by_schedule(warm)),
            lambda row, slope, param, k: -0.1 * warm(k) * slope,
            lambda slope, param, k: -0.1 * warm(k) * slope,
        )

    def test_rows_decay_by_name(self):
        self.check(
            chain(add_decayed_weights(0.3, ["z"]), scale_by_learning_rate(0.1)),
            lambda row, slope, param, k: -0.1 * (slope + 0.3 * param),
            lambda slope, param, k: -0.1 * slope,
        )


@pytest.mark.filterwarnings(JAX_COPIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_backends(backend):
    """A step of rows and of globals, with a norm of both, decay, a schedule and a count of visits."""
    rows, top = Rows(minibatch_index(7, 5, "with_replacement")), shared([0.5, -0.5], "top")
    optimizer = chain(clip_by_global_norm(2.0), adamw(schedules.cosine_decay(0.1, 30)))
    found = []
    for mode in (PYTHON, {"numba": "NUMBA", "jax": "JAX", "c": "CVM"}[backend]):
        table = ParamTable.of((rows,), TestRows.start, "z")
        lines, params = table.gather()
        loss = ((params - top) ** 2).sum() + (3 * top**2).sum()
        of_rows, of_top = pt.grad(loss, [params, top])
        gradients = [RowGradient(table, (lines, params), of_rows)]
        updates, updated = all_updates(optimizer, [top], [of_top], gradients)
        loss, updates = guarded(loss, updates, updated)
        step = bare_step(updates, loss, mode, guarded=True)
        found.append(step.driver.run(step.load(), 20).losses)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
    assert found[0][-1] < found[0][0]


class TestRates:
    """The rates of a fit's steps, up to a factor."""

    STEPS = np.array([0, 1, 4])

    @pytest.mark.parametrize(
        "optimizer, expected",
        [
            (pm.adam(learning_rate=0.1), [1, 1, 1]),
            (pm.adam(learning_rate=schedules.linear_warmup(1.0, 4)), [0, 0.25, 1]),
            (chain(pm.sgd(learning_rate=lambda step: 1 / (1 + step)), scale(3.0)), [1, 0.5, 0.2]),
            (
                chain(
                    pm.sgd(learning_rate=lambda step: 1 / (1 + step)),
                    scale_by_schedule(lambda step: 1.0 * step),
                ),
                [0, 0.5, 0.8],
            ),
            (adamw(schedules.exponential_decay(1.0, 1, 0.5)), [1, 0.5, 1 / 16]),
        ],
    )
    def test_of_links(self, optimizer, expected):
        rates = as_optimizer(optimizer).rates(self.STEPS)
        np.testing.assert_allclose(rates, expected, rtol=1e-6)
