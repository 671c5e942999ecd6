# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Loggers of fits: what they write, when, and that they import nothing before."""

from __future__ import annotations

import csv
import subprocess
import sys
import time

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational import loggers


@pytest.fixture(autouse=True)
def python_mode():
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def fit(*callbacks, n=50, **options):
    with pm.Model():
        pm.Normal("x", 3, 1)
        return pm.fit(n, callbacks=callbacks, random_seed=1, progressbar=False, **options)


class Listed(pm.callbacks.MetricLogger):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.records: list[tuple[int, Mapping[str, float]]] = []
        self.reports: list = []

    def log(self, step, metrics):
        self.records.append((step, dict(metrics)))

    def end(self, report):
        self.reports.append(report)

    @property
    def steps(self):
        return [step for step, _ in self.records]


@pytest.mark.parametrize("n, steps", [(50, [20, 40, 50]), (40, [20, 40]), (7, [7])])
def test_all_losses_are_logged_once(n, steps):
    log = Listed(every=20)
    approx = fit(log, n=n)
    assert log.steps == steps
    means = [part.mean() for part in np.split(approx.hist, steps[:-1])]
    np.testing.assert_allclose([metrics["loss"] for _, metrics in log.records], means)
    assert all(metrics["steps_per_second"] > 0 for _, metrics in log.records)
    [report] = log.reports
    assert report is approx.report
    assert report.n_steps == n


@pytest.mark.parametrize("n, more", [(40, 40), (50, 25), (7, 7)])
def test_refine_goes_on(n, more):
    log = Listed(every=20)
    with pm.Model():
        pm.Normal("x", 3, 1)
        advi = pm.ADVI(random_seed=1)
        advi.fit(n, callbacks=[log], progressbar=False)
        advi.refine(more, progressbar=False)
    assert log.steps == sorted({*range(20, n + more + 1, 20), n, n + more})
    parts = [part.mean() for part in np.split(advi.hist, log.steps[:-1])]
    np.testing.assert_allclose([metrics["loss"] for _, metrics in log.records], parts)
    assert [report.n_steps for report in log.reports] == [n, n + more]


def test_another_fit_with_the_same_logger():
    log = Listed(every=20)
    fit(log, n=40)
    fit(log, n=50)
    fit(log, n=7)
    fit(log, n=7)
    assert log.steps == [20, 40, 20, 40, 50, 7, 7]
    assert len(log.reports) == 4


def test_more_metrics():
    stats = {
        "mean": lambda approx, losses, i: approx.mean.eval(),
        "least": lambda a, losses, i: losses.min(),
    }
    log = Listed(every=25, stats=stats)
    approx = fit(log)
    assert [*log.records[-1][1]] == ["loss", "steps_per_second", "mean_0", "least"]
    assert log.records[-1][1]["mean_0"] == approx.mean.eval()[0]
    assert log.records[0][1]["least"] == approx.hist[:25].min()


def test_without_a_score():
    log = Listed(every=25)
    fit(log, score=False)
    assert [*log.records[0][1]] == ["steps_per_second"]


def test_the_end_of_a_fit_that_fails():
    def fail(approx, losses, i):
        raise RuntimeError("no")

    fail.every = 30
    log = Listed(every=20)
    with pytest.raises(RuntimeError, match="no"):
        fit(log, fail)
    assert log.steps == [20, 30]
    assert log.reports[0].stopped == "RuntimeError: no"


def test_arguments():
    with pytest.raises(TypeError, match=r"stats of CSVLogger has 'a': 3, which cannot be called"):
        pm.callbacks.CSVLogger("fit.csv", stats={"a": 3})
    with pytest.raises(ValueError, match="every"):
        pm.callbacks.CSVLogger("fit.csv", every=0)
    with pytest.raises(NotImplementedError, match=r"MetricLogger has no method log"):
        fit(pm.callbacks.MetricLogger())


def test_csv(tmp_path):
    path = tmp_path / "fit.csv"
    path.write_text("of an earlier fit\n")
    approx = fit(pm.callbacks.CSVLogger(path, every=20))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [20, 40, 50]
    assert float(rows[0]["loss"]) == approx.hist[:20].mean()


@pytest.mark.parametrize(
    "name, missing, package",
    [
        ("TensorBoardLogger", ("tensorboardX", "torch"), "tensorboardX"),
        ("MLflowLogger", ("mlflow",), "mlflow-skinny"),
        ("WandbLogger", ("wandb",), "wandb"),
    ],
)
def test_a_library_that_is_not_there(name, missing, package, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name in missing else object())
    arguments = ("folder",) if name == "TensorBoardLogger" else ()
    with pytest.raises(ImportError, match=rf"{name} writes by .*pip install {package}\."):
        getattr(pm.callbacks, name)(*arguments)


def test_nothing_is_imported_before():
    code = """
import importlib.util, sys
import pymc as pm
real = importlib.util.find_spec
assert "pymc.variational.loggers" not in sys.modules
pm.callbacks.CSVLogger("fit.csv")
import pymc.variational.loggers as loggers
loggers.find_spec = lambda name: True
pm.callbacks.TensorBoardLogger("runs"), pm.callbacks.MLflowLogger(), pm.callbacks.WandbLogger()
assert {"tensorboardX", "mlflow", "wandb", "torch"}.isdisjoint(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Run:
    """What the logger uses of a run of Weights & Biases."""

    def __init__(self):
        self.logged, self.config, self.finished = [], {}, 0
        self.summary = {}
        self.config = SimpleNamespace(
            update=lambda values, allow_val_change: self.settings.update(values)
        )
        self.settings = {}

    def log(self, metrics, step):
        self.logged.append((step, metrics))

    def finish(self):
        self.finished += 1


def test_a_run_of_wandb_that_was_passed():
    """It stays open for its owner."""
    run = Run()
    approx = fit(pm.callbacks.WandbLogger(run, every=25), n=200)
    assert [step for step, _ in run.logged] == [25 * k for k in range(1, 9)]
    assert run.settings == approx.report.settings
    assert run.summary["converged"] == approx.report.converged
    assert run.finished == 0


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = pm.callbacks.WandbLogger(every=25)
    fit(log)
    assert wandb.run is None  # it was the logger's own
    [written] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 20  # a process of wandb's own writes it
    while b"steps_per_second" not in written.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # others need SQLAlchemy
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    log = pm.callbacks.MLflowLogger(every=20)
    approx = fit(log)
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient()
    history = client.get_metric_history(log._run_id, "loss")
    assert [metric.step for metric in history] == [20, 40, 50]
    assert history[0].value == pytest.approx(approx.hist[:20].mean())
    assert client.get_run(log._run_id).data.tags["method"] == "ADVI"
    with mlflow.start_run() as run:
        fit(pm.callbacks.MLflowLogger(every=20))
        assert mlflow.active_run().info.run_id == run.info.run_id  # the user's goes on


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    approx = fit(pm.callbacks.TensorBoardLogger(tmp_path / "run", every=20))
    [file] = tmp_path.glob("run/events.out.*")
    assert scalars(file, "loss") == pytest.approx(
        {20: approx.hist[:20].mean(), 40: approx.hist[20:40].mean(), 50: approx.hist[40:].mean()}
    )


def scalars(file, name) -> dict[int, float]:
    """Read a metric from a file of events: records of a length, its checksum, the event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data = file.read_bytes()
    found: dict[int, float] = {}
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        found |= {event.step: v.simple_value for v in event.summary.value if v.tag == name}
    return found
