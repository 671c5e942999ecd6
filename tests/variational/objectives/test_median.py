# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The median by selection: the same number as by a sort, on each backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode, get_mode
from pytensor.graph.fg import FunctionGraph
from pytensor.tensor.sort import SortOp

from pymc.variational.objectives.median import Median, find_by_sorting, median
from pymc.variational.objectives.numba_dispatch import MANY, SAMPLE, SPREAD
from pymc.variational.objectives.stein import _kernel
from pymc.variational.test_functions import rbf

PYTHON = Mode(linker="py", optimizer=None)

rng = np.random.default_rng(1)


def distances(particles: np.ndarray) -> np.ndarray:
    squares = (particles**2).sum(1)
    return squares[:, None] + squares - 2 * particles @ particles.T


def unlike_its_sample() -> np.ndarray:
    """Numbers of which a sample has the smallest: the median is not within bounds from it."""
    x = rng.normal(size=4 * MANY) + 100
    x[np.arange(SAMPLE) * SPREAD % x.size] -= 200
    return x


ARRAYS = {
    "even": rng.normal(size=(2, 2)),
    "odd": rng.normal(size=(3, 1)),
    "one": np.array([3.0]),
    "two": np.array([3.0, 5.0]),
    "many, even": rng.normal(size=MANY),
    "many, odd": rng.normal(size=MANY + 1),
    "ties": rng.integers(0, 3, size=MANY).astype(float),
    "ties, odd": rng.integers(0, 4, size=MANY + 1).astype(float),
    "all the same": np.full(MANY, 7.0),
    "middle two differ": np.repeat([1.0, 2.0], MANY),
    "infinite": np.where(rng.uniform(size=MANY) < 0.6, np.inf, 0),
    "some nan": np.where(rng.uniform(size=MANY) < 0.3, np.nan, rng.normal(size=MANY)),
    "mostly nan": np.where(rng.uniform(size=MANY) < 0.7, np.nan, rng.normal(size=MANY)),
    "unlike its sample": unlike_its_sample(),
    "particles": distances(rng.normal(size=(131, 4))),
    "particles, even": distances(rng.normal(size=(130, 4))),
    "duplicates": distances(np.repeat(rng.normal(size=(4, 3)), 40, axis=0)),
}


def by_sorting(x: np.ndarray) -> np.ndarray:
    ranks = np.sort(x, axis=None)
    n = ranks.size
    return ranks[n // 2] if n % 2 else (ranks[n // 2 - 1] + ranks[n // 2]) / x.dtype.type(2)


@pytest.fixture(scope="module", params=["float64", "float32"])
def functions(request: pytest.FixtureRequest) -> tuple[str, list[Callable]]:
    dtype = request.param
    x = pt.matrix("x", dtype=dtype)
    compiled = pytensor.function([x], median(x), mode="NUMBA")
    assert any(isinstance(node.op, Median) for node in compiled.maker.fgraph.apply_nodes)
    return dtype, [compiled, pytensor.function([x], median(x), mode=PYTHON)]


@pytest.mark.parametrize("name", ARRAYS)
def test_as_by_sorting(name: str, functions: tuple[str, list[Callable]]) -> None:
    dtype, compiled = functions
    x = np.atleast_2d(ARRAYS[name]).astype(dtype)
    for function in compiled:
        found = function(x)
        assert found.shape == () and found.dtype == dtype
        np.testing.assert_array_equal(found, by_sorting(x))


def test_a_sort_on_jax() -> None:
    x = pt.matrix("x", dtype="float32")
    fgraph = FunctionGraph([x], [median(x)], clone=False)
    [replacement] = find_by_sorting.transform(fgraph, fgraph.outputs[0].owner)
    assert replacement.type == fgraph.outputs[0].type
    for name in ("even", "odd", "one", "ties, odd"):
        value = np.atleast_2d(ARRAYS[name]).astype("float32")
        np.testing.assert_array_equal(replacement.eval({x: value}, mode=PYTHON), by_sorting(value))
    mode = get_mode("JAX")
    rewritten = pytensor.function([x], median(x), mode=mode).maker.fgraph
    assert any(isinstance(node.op, SortOp) for node in rewritten.apply_nodes)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [2, 5, 8])
@pytest.mark.parametrize("kind", ["apart", "tied", "duplicates"])
def test_kernel_is_that_of_the_release(kind: str, n: int, dtype: str) -> None:
    z = rng.normal(size=(n, 3))
    if kind == "tied":
        z = np.eye(n, 3)
    if kind == "duplicates":
        z[: n // 2] = z[0]
    x = pt.matrix("x", dtype=dtype)
    with pytensor.config.change_flags(floatX=dtype):
        outputs = [*_kernel(x), *rbf(x)]
    *ours, kernel, repulsion = pytensor.function([x], outputs, mode=PYTHON)(z.astype(dtype))
    for found, expected in zip(ours, (kernel, repulsion)):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
