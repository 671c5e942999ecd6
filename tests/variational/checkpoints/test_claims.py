# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A folder of checkpoints is one fit's: another is refused before its first step, or at its next save."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from pathlib import Path
from typing import Any

import pytensor
import pytest

from pymc.variational.checkpoints.claims import (
    CLAIM,
    Claim,
    check_claim,
    check_place,
    claim,
    hold,
)
from pymc.variational.checkpoints.disk import Disk
from pymc.variational.checkpoints.errors import CheckpointSaveError
from pymc.variational.checkpoints.files import write
from pymc.variational.checkpoints.folders import checkpoints, step_folder
from pymc.variational.checkpoints.reading import read_checkpoint
from tests.variational.checkpoints.faults import contents
from tests.variational.checkpoints.test_trainers import (
    load,
    make_model,
    make_trainer,
    open_loader,
)


@pytest.fixture
def dead() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_claim_is_on_the_disk_before_it_counts(tmp_path: Path) -> None:
    done = []

    class Watched(Disk):
        def sync(self, file: int) -> None:
            done.append("file")
            super().sync(file)

        def sync_folder(self, path: Path) -> None:
            done.append(path.name)
            super().sync_folder(path)

    mine = Claim("fit")
    claim(tmp_path / "folder", mine, Watched())
    assert done == ["file", "folder"]
    hold(tmp_path / "folder", mine)


def test_another_fit_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, Claim("one"))
    with pytest.raises(ValueError, match=r"is that of another fit \(process .*remove .*fit\.json"):
        claim(tmp_path, Claim("two"))
    (tmp_path / CLAIM).write_text("")  # one is just being made
    with pytest.raises(ValueError, match="is that of another fit, by the file"):
        claim(tmp_path, Claim("two"))


def test_who_is_faster_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both looked when there was none."""
    from pymc.variational.checkpoints import claims

    other, real = Claim("other"), claims._write

    def late(file: Path, mine: Claim, disk: Disk) -> None:
        real(file, other, disk)
        monkeypatch.undo()
        monkeypatch.setattr(claims.os.path, "lexists", lambda path: False)
        try:
            real(file, mine, disk)
        finally:
            monkeypatch.undo()

    monkeypatch.setattr(claims, "_write", late)
    with pytest.raises(ValueError, match="is that of another fit"):
        claim(tmp_path, Claim("mine"))
    hold(tmp_path, other)


def test_one_that_goes_on_has_it(tmp_path: Path) -> None:
    before, after = Claim("fit"), Claim("fit")
    claim(tmp_path, before)
    claim(tmp_path, after)
    hold(tmp_path, after)
    with pytest.raises(CheckpointSaveError, match=r"now that of process .*goes on with this fit"):
        hold(tmp_path, before)
    assert [path.name for path in tmp_path.iterdir()] == [CLAIM]


@pytest.mark.skipif(os.name != "posix", reason="no way to ask whether a process runs")
def test_of_a_process_that_has_ended(tmp_path: Path, dead: int) -> None:
    """It is in nobody's way where it saved nothing."""
    claim(tmp_path, Claim("dead", pid=dead))
    mine = Claim("mine")
    claim(tmp_path, mine)
    hold(tmp_path, mine)
    claim(tmp_path / "used", Claim("dead", pid=dead))
    write(step_folder(tmp_path / "used", 1), contents(1))
    with pytest.raises(ValueError, match="is that of another fit"):
        check_claim(tmp_path / "used", "mine")
    claim(tmp_path / "far", Claim("dead", pid=dead, host="elsewhere"))
    with pytest.raises(ValueError, match="'elsewhere'"):
        check_claim(tmp_path / "far", "mine")


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    check_place(tmp_path / "new" / "folder")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(NotADirectoryError, match=r"file' is no folder\. Give another"):
            check_place(path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match="cannot be written"):
        check_place(tmp_path / "new")


# By Python, which compiles nothing
@pytest.fixture
def quick() -> Any:
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def two_trainers() -> tuple[Any, Any]:
    model = make_model(open_loader())
    return make_trainer(model=model), make_trainer(model=model)


def saved_by(folder: Path) -> set[Any]:
    return {read_checkpoint(path).values["fit"] for path in checkpoints(folder)}


@pytest.mark.parametrize("n_other", [5, 9])
def test_two_trainers_do_not_mix(tmp_path: Path, quick: Any, n_other: int) -> None:
    first, second = two_trainers()

    def start_the_other(approx: Any, losses: Any, i: int) -> None:
        if i == 1:
            with pytest.raises(ValueError, match="is that of another fit"):
                second.fit(n_other, checkpoint=tmp_path, checkpoint_every=1)

    first.fit(6, checkpoint=tmp_path, checkpoint_every=2, callbacks=[start_the_other])
    assert second.batches_seen == 0
    assert saved_by(tmp_path) == {first._fit_id}


def test_a_fit_that_was_loaded_has_the_folder(tmp_path: Path, quick: Any, dead: int) -> None:
    first, _ = two_trainers()
    first.fit(3, checkpoint=tmp_path)
    file = tmp_path / CLAIM
    file.write_text(json.dumps({**json.loads(file.read_text()), "run": "gone", "pid": dead}))
    again = load(tmp_path, model=first.model)
    again.fit(2, checkpoint=tmp_path)
    assert saved_by(tmp_path) == {first._fit_id}

    def go_on_elsewhere(approx: Any, losses: Any, i: int) -> None:
        if i == 7:
            load(tmp_path).fit(1, checkpoint=tmp_path)

    with pytest.raises(CheckpointSaveError, match="goes on with this fit"):
        again.fit(5, checkpoint=tmp_path, checkpoint_every=4, callbacks=[go_on_elsewhere])
    assert again.batches_seen == 8


def test_a_callback_may_save_too(tmp_path: Path, quick: Any) -> None:
    trainer, _ = two_trainers()
    callbacks = [lambda approx, losses, i: i == 2 and trainer.save(tmp_path)]
    trainer.fit(4, checkpoint=tmp_path, callbacks=callbacks)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["2", "4"]


def test_a_file_is_refused_before_the_first_step(tmp_path: Path, quick: Any) -> None:
    trainer, _ = two_trainers()
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is no folder"):
        trainer.fit(3, checkpoint=tmp_path / "file" / "folder")
    assert trainer.state is None
