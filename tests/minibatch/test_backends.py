# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""One batch for all that is evaluated together, and the errors of new data, on every backend."""

import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.minibatch.axis_tracking import indexes
from pymc.minibatch.index import BatchSizeError, IndexState, MinibatchIndexRV, minibatch_index

pytestmark = [
    # The JAX linker says of every shared generator, and so of this state, that it works on a copy
    pytest.mark.filterwarnings("ignore:The RandomType SharedVariables:UserWarning"),
]

BACKENDS = [
    pytest.param("NUMBA", id="numba"),
    pytest.param("JAX", id="jax"),
    pytest.param("CVM", id="c", marks=pytest.mark.cxx),
]
N_ROWS, BATCH_SIZE, N_CALLS = 12_345, 2_500, 400  # 10^6 rows are drawn


def rows_as_logp(value, mu):
    """A "log-probability" that tells which rows were evaluated."""
    return value + 0 * mu


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_match_in_a_million_draws(backend):
    """Of one call, two calls on one dim, and terms whose indexes are clones of one another."""
    rows = np.arange(N_ROWS, dtype="float64")
    with pm.Model(coords={"obs": range(N_ROWS)}) as model:
        x, y, z = (pm.Data(name, k * rows, dims="obs") for k, name in enumerate("xyz", start=1))
        first, second = pm.Minibatch(x, y, batch_size=BATCH_SIZE)
        third = pm.Minibatch(z, batch_size=BATCH_SIZE)
        mu = pm.Normal("mu")
        for name, batch in zip("abc", (first, second, third)):
            pm.CustomDist(name, mu, logp=rows_as_logp, observed=batch, dims="obs")
        terms = model.logp([model["a"], model["b"], model["c"]], sum=False)
    outputs = pt.stack(
        [
            abs(2 * first - second).max() + abs(3 * first - third).max(),
            abs(2 * terms[0] - terms[1]).max() + abs(3 * terms[0] - terms[2]).max(),
            # The scale is N / B
            abs(terms[0] - first * (N_ROWS / BATCH_SIZE)).max(),
            first[0],
        ]
    )
    with pm.minibatch_logp():
        evaluate, updates = pm.compile(
            model.value_vars, outputs, mode=backend, random_seed=11, return_updates=True
        )
    assert [isinstance(state, IndexState) for state in updates] == [True]
    results = np.array([np.asarray(evaluate(0.0)) for _ in range(N_CALLS)])
    np.testing.assert_allclose(results[:, :3], 0, atol=1e-9)
    assert len(np.unique(results[:, 3])) > 1
    [_] = [v for v in evaluate.get_shared() if isinstance(v.type, type(next(iter(updates)).type))]


@pytest.mark.parametrize("sampling", ["epoch", "without_replacement"])
def test_jax_shuffles_once_for_all_columns(sampling):
    """The shuffle is not fused into the gather, where it would run for each element of the batch."""
    index = minibatch_index(1000, 50, sampling)
    batch = pt.as_tensor(np.zeros((1000, 30)))[index]
    draw = pm.compile([], batch, mode="JAX")
    values = [cell.storage[0] for cell in draw.input_storage]
    program = draw.vm.jit_fn.lower(*values).compile().as_text()
    kernels = [kernel for kernel in program.split("\n}") if " gather(" in kernel]
    assert kernels
    assert not [kernel for kernel in kernels if " multiply(" in kernel]


@pytest.mark.parametrize(
    "mode", [pytest.param("CVM", marks=pytest.mark.cxx), "FAST_COMPILE"], ids=["c", "python"]
)
def test_who_draws(mode, monkeypatch):
    """Compiled code on the C linkers, NumPy on Python's, where few draws would pay for compiling."""
    calls = []
    monkeypatch.setattr(MinibatchIndexRV, "perform", lambda *args: calls.append(args))
    draw = pm.compile([], minibatch_index(10, 3), mode=mode, random_seed=1)
    if mode == "CVM":
        assert len({*draw(), *draw(), *draw()}) == 9
    else:
        draw.vm()
    assert bool(calls) == (mode != "CVM")


@pytest.mark.parametrize("random_seed", [None, 0, 2**40, [1, 2]])
def test_rows_match_with_any_seed(random_seed):
    x, y = pm.Minibatch(np.arange(100.0), 2 * np.arange(100.0), batch_size=10)
    evaluate = pm.compile_pymc([], [x, y], random_seed=random_seed, mode="FAST_COMPILE")
    for _ in range(30):
        rows, twice = evaluate()
        np.testing.assert_array_equal(2 * rows, twice)


@pytest.mark.parametrize("backend", BACKENDS)
def test_step_after_new_data(backend):
    """An error comes before the step: parameters and the place in the epoch stay as they were."""
    rng = np.random.default_rng(3)
    with pm.Model() as model:
        x, y = pm.Data("x", rng.normal(size=20)), pm.Data("y", rng.normal(size=20))
        x_batch, y_batch = pm.Minibatch(x, y, batch_size=8)
        slope = pm.Normal("slope")
        pm.Normal("lik", slope * x_batch, 1, observed=y_batch)
    inference = pm.ADVI(model=model, random_seed=1)
    step = inference.objective.step_function(score=True, compile_kwargs={"mode": backend})
    params = inference.approx.params
    # An error of a callback is a ValueError or a RuntimeError, by the version of JAX
    error = (ValueError, RuntimeError) if backend == "JAX" else BatchSizeError

    def state():
        return [np.array(param.get_value()) for param in params]

    assert np.isfinite(step())
    before = state()
    assert np.isfinite(step())
    after = state()
    assert not np.array_equal(before, after)

    with model:
        pm.set_data({"x": np.zeros(19)})
    with pytest.raises(error, match="different numbers of rows"):
        step()
    np.testing.assert_array_equal(state(), after)
    with model:
        pm.set_data({"x": np.zeros(7), "y": np.zeros(7)})
    with pytest.raises(error, match="batch_size is 8, but the data have 7 rows"):
        step()
    np.testing.assert_array_equal(state(), after)
    with model:
        pm.set_data({"x": np.zeros(40), "y": np.zeros(40)})
    assert np.isfinite(step())
    assert not np.array_equal(state(), after)


def test_compile_pymc_is_compile():
    assert pm.compile_pymc is pm.pytensorf.compile_pymc
    index = indexes([pm.Minibatch(np.arange(9.0), batch_size=3)])
    draws = [pm.compile_pymc([], index, mode="FAST_COMPILE", random_seed=5)() for _ in range(2)]
    np.testing.assert_array_equal(*draws)
