# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arguments that nothing takes: each is named, with what to write instead."""

from __future__ import annotations

import inspect

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc import variational
from pymc.variational.early_stopping import check_until
from pymc.variational.fit_options import ADVICE, FitOptions, check_known
from pymc.variational.inference import make_inference
from pymc.variational.opvi import Group
from pymc.variational.tuned import with_named_optimizer


@pytest.fixture(scope="module")
def model() -> pm.Model:
    with pm.Model() as model:
        mu = pm.Normal("mu")
        pm.Normal("y", mu, 1, observed=np.zeros(3))
    return model


PROBLEM = r"(nonsense|lr|callbacks|average|until|obj_optimizer)="

WHAT_TO_WRITE = {
    "lr": r"obj_optimizer=pm\.adam\(learning_rate=3\)",
    "learning_rate": r"obj_optimizer=pm\.adam\(learning_rate=3\)",
    "optimizer": r"Write obj_optimizer='tuned', or pm\.adam\(learning_rate=0\.01\)",
    "lr_scheduler": r"pm\.variational\.schedules\.cosine_decay\(0\.01, n\)",
    "epochs": r"3 epochs are n = 3 \* math\.ceil\(N / batch_size\) steps",
    "max_epochs": r"3 epochs are n = 3 \* math\.ceil\(N / batch_size\) steps",
    "n_iter": "write n=3",
    "steps": "write n=3",
    "num_steps": "write n=3",
    "maxIter": "write n=3",
    "patience": r"until=pm\.variational\.callbacks\.CheckStationarity\(tolerance=0\.1\)",
    "seed": "Write random_seed=3",
    "num_samples": "obj_n_mc=3",
    "verbose": "progressbar=False",
    "draws": r"approx\.sample\(1000\)",
    "checkpoint_every": r"pm\.Trainer\(dataloader=\.\.\.\)\.fit\(n, checkpoint='fits'\)",
    "calbacks": "Near it are callbacks",
    "nonsense": r"help\(pm\.fit\) lists what it takes",
}


@pytest.mark.parametrize("function", [pm.fit, pm.ADVI.fit])
def test_options_are_those_of_the_signatures(function: Any) -> None:
    defaults = {f.name: f.default for f in fields(FitOptions)}
    parameters = inspect.signature(function).parameters.values()
    named = {p.name: p.default for p in parameters if p.name not in ("self", "kwargs")}
    assert named == {name: defaults[name] for name in named}


def test_options_of_scopes_that_are_not_at_their_defaults() -> None:
    """Arrays and an empty dict count; None, and the one particle of an objective, do not."""
    options = FitOptions(start={}, start_sigma=np.ones(2), n_particles=np.int64(1), guide=None)
    assert list(options.changed("start", "target")) == ["start", "start_sigma"]
    with pytest.raises(ValueError, match="n_particles"):
        FitOptions(n_particles=0)


@pytest.mark.parametrize("name", WHAT_TO_WRITE)
def test_a_fit_says_what_to_write(model: pm.Model, name: str) -> None:
    arguments: dict[str, Any] = {"model": model, name: 3}
    message = rf"pm\.fit got {name}=3, .*{WHAT_TO_WRITE[name]}"
    with pytest.raises(TypeError, match=message) as error:
        pm.fit(**arguments)
    assert len(str(error.value)) < 250  # no list of all names


def test_what_it_says_is_there() -> None:
    pm.adam(learning_rate=pm.variational.schedules.cosine_decay(0.01, 10))
    assert all(callable(optimizer) for optimizer in (pm.adamax, pm.sgd))
    assert with_named_optimizer(10, {"obj_optimizer": "tuned"})["obj_optimizer"].links
    assert check_until(pm.variational.callbacks.CheckStationarity(tolerance=0.1), None)
    assert check_until("stationary", None)


def test_advice_is_for_who_takes_it() -> None:
    """An argument of no fit is not offered where there is none of it."""
    with pytest.raises(TypeError, match=r"f got seed=1, .*takes\. It takes start$"):
        check_known("f", {"seed": 1}, ["start"])


def test_names_have_one_advice_each() -> None:
    names = [name for advice in ADVICE.values() for names in advice for name in names.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pm.MeanField(nonsense=1),
            "pm.MeanField got nonsense=1, .* takes model, random_seed, ",
        ),
        (lambda: pm.FullRank(strat={}), r"pm.FullRank got strat=\{\}, .*Near it are start"),
        (lambda: pm.MeanField(local_rv={}), r"pm.MeanField got local_rv=\{\}, .*dims='obs'"),
        (lambda: pm.Empirical(size=3, nonsense=1), "pm.Empirical got nonsense=1, .* size, start, "),
        (
            lambda: Group(None, vfam="mf", nonsense=1) and pm.ADVI(nonsense=1),
            "pm.ADVI got nonsense",
        ),
        (lambda: pm.FullRankADVI(local_rv={}), r"pm.FullRankADVI got local_rv=\{\}, .*dims='obs'"),
        (lambda: pm.SVGD(n_particles=3, nonsense=1), "pm.SVGD got nonsense=1, .* temperature"),
        (lambda: pm.fit(1, inf_kwargs={"nonsense": 1}), "pm.ADVI got nonsense=1"),
        (lambda: pm.fit(1, "svgd", inf_kwargs={"nonsense": 1}), "pm.SVGD got nonsense=1"),
        (lambda: pm.fit(1, pm.ADVI(), start={"mu": 1}), r"start of pm.fit .* write pm.ADVI\(...\)"),
        (lambda: pm.ADVI(vfam="full_rank"), "pm.ADVI got vfam='full_rank'"),
        (
            lambda: pm.MeanField(params={"mu": [0.0], "rho": [0.0]}),
            r"give them to a group, pm.variational.Approximation\(\[pm.Group\(",
        ),
    ],
)
def test_methods_and_approximations(model: pm.Model, call: Any, message: str) -> None:
    with model, pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: pm.fit(1, inf_kwargs={"nonsense": 1}),
        lambda: pm.fit(1, "fullrank_advi", inf_kwargs={"nonsense": 1}),
        lambda: pm.ADVI().fit(1, lr=0.1),
        lambda: pm.ADVI().fit(1, callbacks=print),
        lambda: pm.ADVI().fit(1, average=2),
        lambda: pm.ADVI().fit(1, until="converged"),
        lambda: pm.ADVI().fit(1, obj_optimizer="adam"),
    ],
)
def test_nothing_compiles_before_it_is_refused(
    model: pm.Model, call: Any, capsys: pytest.CaptureFixture
) -> None:
    with model, pytest.raises((TypeError, ValueError), match=PROBLEM):
        call()
    assert "Compiling" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"until": "converged"},
            ValueError,
            "until='converged' of a fit must be 'stationary', .* or",
        ),
        ({"until": True}, ValueError, "until=True of a fit"),
        ({"until": "stationary", "average": 0.5}, TypeError, "two averages .*Leave average out"),
        (
            {"until": "stationary", "method": "auto"},
            TypeError,
            "until='stationary': it needs no settings",
        ),
        (
            {"obj_optimizer": "tuned", "method": "auto"},
            TypeError,
            "obj_optimizer='tuned': it needs no settings",
        ),
        (
            {"obj_optimizer": "adam"},
            ValueError,
            r"'adam' .*only name is 'tuned'; write .*pm.adam\(",
        ),
        (
            {"obj_optimizer": "tuned", "until": "stationary"},
            TypeError,
            "contradict each other: .*Leave until out",
        ),
    ],
)
def test_names_of_optimizers_and_when_to_end(
    model: pm.Model, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pm.fit(10, model=model, **arguments)


def test_a_name_needs_the_number_of_steps(model: pm.Model) -> None:
    with pytest.raises(TypeError, match="'tuned' is known to fits of a number of steps"):
        pm.ADVI(model=model).prepare(obj_optimizer="tuned")


def test_to_refine_takes_no_others(model: pm.Model) -> None:
    message = r"refine got lr=0.1, .* write fit\(n, obj_optimizer=pm.adam\(learning_rate=0.01\)\)"
    with pytest.raises(TypeError, match=message):
        pm.ADVI(model=model).refine(10, lr=0.1)


def test_amortised_particles_have_no_start(model: pm.Model) -> None:
    """They say what they are first, as in the release."""
    with (
        pytest.warns(UserWarning, match="experimental inference Operator"),
        pytest.raises(TypeError, match=r"pm.ASVGD got start=\{\}, .*It takes approx, estimator, "),
    ):
        pm.fit(10, "asvgd", model=model, start={})


def test_what_they_take(model: pm.Model) -> None:
    """What is refused above is refused by its name alone."""
    with model:
        pm.MeanField(random_seed=1, start={"mu": 1.0}, start_sigma={"mu": 2.0})
        variational.Approximation([Group(None, params={"mu": np.zeros(1), "rho": np.zeros(1)})])
        pm.Empirical(size=3, jitter=0.5, start={"mu": 1.0})
        pm.SVGD(n_particles=3, jitter=0.5, temperature=2.0)
        variational.KLqp(pm.MeanField(), beta=2.0)


def test_groups_of_ones_own_take_what_they_look_at(model: pm.Model) -> None:
    class Own(type(pm.MeanField(model=model).groups[0])):  # type: ignore[misc]
        def __init_group__(self, group: Any) -> None:
            self.power = self._kwargs["power"]
            super().__init_group__(group)

    assert Own([model["mu"]], model=model, power=2).power == 2


def test_the_seed_of_a_fit_is_that_of_a_method_made_before(model: pm.Model) -> None:
    seeds = []
    for seed in (1, 1, 2):
        method = pm.ADVI(model=model)
        make_inference(FitOptions(method=method, random_seed=seed))
        seeds.append(method.approx.rng.randint(2**30))
    assert seeds[0] == seeds[1] != seeds[2]
