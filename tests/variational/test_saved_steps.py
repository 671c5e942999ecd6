# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A step whose loop lies in the cache on disk is not rewritten and compiled again."""

import json
import pickle
import threading

from pathlib import Path

import numpy as np
import pytensor
import pytest

from numba.core import event

import pymc as pm

from pymc.model.core import modelcontext
from pymc.variational.engine import step_cache
from pymc.variational.engine.drivers.quick_compilation import quick_compilation
from pymc.variational.engine.saved_steps import SavedStep
from tests.variational.engine import bare_step, counted_compilations, shared

FOLDER = Path(pytensor.config.base_compiledir) / "numba"

# Nobody has compiled steps with this number
UNIQUE = float(np.random.default_rng().uniform())

START = np.array([1.0, 2.0])


def make(start=START):
    x = shared(start)
    return x, bare_step({x: UNIQUE * x}, (x**2).sum(), "NUMBA")


def losses(step):
    return step.driver.run(step.load(), 4).losses.tolist()


@pytest.fixture(scope="module")
def first():
    """The losses of the step that was compiled, and the files that it left."""
    keys = []
    with counted_compilations() as graphs, pytest.MonkeyPatch.context() as patch:
        step_key = step_cache.step_key
        patch.setattr(step_cache, "step_key", lambda *args: keys.append(step_key(*args)) or keys[0])
        _, step = make()
        expected = losses(step)
    assert len(graphs) == len(keys) == 1
    saved = FOLDER / f"pymc_step-{keys[0]}.json"
    loop_key = SavedStep.read(keys[0]).loop_key
    [index], [data] = (list(FOLDER.glob(f"*{loop_key}*.{kind}")) for kind in ("nbi", "nbc"))
    return expected, saved, index, data


@pytest.fixture
def again(first):
    """Return a function that makes the step anew, as in a new process: (steps, functions compiled)."""
    expected, *files = first
    kept = [file.read_bytes() for file in files]

    def count(start=START):
        with counted_compilations() as graphs:
            with event.install_recorder("numba:compile") as compilations:
                _, step = make(start)
                found = losses(step)
        np.testing.assert_array_equal(found, expected)
        assert step.driver.name == "numba"
        return len(graphs), sum(record.is_start for _, record in compilations.buffer)

    yield count
    for file, text in zip(files, kept):
        file.write_bytes(text)


def test_nothing_is_compiled(again):
    assert again() == (0, 0)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[[], 1, 2]", '["a", [0], [[0, 1]], 4]'])
def test_a_broken_file(again, first, text):
    _, saved, *_ = first
    saved.write_text(text)
    n_steps, n_functions = again()
    assert (n_steps, n_functions) == (1, 0)
    assert again() == (0, 0)  # it was written anew


def test_a_step_of_another_number_of_inputs(again, first):
    _, saved, *_ = first
    saved.write_text('["a", [0, 1], [[0, 1]]]')
    assert again() == (1, 0)


def test_the_loop_is_gone(again, first):
    _, _, index, data = first
    index.unlink()
    data.unlink()
    n_steps, n_functions = again()
    assert n_steps == 1
    assert n_functions >= 1
    assert again() == (0, 0)


@pytest.mark.parametrize("k", [2, 3], ids=["index", "data"])
def test_a_broken_loop(again, first, k):
    first[k].write_bytes(first[k].read_bytes()[:40])
    n_steps, n_functions = again()
    assert n_steps == 1
    assert n_functions >= 1
    assert again() == (0, 0)


def test_an_older_numba(again, first):
    """The index of another version has nothing for this one."""
    first[2].write_bytes(pickle.dumps("0.1") + b"...")
    assert again()[0] == 1


def test_the_cache_cannot_be_written(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr("pymc.variational.engine.saved_steps._file", lambda key: file / "x.json")
    SavedStep("loop", (0,), {0: 1}).write("key")
    assert SavedStep.read("key") is None
    assert list(tmp_path.iterdir()) == [file]


def test_the_disk_is_full(monkeypatch, tmp_path):
    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(
        "pymc.variational.engine.saved_steps._file", lambda key: tmp_path / "x.json"
    )
    monkeypatch.setattr("pymc.variational.engine.saved_steps.os.replace", fail)
    SavedStep("loop", (0,), {0: 1}).write("key")
    assert list(tmp_path.iterdir()) == []


def test_values_of_other_types(first):
    """What the loop in the cache does not take is compiled when it is there."""
    with counted_compilations() as graphs:
        x, step = make()
        assert graphs == []
        x.set_value(np.arange(4.0)[::2], borrow=True)
        assert losses(step) == pytest.approx([4 * UNIQUE ** (2 * k) for k in range(4)])
    assert len(graphs) == 1


@pytest.fixture
def late(again, first, monkeypatch):
    """Return a function that returns a step which calls `spy` before it is compiled for other values."""

    def of(spy):
        with counted_compilations():
            x, step = make()
        for file in first[2:]:
            file.unlink()
        compile_step = step_cache.compile_step
        monkeypatch.setattr(step_cache, "compile_step", lambda *args: spy() or compile_step(*args))
        x.set_value(np.arange(4.0)[::2], borrow=True)
        return step

    return of


def test_other_threads_compile_meanwhile(late):
    """One that makes a step waits for Numba's lock, which is not held by one that waits to make a step."""
    done = threading.Event()

    def compile_another():
        with quick_compilation():
            done.set()

    def spy():
        threading.Thread(target=compile_another).start()
        assert done.wait(10)

    losses(late(spy))
    assert done.is_set()


def test_compiled_late_with_the_same_settings(late):
    found = []

    def spy():
        found.append((modelcontext(None).check_bounds, pytensor.config.floatX))

    step = late(spy)
    before = pytensor.config.floatX
    with pytensor.config.change_flags(floatX="float32"), pm.Model(check_bounds=False):
        losses(step)
    assert found == [(True, before)]


def test_a_loop_under_another_key(again, first):
    """The entry is written anew, so that the next process finds the loop."""
    _, saved, *_ = first
    entry = json.loads(saved.read_text())
    saved.write_text(json.dumps(["0" * 64, *entry[1:]]))
    assert again()[0] == 1
    assert again() == (0, 0)


def test_pickled(first):
    with counted_compilations():
        _, step = make()
    driver = pickle.loads(pickle.dumps(step.driver))
    assert driver.run(step.load(), 4).losses.tolist() == first[0]
