# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The argument `workers`, and what needs no Ray."""

from __future__ import annotations

import re
import subprocess
import sys

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.variational.cluster.workers import as_workers


def test_a_number_of_workers() -> None:
    assert as_workers(3, "pm.Trainer") == pm.Workers(3)
    assert as_workers(None, "pm.Trainer") is None
    assert as_workers(pm.Workers(2, cpus=4), "pm.Trainer") == pm.Workers(2, cpus=4)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"n": 0}, ValueError, "n=0 of pm.Workers"),
        ({"n": 2.5}, TypeError, "n=2.5 of pm.Workers"),
        ({"n": 2, "cpus": 0}, ValueError, "cpus=0 of pm.Workers"),
        ({"n": 2, "timeout": 0}, ValueError, "timeout=0 of pm.Workers"),
        ({"n": 2, "address": 6379}, TypeError, "Leave it out to work on this machine"),
        ({"n": 2, "address": "ray://head:10001"}, ValueError, "ray job submit"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        pm.Workers(**arguments)


def model_of(loader: pm.Loader) -> pm.Model:
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        pm.Normal("like", pm.Normal("m"), 1, observed=y, dims="obs")
    return model


class Doubled(pm.Loader):
    """A loader that is no `DataLoader`."""

    batch_size, total_size = 2, 4

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        yield from np.zeros((2, 2))


@pytest.mark.parametrize(
    "loader, options, error, message",
    [
        (pm.DataLoader(np.zeros(10), 2), {"workers": "all"}, TypeError, "workers='all' of pm."),
        (Doubled(), {"workers": 2}, TypeError, "which a Doubled cannot give"),
        (
            pm.DataLoader(lambda: iter([np.zeros(5)]), 2),
            {"workers": 2},
            ValueError,
            "gives its rows in order only",
        ),
        (
            pm.DataLoader(np.array([1.0, np.nan, 2.0, 3.0]), 2, on_nan="skip"),
            {"workers": 2},
            ValueError,
            "leave on_nan out",
        ),
        (
            pm.DataLoader(np.zeros(10), 2, total_size=20),
            {"workers": 2},
            ValueError,
            "total_size=20 of pm.DataLoader is not the 10 rows",
        ),
    ],
)
def test_of_a_trainer(
    loader: pm.Loader, options: Any, error: type[Exception], message: str
) -> None:
    model = model_of(loader)
    with pytest.raises(error, match=re.escape(message)):
        pm.Trainer("auto", dataloader=loader, model=model, **options)


def test_a_missing_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymc.variational.cluster.ray_session import import_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=re.escape('pip install "pymc-minibatch[cluster]"')):
        import_ray()


def test_a_cluster_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymc.variational.cluster.ray_session import _check_secure

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    workers = pm.Workers(2, address="10.0.0.1:6379")
    with pytest.raises(ValueError, match="RAY_AUTH_MODE=token"):
        _check_secure(workers)
    _check_secure(pm.Workers(2, address="10.0.0.1:6379", insecure=True))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    _check_secure(workers)


def test_ray_is_imported_by_no_other_fit() -> None:
    code = (
        "import sys, numpy as np, pymc as pm; pm.Trainer, pm.Workers(2); "
        "from pymc.variational.cluster import passes, pool; "
        "assert not {'ray', 'mpi4py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
