# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Values that were made by hand, with hashes that fit, are refused by the name of their entry."""

from __future__ import annotations

import shutil

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytensor
import pytest

import pymc as pm

from pymc.variational.checkpoints.errors import DamagedCheckpointError
from pymc.variational.checkpoints.files import write
from pymc.variational.checkpoints.folders import step_folder
from pymc.variational.checkpoints.reading import read_checkpoint
from tests.variational.checkpoints.test_trainers import (
    load,
    make_model,
    make_trainer,
    open_loader,
)


@pytest.fixture(autouse=True)
def quick() -> Any:
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(open_loader())


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        trainer = make_trainer(model=model)
        trainer.fit(3)
        return trainer.save(tmp_path_factory.mktemp("fit"))


@pytest.fixture(scope="module")
def approximation(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        approx = make_trainer(model=model).fit(3)
        return approx.save(tmp_path_factory.mktemp("approximation") / "saved")


def forged(path: Path, folder: Path, entry: tuple[str, ...], value: Any) -> Path:
    """Write a checkpoint that is like another, but for one entry, and without it where `value` is ..."""
    contents = read_checkpoint(path)
    part: Any = contents.values
    for name in entry[:-1]:
        part = part[name]
    if value is ...:
        del part[entry[-1]]
    else:
        part[entry[-1]] = value
    return write(folder / path.name, contents)


NAN, INFINITY = {"$float": "nan"}, {"$float": "inf"}

OF_FITS = [
    (("i",), NAN),
    (("i",), -5),
    (("i",), "6"),
    (("i",), True),
    (("i",), 1 << 70),
    (("batches_seen",), INFINITY),
    (("batches_seen",), 6.5),
    (("batches_seen",), None),
    (("until",), [1]),
    (("checkpointing",), 5),
    (("checkpointing",), {"every": 5}),
    (("checkpointing",), {"every": 0, "keep": 3}),
    (("checkpointing",), {"every": 5, "keep": None}),
    (("averaged",), {"a": 1}),
    (("position",), ["0", 3]),
    (("position",), [-1, 3]),
    (("position",), [0, 3, 4]),
    (("position",), [0, 10**12]),
    (("position",), None),
    (("fit",), 3),
    (("fit",), ...),
    (("more",), 3),
    (("versions",), None),
    (("model",), []),
    (("model", "variables"), {"mu": 3}),
    (("loader",), 3),
    (("report",), None),
    (("report",), {}),
    (("report", "n_steps"), 2.5),
    (("report", "seconds"), NAN),
    (("report", "settings"), {"a": [1]}),
    (("results",), []),
    (("results", "generators"), []),
    (("results", "generators"), [3]),
    (("results", "include_transformed"), [1]),
    (("results", "hist"), "x"),
    (("results", "guide_losses"), {"a": 1}),
    (("state",), None),
    (("state",), {"mu": 3}),
    (("arguments",), None),
    (("arguments", "model"), 3),
    (("arguments", "method"), {"@made": "os", "arguments": {"@items": []}}),
    (("arguments", "obj_optimizer"), {"@optimizer": "__import__", "arguments": {"@items": []}}),
    (("arguments", "data_name"), {"@items": 5}),
]


def the_entry(entry: tuple[str, ...]) -> str:
    return f"entry '({', '.join(entry)}|{', '.join(entry[:-1])}|{entry[-1]}|report, method)'"


@pytest.mark.parametrize("entry, value", OF_FITS, ids=str)
def test_values_of_fits(
    fit: Path, model: Any, tmp_path: Path, entry: tuple[str, ...], value: Any
) -> None:
    path = forged(fit, tmp_path, entry, value)
    with pytest.raises(DamagedCheckpointError, match=the_entry(entry)):
        load(path, model=model)


OF_APPROXIMATIONS = [
    ("parameters", None),
    ("parameters", {"mu": 3}),
    ("guides", 3),
    ("guides", [{"class": "os"}]),
    ("class", 3),
    ("text", 3),
    ("hist", "x"),
    ("report", 3),
    ("report", {}),
    ("generators", []),
    ("generators", [3]),
]


@pytest.mark.parametrize("name, value", OF_APPROXIMATIONS, ids=str)
def test_values_of_approximations(
    approximation: Path, model: Any, tmp_path: Path, name: str, value: Any
) -> None:
    path = forged(approximation, tmp_path, ("approximation", name), value)
    with pytest.raises(DamagedCheckpointError, match=rf"entry '(approximation, )?{name}"):
        pm.load_approximation(path, model=model)


@pytest.mark.parametrize("entry", ["approximation", "versions", "model"])
def test_parts_of_approximations(
    approximation: Path, model: Any, tmp_path: Path, entry: str
) -> None:
    path = forged(approximation, tmp_path, (entry,), [])
    with pytest.raises(DamagedCheckpointError, match=f"entry '{entry}' is \\[\\], and has to be"):
        pm.load_approximation(path, model=model)


def test_a_class_that_is_none(approximation: Path, model: Any, tmp_path: Path) -> None:
    path = forged(approximation, tmp_path, ("approximation", "class"), "os")
    with pytest.raises(DamagedCheckpointError, match="no approximation"):
        pm.load_approximation(path, model=model)


@pytest.mark.parametrize("copied", [shutil.copytree, shutil.move])
def test_the_name_of_another_step(
    fit: Path, model: Any, tmp_path: Path, copied: Callable[[Path, Path], Any]
) -> None:
    shutil.copytree(fit, tmp_path / fit.name)
    path = step_folder(tmp_path, 7)
    copied(tmp_path / fit.name, path)
    for given in (path, tmp_path):
        with pytest.raises(DamagedCheckpointError, match=r"called after step 7, and is of step 3"):
            load(given, model=model)
    path.rename(tmp_path / "best")
    assert load(tmp_path / "best", model=model).batches_seen == 3
