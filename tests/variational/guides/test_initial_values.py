# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Initial values of fits: by both names of a variable, in any shape, the same for both engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pytensor.compile.mode import Mode

import pymc as pm

from pymc.variational.approximation import guided_approximation
from pymc.variational.fit_options import FitOptions
from pymc.variational.inference import make_inference
from pymc.variational.opvi import Group

PYTHON = Mode(linker="py", optimizer=None)

Make = Callable[..., Any]
ENGINES: dict[str, Make] = {
    "MeanField": pm.MeanField,
    "FullRank": pm.FullRank,
    "ADVI": lambda **kwargs: pm.ADVI(**kwargs).approx,
    "FullRankADVI": lambda **kwargs: pm.FullRankADVI(**kwargs).approx,
    "guided": guided_approximation,
    "guided full rank": lambda **kwargs: guided_approximation(others="full_rank", **kwargs),
}


@pytest.fixture(scope="module")
def model() -> pm.Model:
    with pm.Model() as model:
        s = pm.HalfNormal("s")
        pm.Normal("W", shape=(2, 3))
        pm.Dirichlet("p", np.ones(3))
        pm.Deterministic("twice", 2 * s)
        pm.Normal("y", 0, s, observed=np.zeros(3))
    return model


def by_name(approx: Any, flat: Any) -> dict[str, np.ndarray]:
    """Split a vector of all entries, in the order of the model's variables."""
    [guide] = approx.guides
    names = [site.name for site in guide.sites]
    ends = np.cumsum(guide.layout.sizes)
    return dict(zip(names, np.split(flat.eval(mode=PYTHON), ends[:-1])))


SIGMAS: list[tuple[dict[str, Any], str, Any]] = [
    ({"s": 3.0}, "s", [3]),
    ({"s_log__": 3.0}, "s", [3]),
    ({"s": 3.0, "s_log__": 3.0}, "s", [3]),
    ({"s": np.array([3])}, "s", [3]),
    ({"W": 2.0}, "W", np.full(6, 2)),
    ({"W": np.arange(1, 7).reshape(2, 3)}, "W", np.arange(1, 7)),
    ({"W": np.arange(1.0, 7)}, "W", np.arange(1, 7)),
    ({"W": [[1], [2]]}, "W", [1, 1, 1, 2, 2, 2]),
    ({"p": [0.1, 0.2]}, "p", [0.1, 0.2]),
    ({"p_simplex__": 0.1}, "p", [0.1, 0.1]),
    ({"s": 5000.0}, "s", [5000]),
    ({"s": 1e-9}, "s", [1e-9]),
]


@pytest.mark.parametrize("engine", ["MeanField", "FullRank", "guided"])
@pytest.mark.parametrize("start_sigma, name, sigma", SIGMAS, ids=str)
def test_start_sigma(
    model: pm.Model, engine: str, start_sigma: dict[str, Any], name: str, sigma: Any
) -> None:
    found = by_name(*with_std(ENGINES[engine](model=model, start_sigma=start_sigma)))
    np.testing.assert_allclose(found.pop(name), sigma, rtol=1e-6)
    default = np.log1p(np.exp(1.0 if engine == "FullRank" else 0.0))
    for others in found.values():
        np.testing.assert_allclose(others, default, rtol=1e-6)


def with_std(approx: Any) -> tuple[Any, Any]:
    return approx, approx.std


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_and_class(model: pm.Model, engine: str) -> None:
    """Variables as keys, and what is not named starts as it did."""
    start = {model["s"]: 0.5, "W": 2.0, "twice": 1.0, "p": [0.5, 0.25, 0.25]}
    approx = ENGINES[engine](model=model, start=start, start_sigma={model["W"]: 0.3})
    mean, std = by_name(approx, approx.mean), by_name(approx, approx.std)
    np.testing.assert_allclose(mean["s"], np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(mean["W"], 2, rtol=1e-6)
    np.testing.assert_allclose(std["W"], 0.3, rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"start_sigma": {"nope": 1.0}}, ValueError, r"start_sigma .*'nope', .*\['W', 'p', 's'\]"),
        ({"start_sigma": {"twice": 1.0}}, ValueError, "start_sigma of pm.fit has 'twice'"),
        ({"start": {"nope": 1.0}}, ValueError, r"start of pm.fit has 'nope', .*\['W', 'p', 's'\]"),
        ({"start": {"y": 1.0}}, ValueError, "start of pm.fit has 'y'"),
        ({"start": {"s": -1.0}}, ValueError, "start of pm.fit has -1. for 's', .* its support"),
        (
            {"start": {"p": [0.2, 0.3, 0.9]}},
            ValueError,
            r"\[0.2 0.3 0.9\] for 'p', .* its support: it",
        ),
        ({"start": {"s": 1, "s_log__": 2}}, ValueError, "1 for 's', and 2 for 's_log__', which is"),
        ({"start": {"s_log__": 2, "s": 1}}, ValueError, "1 for 's', and 2 for 's_log__', which is"),
        ({"start_sigma": {"W": np.ones(5)}}, ValueError, r"'W' has the shape \(5,\), .*\(2, 3\)"),
        ({"start_sigma": {"s": 0}}, ValueError, "start_sigma of pm.fit has 0 for 's'"),
        ({"start_sigma": {"s": 1.0, "s_log__": 2.0}}, ValueError, "another name of the same"),
        ({"start_sigma": 0.1}, TypeError, r"start_sigma of pm.fit is a dict .*; got 0\.1"),
    ],
    ids=str,
)
def test_refused(
    model: pm.Model, engine: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ENGINES[engine](model=model, **arguments)


@pytest.mark.parametrize("argument", ["start", "start_sigma"])
def test_a_variable_as_two_keys(model: pm.Model, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} of pm.fit has 's' twice, by its name"):
        pm.MeanField(model=model, **{argument: {"s": 1.0, model["s"]: 2.0}})


def test_of_a_fit(model: pm.Model) -> None:
    for method in ("advi", "ADVI", "fullrank_advi"):
        options = FitOptions(
            method=method, model=model, start={"s_log__": 0.3}, start_sigma={"s": 3.0}
        )
        inference = make_inference(options)
        approx = inference.approx
        np.testing.assert_allclose(by_name(approx, approx.mean)["s"], 0.3, rtol=1e-6)
        np.testing.assert_allclose(by_name(approx, approx.std)["s"], 3, rtol=1e-6)


def test_of_particles(model: pm.Model) -> None:
    """The noise of 10,000 particles has the standard deviation, within 5 standard errors."""
    approx = pm.SVGD(n_particles=10_000, model=model, start_sigma={"s": 3.0}, random_seed=1).approx
    std = by_name(approx, approx.std)
    error = 5 / np.sqrt(2 * 10_000)
    np.testing.assert_allclose(std["s"], 3, rtol=error)
    np.testing.assert_allclose(std["W"], 1, rtol=error)


def test_groups_start_by_name_in_any_order() -> None:
    """The release gave them the values of the model's order."""
    with pm.Model() as model:
        a, b = pm.Normal("a"), pm.Normal("b", shape=2)
        group = Group([b, a], vfam="mf", start={"a": 1.0, "b": [2.0, 3.0]}, start_sigma={"a": 4.0})
    np.testing.assert_allclose(group.mean.eval(mode=PYTHON), [2, 3, 1])
    np.testing.assert_allclose(group.std.eval(mode=PYTHON)[2], 4, rtol=1e-6)
    assert list(group.ordering) == ["b", "a"]
    assert model.free_RVs == [a, b]


def test_a_maximum_is_a_start(model: pm.Model) -> None:
    """It has both names of each variable, and deterministics."""
    s, w, p = 0.5, np.ones((2, 3)), np.ones(3) / 3
    found = {"s": s, "s_log__": np.log(s), "W": w, "p": p, "p_simplex__": np.zeros(2), "twice": 1.0}
    for engine in ("MeanField", "guided"):
        approx = ENGINES[engine](model=model, start=found)
        mean = by_name(approx, approx.mean)
        np.testing.assert_allclose(mean["s"], np.log(0.5), rtol=1e-6)
        np.testing.assert_allclose(mean["W"], 1, rtol=1e-6)


def test_a_start_may_be_rounded_and_bounds_depend_on_others() -> None:
    with pm.Model() as model:
        top = pm.HalfNormal("top")
        pm.Uniform("u", 0, top)
        pm.Dirichlet("p", np.ones(3))
        pm.ZeroSumNormal("z", shape=3)
        start = {"top": 2.0, "u": 1.5, "p": [0.33, 0.33, 0.33], "z": [1, -1, 0]}
        approx = pm.MeanField(start=start)
    mean = by_name(approx, approx.mean)
    np.testing.assert_allclose(mean["u"], np.log(3), rtol=1e-5)
    np.testing.assert_allclose(mean["p"], 0, atol=1e-6)
    with pytest.raises(ValueError, match=r"\[1 1 1\] for 'z', .* it would start at \["):
        pm.MeanField(model=model, start={"z": [1, 1, 1]})
