# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The tutorial of streams on few flights, and the measurement of the page on shuffle buffers."""

import importlib.util
import sys

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import numpy as np
import pytensor
import pytest

from pytensor.compile.mode import Mode

import pymc as pm

ROOT = Path(__file__).parents[2]
PYTHON = Mode(linker="py", optimizer=None)
N_FLIGHTS, BATCH_SIZE, N_STEPS = 3_000, 100, 40


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "examples"))  # they import from each other
    try:
        with mpl.rc_context({"backend": "agg"}):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "examples"))
    return module


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    return load("examples/flights_stream.py")


@pytest.fixture(scope="module")
def sorted_files() -> ModuleType:
    return load("docs/how_to/sorted_files.py")


@pytest.fixture(scope="module")
def few_flights(demo):
    flights = demo.read_flights()
    rows = np.linspace(0, len(flights.delay) - 1, N_FLIGHTS).astype(int)
    arrays = {name: getattr(flights, name)[rows] for name in flights._fields if name != "coords"}
    return flights._replace(**arrays)


@pytest.fixture(scope="module")
def shards(demo, few_flights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flights") / "shards"
    demo.write_shards(few_flights, folder)
    return folder


@pytest.fixture
def python_mode() -> Iterator[None]:
    with pytensor.config.change_flags(mode="FAST_COMPILE", linker="py"):
        yield


def test_batches_of_a_pass_average_to_all_flights(demo, few_flights, shards):
    # with a wrong total, only the prior's part would agree
    loader = demo.open_loader(shards, few_flights.coords["feature"], BATCH_SIZE)
    model = demo.streamed_model(loader, few_flights.coords)
    with pm.minibatch_logp():
        of_batch = model.compile_logp(mode=PYTHON)
    of_all = pm.remove_minibatch(demo.flights_model(few_flights)).compile_logp(mode=PYTHON)
    point = model.initial_point()
    found = []
    for batch in loader:
        with model:
            pm.set_data(batch)
        found.append(of_batch(point))
    assert len(found) == N_FLIGHTS // BATCH_SIZE
    np.testing.assert_allclose(np.mean(found), of_all(point), rtol=1e-10)


def test_resumed_is_not_stopped(demo, few_flights, shards, tmp_path, monkeypatch, python_mode):
    monkeypatch.setattr(demo, "EVERY", 10)
    demo.train(shards, tmp_path, few_flights.coords, N_STEPS)
    first = min(tmp_path.glob("step-*"))  # of the three that are kept
    with pytest.warns(UserWarning, match="This fit writes no checkpoints"):  # there are later ones
        trainer, done = demo.resume(shards, first, few_flights.coords, N_STEPS)
    assert (done, trainer.batches_seen) == (N_STEPS // 2, N_STEPS)

    loader = demo.open_loader(shards, few_flights.coords["feature"])
    whole = demo.make_trainer(demo.streamed_model(loader, few_flights.coords), loader, N_STEPS)
    whole.fit(N_STEPS)
    assert np.array_equal(whole.hist, trainer.hist)
    for a, b in zip(whole.approx.params, trainer.approx.params, strict=True):
        assert np.array_equal(a.get_value(), b.get_value())

    stream, memory = (
        trainer.approx.sample(20, random_seed=seed)["posterior"].to_dataset() for seed in (1, 2)
    )
    shift, ratio = demo.shifts(stream, memory)
    assert all(np.isfinite(values).all() for d in (shift, ratio) for values in d.data_vars.values())
    demo.plot_comparison(stream, memory, tmp_path / "stream.png")
    assert (tmp_path / "stream.png").read_bytes().startswith(b"\x89PNG")


def test_killed_half_way(demo, tmp_path):
    """What waits for a checkpoint of half of the steps, and kills."""
    script = (
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1], 'step-000000005').mkdir()\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert demo.kill_half_way(command, tmp_path, n=10) == -9


def test_sorted_file_is_wrong_until_it_is_shuffled(
    sorted_files, tmp_path, monkeypatch, python_mode
):
    monkeypatch.setattr(sorted_files, "BATCH_SIZE", 50)
    rows = sorted_files.sorted_rows(6_000)
    mean, sd = sorted_files.exact(rows)
    source = sorted_files.in_one_order(rows)
    shifts = {
        buffer_size: (sorted_files.fit(source, buffer_size, n=360) - mean) / sd
        for buffer_size in (None, 6_000)
    }
    assert np.abs(shifts[None]).max() > 3 * np.abs(shifts[6_000]).max()
    parts = sorted_files.in_row_groups(rows, tmp_path, 10)
    assert parts.n_rows == 6_000 and len(parts.part_lengths) == 10


def test_exact_posterior_of_the_sorted_file(sorted_files):
    rows = sorted_files.sorted_rows(1_000)
    mean, sd = sorted_files.exact(rows)
    slope = rows["x"] @ rows["y"] / (rows["x"] @ rows["x"])
    # the prior of sd 10 shrinks both by NOISE**2 / (100 n), 4e-5
    np.testing.assert_allclose(mean, [rows["y"].mean(), slope], rtol=1e-4)
    np.testing.assert_allclose(sd[0], sorted_files.NOISE / np.sqrt(1_000), rtol=1e-4)
