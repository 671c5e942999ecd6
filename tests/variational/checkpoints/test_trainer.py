# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A streamed fit that was stopped and loaded is the one that was never stopped, bit for bit."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational.checkpoints import trainer as checkpoints_trainer
from pymc.variational.checkpoints.identity import model_identity
from pymc.variational.checkpoints.store import (
    CheckpointMismatchError,
    CheckpointSaveError,
    DamagedCheckpointError,
    list_checkpoints,
    read,
    step_folder,
    write,
)
from pymc.variational.checkpoints.trainer import CheckpointCallback
from pymc.variational.engine import step_cache
from pymc.variational.engine.step import host_value
from tests.variational.checkpoints.faults import FAULTS, SOAK, faulty_disk
from tests.variational.engine import BACKENDS, JAX_COPIES

ROWS = np.random.default_rng(1).normal([2, -1], 1, size=(230, 2))

pytestmark = pytest.mark.filterwarnings(JAX_COPIES)


def open_loader(rows: np.ndarray = ROWS, **kwargs: Any) -> Any:
    options = {"batch_size": 20, "shuffle": True, "buffer_size": 50, "seed": 1}
    return pm.DataLoader(rows, **{**options, **kwargs})


def make_model(loader: Any, prior: float = 10.0, local: bool = False) -> pm.Model:
    with pm.Model() as model:
        batch = pm.Data("batch", loader, dims=("obs", "column"))
        mu = pm.Normal("mu", 0, prior, shape=2)
        shift = pm.Normal("z", 0, 1, dims="obs")[:, None] if local else 0.0
        pm.Normal("y", mu + shift, 1, observed=batch, dims=("obs", "column"))
    return model


def make_trainer(loader: Any = None, local: bool = False, **kwargs: Any) -> Any:
    loader = open_loader() if loader is None else loader
    options = {"obj_optimizer": pm.adam(learning_rate=0.05), "random_seed": 1, "progressbar": False}
    if "model" not in kwargs:
        options["model"] = make_model(loader, local=local)
    return pm.Trainer(dataloader=loader, **{**options, **kwargs})


def load(path: Path, loader: Any = None, local: bool = False, **kwargs: Any) -> Any:
    loader = open_loader() if loader is None else loader
    if "model" not in kwargs:
        kwargs["model"] = make_model(loader, local=local)
    return pm.Trainer.load(path, dataloader=loader, progressbar=False, **kwargs)


def as_bytes(trainer: Any) -> dict[str, Any]:
    """All that a fit goes on from, as bytes and texts."""
    values = [host_value(var) for var in trainer.state.step.inputs]
    return {
        "hist": trainer.hist.tobytes(),
        "state": [
            value.tobytes() if isinstance(value, np.ndarray) else str(value.bit_generator.state)
            for value in values
        ],
        "position": trainer.position,
        "batches_seen": trainer.batches_seen,
        "rng": str(trainer.approx.rng.get_state()),
        "losses": {k: v.tobytes() for k, v in getattr(trainer.approx, "guide_losses", {}).items()},
        "n_steps": trainer.approx.report.n_steps,
    }


# By Python, which compiles nothing: all but what is about a backend
@pytest.fixture
def quick() -> Any:
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_bit_for_bit(tmp_path, backend):
    """Saved three times in a pass of 11.5 batches, at its very end, and in the next one.

    All trainers are of one model, for which a step is compiled once, and have loaders of their own.
    """
    model = make_model(open_loader())
    whole = make_trainer(model=model, backend=backend)
    whole.fit(30)
    stopped = make_trainer(model=model, backend=backend)
    for n in (3, 2, 4, 14, 1):  # the second pass ends with batch 23
        stopped.fit(n)
        stopped.save(tmp_path)
        stopped = load(tmp_path, model=model)
    stopped.fit(6)
    assert stopped.position.epoch == 2
    assert as_bytes(stopped) == as_bytes(whole)
    assert [path.name[-2:] for path in list_checkpoints(tmp_path)] == ["03", "05", "09", "23", "24"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kwargs",
    [
        {"average": 0.5, "method": "fullrank_advi"},
        {"local": True},
        {"local": True, "average": 0.5, "obj_optimizer": pm.rmsprop(learning_rate=0.02)},
        {"method": "svgd"},
        {"obj_optimizer": pm.sgd(learning_rate=pm.variational.schedules.cosine_decay(0.01, 30))},
        {"local": True, "objective": pm.ReweightedWakeSleep(), "n_particles": 2},
    ],
    ids=["average", "rows", "rows average", "svgd", "schedule", "rws"],
)
def test_what_a_checkpoint_in_the_midst_of_a_fit_goes_on_from(tmp_path, quick, kwargs):
    local = kwargs.get("local", False)
    whole = make_trainer(**kwargs)
    whole.fit(20)
    stopped = make_trainer(**kwargs)
    stopped.fit(20, checkpoint=tmp_path, checkpoint_every=8)
    again = load(tmp_path / "step-000000008", local=local)
    assert again.batches_seen == 8
    again.fit(12, checkpoint=None)
    assert as_bytes(again) == as_bytes(whole) == as_bytes(stopped)


def steps_in(folder: Path) -> list[int]:
    return [int(path.name[-9:]) for path in list_checkpoints(folder)]


class Killed(BaseException):
    """The process is gone: nothing more is written."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    def callback(approx: Any, losses: np.ndarray, i: int) -> None:
        if i == step:
            monkeypatch.setattr(CheckpointCallback, "__call__", lambda *_: None)
            raise Killed("gone")

    return callback


def test_a_fit_that_goes_on_writes_checkpoints(tmp_path, quick):
    """Killed twice, gone on with twice: the second kill costs no more than the first."""
    loader = open_loader()
    model = make_model(loader)
    whole = make_trainer(loader, model=model)
    whole.fit(30)
    trainer = make_trainer(loader, model=model)
    for kill, last, there in ((11, 8, [4, 8]), (22, 20, [12, 16, 20])):
        arguments = {"checkpoint": tmp_path, "checkpoint_every": 4} if kill == 11 else {}
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed, match="gone"):
            trainer.fit(30 - trainer.batches_seen, callbacks=[kill_at(kill, patch)], **arguments)
        assert steps_in(tmp_path) == there
        trainer = load(tmp_path, loader, model=model)
        assert trainer.batches_seen == last
    trainer.fit(10)
    assert as_bytes(trainer) == as_bytes(whole)
    assert steps_in(tmp_path) == [24, 28, 30]


def test_where_a_fit_goes_on_is_its_users_choice(tmp_path, quick):
    """Each argument that is given counts, for later calls too, and the others stay as they were."""
    folder, other = tmp_path / "fits", tmp_path / "other"
    loader = open_loader()
    model = make_model(loader)
    make_trainer(loader, model=model).fit(4, checkpoint=folder, checkpoint_every=2, keep=50)

    def go_on(from_: Path = folder, **kwargs: Any) -> Any:
        return load(from_, loader, model=model, **kwargs)

    go_on().fit(3, checkpoint=None)
    go_on(checkpoint=None).fit(3)
    assert steps_in(folder) == [2, 4]
    trainer = go_on()
    trainer.fit(2, checkpoint_every=1)
    trainer.fit(2)
    trainer.refine(1)
    assert steps_in(folder) == [2, 4, 5, 6, 7, 8, 9]
    trainer.fit(3, checkpoint=other)
    trainer.fit(2, checkpoint=None)
    trainer.fit(2)
    assert steps_in(other) == [10, 11, 12]
    go_on(checkpoint=tmp_path / "third", checkpoint_every=6).fit(5)
    assert steps_in(tmp_path / "third") == [12, 14]
    go_on(checkpoint_every=5).fit(2)
    assert steps_in(folder)[-2:] == [10, 11]
    with pytest.raises(TypeError, match=r"keep=2 of Trainer\.fit need a folder"):
        go_on().fit(2, checkpoint=None, keep=2)


def test_what_was_saved_by_hand_is_left_alone(tmp_path, quick):
    """Who saves by hand keeps all, and says when; in the folder of the fit it is one of the fit's."""
    trainer = make_trainer()
    trainer.fit(3, checkpoint=tmp_path / "fits", keep=1)
    trainer.save(tmp_path / "mine")
    load(tmp_path / "mine").fit(2)
    assert steps_in(tmp_path / "mine") == [3]
    trainer.refine(1)
    trainer.save(tmp_path / "fits")
    load(tmp_path / "fits").fit(2)
    assert steps_in(tmp_path / "fits") == [6]


def test_a_folder_that_a_fit_cannot_go_on_in(tmp_path, quick):
    """It was no error to go on without checkpoints, but nobody may think that there are some."""
    make_trainer().fit(4, checkpoint=tmp_path / "fits", checkpoint_every=2)
    earlier = load(tmp_path / "fits" / "step-000000002")
    with pytest.warns(
        UserWarning, match=r"writes no checkpoints. .*step-000000004.* checkpoint=None"
    ):
        earlier.fit(1)
    best = shutil.copytree(tmp_path / "fits" / "step-000000004", tmp_path / "best")
    with pytest.warns(UserWarning, match=r"writes no checkpoints. .*in no folder of checkpoints"):
        load(best).fit(1)
    assert steps_in(tmp_path / "fits") == [2, 4]


def test_an_archive_of_checkpoints_stays(tmp_path, quick):
    """Copies of single checkpoints are nobody's to remove; `keep` counts what the fit itself wrote there."""
    loader = open_loader()
    model = make_model(loader)
    fits, archive = tmp_path / "fits", tmp_path / "archive"
    trainer = make_trainer(loader, model=model)
    for n in (1, 2, 3):
        trainer.fit(1, checkpoint=fits, keep=1)
        name = f"step-00000000{n}"
        shutil.copytree(fits / name, archive / name)
    again = load(archive, loader, model=model)
    with pytest.warns(UserWarning, match=r"writes no checkpoints. .*archive.*no file \.fit\.json"):
        again.fit(2)
    assert steps_in(archive) == [1, 2, 3]
    again.fit(2, checkpoint=archive, checkpoint_every=1)
    assert steps_in(archive) == [1, 2, 3, 7]
    load(archive, loader, model=model).fit(2)  # it has its file now
    assert steps_in(archive) == [1, 2, 3, 9]
    make_trainer(loader, model=model).fit(8, checkpoint=tmp_path / "other")
    shutil.copytree(tmp_path / "other" / "step-000000008", archive / "step-000000008")
    load(archive, loader, model=model).fit(1)
    assert steps_in(archive) == [1, 2, 3, 8, 10]


def test_an_average_goes_on_after_a_stop(tmp_path, quick):
    def stop(approx: Any, losses: np.ndarray, i: int) -> None:
        if i == 13:
            raise StopIteration

    whole = make_trainer(average=0.5)
    whole.fit(20)
    make_trainer(average=0.5).fit(20, checkpoint=tmp_path, callbacks=[stop])
    again = load(tmp_path)
    again.fit(7)
    assert as_bytes(again) == as_bytes(whole)


@pytest.mark.parametrize("at", [7, 13])
def test_an_average_goes_on_after_an_error(tmp_path, quick, at):
    """In memory, and saved by hand; before the part that is averaged, and in it."""

    def fail(approx: Any, losses: np.ndarray, i: int) -> None:
        if i == at:
            raise ZeroDivisionError("mine")

    loader = open_loader()
    model = make_model(loader)
    whole = make_trainer(loader, model=model, average=0.5)
    whole.fit(20)
    stopped = make_trainer(loader, model=model, average=0.5)
    with pytest.raises(ZeroDivisionError, match="mine"):
        stopped.fit(20, callbacks=[fail])
    again = load(stopped.save(tmp_path), loader, model=model)
    for trainer in (again, stopped):
        trainer.fit(20 - at, callbacks=[])
        assert as_bytes(trainer) == as_bytes(whole)


@pytest.mark.parametrize("given", [{"random_seed": 5}, {"start": {}, "start_sigma": {}}], ids=str)
def test_another_start(saved, quick, given):
    with pytest.raises(TypeError, match=f"Trainer.load takes no {', '.join(given)}: .*Leave it"):
        load(saved, **given)


def test_a_table_stays_in_its_memory(tmp_path, quick):
    trainer = make_trainer(local=True)
    trainer.fit(3)
    again = load(trainer.save(tmp_path), local=True)
    [table] = again.approx.storage.tables.values()
    assert table.shared.get_value(borrow=True).ctypes.data % 64 == 0


def test_what_stays_the_same_is_computed_once(tmp_path, quick, monkeypatch):
    """The hashes of model and step take longer than all else of a checkpoint; only dims may change."""
    loader = open_loader()
    with make_model(loader) as model:
        pm.Data("extra", np.zeros(2), dims="place", coords={"place": ["a", "b"]})
    calls = []
    for name in ("model_identity", "graph_hash"):
        function = getattr(checkpoints_trainer, name)

        def counted(*args, function=function, name=name):
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(checkpoints_trainer, name, counted)
    trainer = make_trainer(loader, model=model)
    trainer.fit(2)
    first = trainer.save(tmp_path)
    pm.set_data({"extra": np.zeros(1)}, model=model, coords={"place": ["c"]})
    trainer.refine(1)
    identities = [read(path).contents["model"] for path in (first, trainer.save(tmp_path))]
    assert sorted(calls) == ["graph_hash", "model_identity"]
    assert identities[1] == model_identity(model) != identities[0]
    trainer.fit(1, obj_optimizer=pm.sgd)  # another step
    trainer.save(tmp_path)
    assert sorted(calls) == ["graph_hash"] * 2 + ["model_identity"] * 2


def test_a_step_that_was_compiled_for_another_model(tmp_path, quick, monkeypatch):
    """The process that goes on does not know of the data of the other model."""
    monkeypatch.setattr(step_cache, "_compiled", WeakKeyDictionary())
    loader = open_loader()
    with pm.Model() as other:
        batch = pm.Data("other_name", loader, dims=("obs", "column"))
        mu = pm.Normal("mu", 0, 10.0, shape=2)
        pm.Normal("y", mu + 0.0, 1, observed=batch, dims=("obs", "column"))
    first, second = make_trainer(loader, model=other), make_trainer(loader)
    for trainer in (first, second):
        trainer.fit(1)
    assert first.state.step.graph is second.state.step.graph
    second.save(tmp_path)
    monkeypatch.setattr(step_cache, "_compiled", WeakKeyDictionary())
    assert load(tmp_path).batches_seen == 1


def test_the_last_are_kept(tmp_path, quick):
    make_trainer().fit(9, checkpoint=tmp_path, checkpoint_every=2, keep=2)
    assert [path.name[-2:] for path in list_checkpoints(tmp_path)] == ["08", "09"]


def test_an_exception_of_a_callback_is_saved_too(tmp_path, quick):
    def fail(approx: Any, losses: np.ndarray, i: int) -> None:
        if i == 5:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        make_trainer().fit(9, checkpoint=tmp_path, callbacks=[fail])
    assert load(tmp_path).batches_seen == 5


def test_users_callbacks_come_first(tmp_path, quick):
    """What they set at a step is in its checkpoint."""

    def set_mean(approx: Any, losses: np.ndarray, i: int) -> None:
        approx.params[0].set_value(np.full(2, float(i)))

    make_trainer().fit(4, checkpoint=tmp_path, checkpoint_every=2, callbacks=[set_mean])
    again = load(tmp_path / "step-000000002")
    np.testing.assert_array_equal(again.approx.params[0].get_value(), [2.0, 2.0])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_full_disk(tmp_path, quick, fault):
    trainer = make_trainer()
    trainer.fit(4, checkpoint=tmp_path)
    with (
        faulty_disk(3, FAULTS[fault], later_too=True),
        pytest.raises(CheckpointSaveError, match="Earlier checkpoints are as they were"),
    ):
        trainer.fit(6, checkpoint=tmp_path, checkpoint_every=3)
    assert trainer.batches_seen == len(trainer.hist) == 6  # all up to the step of the checkpoint
    again = load(tmp_path)
    assert again.batches_seen == 4
    again.fit(2)
    assert as_bytes(again) == as_bytes(trainer)
    trainer.save(tmp_path / "elsewhere")
    assert load(tmp_path / "elsewhere").batches_seen == 6


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        trainer = make_trainer(obj_n_mc=2)
        trainer.fit(3)
        return trainer.save(tmp_path_factory.mktemp("saved"))


@pytest.mark.parametrize(
    "options, line",
    [
        ({"loader": open_loader(seed=2)}, "loader, seed: 1 in the checkpoint, 2 now"),
        ({"loader": open_loader(ROWS[:-1])}, "loader, n_rows: 230 in the checkpoint, 229 now"),
        (
            {"loader": open_loader(batch_size=10)},
            "loader, batch_size: 20 in the checkpoint, 10 now",
        ),
        (
            {"loader": open_loader(ROWS.astype("float32"))},
            "loader, schema: .*float64.* in the checkpoint, .*float32.* now",
        ),
        ({"local": True}, "model, variables, z: none in the checkpoint, .Normal.0, 1., free"),
        ({"obj_n_mc": 3}, "obj_n_mc: 2 in the checkpoint, 3 now"),
        ({"method": "fullrank_advi"}, "method: 'advi' in the checkpoint, 'fullrank_advi' now"),
        ({"obj_optimizer": pm.adam()}, "obj_optimizer: .*0.05.* in the checkpoint, .*0.001.* now"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_fit(saved, quick, options, line):
    with pytest.raises(CheckpointMismatchError, match=line):
        load(saved, **options)


def test_another_constant_in_the_model(saved, quick):
    loader = open_loader()
    with pytest.raises(
        CheckpointMismatchError,
        match=r"mu: 'Normal\(0, 10\), .*checkpoint, 'Normal\(0, 9\), .* now",
    ):
        pm.Trainer.load(saved, dataloader=loader, model=make_model(loader, prior=9.0))
    with pytest.raises(
        CheckpointMismatchError, match=r"graph of mu: it has another hash .*a number beyond"
    ):
        pm.Trainer.load(saved, dataloader=loader, model=make_model(loader, prior=10.001))


def test_another_expression_of_the_same_operations():
    """The hash of a graph has its edges."""
    hashes = set()
    for expression in (
        lambda a, b: (a - b) * b - a * (a - b),
        lambda a, b: (a - b) * a - b * (a - b),
    ):
        with pm.Model() as model:
            pm.Potential("term", expression(pm.Normal("a"), pm.Normal("b")))
        hashes.add(model_identity(model)["graphs"]["term"])
    assert len(hashes) == 2


def test_another_backend(saved, quick):
    with pytensor.config.change_flags(floatX="float32"):
        with pytest.raises(
            CheckpointMismatchError, match=r"float64.* in the checkpoint, .*float32"
        ):
            load(saved, loader=open_loader(ROWS))


def test_a_function_of_ones_own_is_given_again(tmp_path, quick):
    def mine(gradients: Any, params: Any) -> Any:
        return pm.sgd(gradients, params, learning_rate=0.01)

    trainer = make_trainer(obj_optimizer=mine)
    trainer.fit(3)
    path = trainer.save(tmp_path)
    with pytest.raises(CheckpointMismatchError, match=r"mine.*none now: give obj_optimizer= again"):
        load(path)
    assert load(path, obj_optimizer=mine).batches_seen == 3

    def other(gradients: Any, params: Any) -> Any:
        return pm.sgd(gradients, params, learning_rate=0.02)

    with pytest.raises(CheckpointMismatchError, match=r"obj_optimizer: .*mine.*other"):
        load(path, obj_optimizer=other)

    def uphill(gradients: Any, params: Any) -> Any:
        return pm.sgd([-gradient for gradient in gradients], params, learning_rate=0.01)

    uphill.__qualname__ = mine.__qualname__
    with pytest.raises(CheckpointMismatchError, match=r"step, graph: .* A function of yours may"):
        load(path, obj_optimizer=uphill)


def test_folders_of_other_fits(saved, quick):
    with pytest.raises(
        ValueError, match="has the checkpoint step-000000003, and this fit is at step 0"
    ):
        make_trainer().fit(9, checkpoint=saved.parent)
    trainer = make_trainer()
    trainer.fit(3)
    with pytest.raises(ValueError, match="has checkpoints of another fit"):
        trainer.save(saved.parent)
    assert len(list_checkpoints(saved.parent)) == 1


@pytest.mark.parametrize(
    "kwargs, error, message",
    [
        ({"checkpoint_every": 5}, TypeError, "need a folder"),
        ({"keep": 5}, TypeError, "need a folder"),
        ({"checkpoint": 5}, TypeError, "has to be a folder"),
        ({"checkpoint": "x", "checkpoint_every": 0}, ValueError, "checkpoint_every"),
        ({"checkpoint": "x", "checkpoint_every": 2.5}, TypeError, "checkpoint_every"),
        ({"checkpoint": "x", "keep": 0}, ValueError, "keep"),
        ({"checkpoint": "x", "keep": True}, TypeError, "keep"),
    ],
)
def test_arguments(quick, kwargs, error, message):
    trainer = make_trainer()
    with pytest.raises(error, match=message):
        trainer.fit(3, **kwargs)
    assert trainer.state is None


def test_nothing_to_save(tmp_path):
    with pytest.raises(TypeError, match=r"Need to call `.fit` first"):
        make_trainer().save(tmp_path)


def test_of_another_kind(tmp_path, saved, quick):
    trainer = make_trainer()
    trainer.fit(2)
    path = trainer.approx.save(tmp_path / "approx")
    with pytest.raises(CheckpointMismatchError, match="'approximation' in the checkpoint"):
        load(path)
    with pytest.raises(CheckpointMismatchError, match="kind: 'trainer' in the checkpoint"):
        pm.load_approximation(saved, model=make_model(open_loader()))


def test_a_damaged_one_offers_the_one_before(tmp_path, quick):
    make_trainer().fit(4, checkpoint=tmp_path, checkpoint_every=2)
    file = tmp_path / "step-000000004" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedCheckpointError, match="The checkpoint before it is whole") as caught:
        load(tmp_path)
    assert caught.value.before is not None
    assert load(caught.value.before).batches_seen == 2


PROCESS = """
import sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from tests.variational.checkpoints.test_trainer import load, make_trainer, pytensor

def slow(approx, losses, i):
    time.sleep(0.002)

pytensor.config.mode = "FAST_COMPILE"
folder, n = Path(sys.argv[1]), int(sys.argv[2])
if folder.exists():  # which it goes on in by itself
    trainer, where = load(folder, callbacks=[slow]), {}
else:
    trainer, where = make_trainer(callbacks=[slow]), {"checkpoint": folder, "checkpoint_every": 7}
trainer.fit(n - trainer.batches_seen, **where)
"""


@pytest.mark.slow
def test_a_process_that_is_killed(tmp_path, quick):
    """Killed at random, gone on with in another process, and ended in this one."""
    rng, folder, n = np.random.default_rng(1), tmp_path / "fit", 1_000_000
    for _ in range(100 if SOAK else 2):
        before = list_checkpoints(folder)[-1].name if folder.exists() else ""
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder), str(n)],
            cwd=Path(__file__).parents[3],
        )
        while (
            not folder.exists()
            or not list_checkpoints(folder)
            or list_checkpoints(folder)[-1].name <= before
        ):
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    again = load(folder)
    assert 0 < again.batches_seen <= n
    n = again.batches_seen + 5
    again.fit(5)
    whole = make_trainer()
    whole.fit(n)
    assert as_bytes(again) == as_bytes(whole)


@pytest.mark.parametrize(
    "entry, value, problem",
    [
        ("i", "6", "Expected `int`, got `str` - at `$.i`"),
        ("i", 2.5, "Expected `int`, got `float` - at `$.i`"),
        ("batches_seen", None, "Expected `int`, got `null` - at `$.batches_seen`"),
        ("position", [0, 3], "Expected `object`, got `array` - at `$.position`"),
        ("report", {}, "Object missing required field `method` - at `$.report`"),
        ("versions", None, "Expected `object`, got `null` - at `$.versions`"),
        ("model", {"variables": {"mu": 3}}, "Expected `str`, got `int`"),
    ],
)
def test_an_entry_of_another_type_is_named(saved, tmp_path, quick, entry, value, problem):
    contents = read(saved)
    contents.contents[entry] = value
    with pytest.raises(DamagedCheckpointError, match=re.escape(problem)):
        load(write(tmp_path / saved.name, contents))


@pytest.mark.parametrize("copied", [shutil.copytree, shutil.move])
def test_the_name_of_another_step(
    saved: Path, quick: Any, tmp_path: Path, copied: Callable[[Path, Path], Any]
) -> None:
    shutil.copytree(saved, tmp_path / saved.name)
    path = step_folder(tmp_path, 7)
    copied(tmp_path / saved.name, path)
    for given in (path, tmp_path):
        with pytest.raises(
            DamagedCheckpointError, match=r"has the name of step 7, and is of step 3"
        ):
            load(given)
    path.rename(tmp_path / "best")
    assert load(tmp_path / "best").batches_seen == 3
