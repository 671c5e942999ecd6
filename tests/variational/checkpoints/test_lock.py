# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A folder of checkpoints belongs to one fit: another is refused before its first step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from pathlib import Path
from typing import Any

import pytensor
import pytest

from pymc.variational.checkpoints import lock
from pymc.variational.checkpoints.lock import (
    OWNER,
    FolderOwner,
    check_writable,
    folder_owner,
    lock_folder,
)
from pymc.variational.checkpoints.store import list_checkpoints, read, step_folder, write
from tests.variational.checkpoints.faults import contents
from tests.variational.checkpoints.test_trainer import (
    load,
    make_model,
    make_trainer,
    open_loader,
)


def test_the_owner_is_on_the_disk_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def watched(path: Path, text: bytes) -> None:
        done.append(path.name)
        real(path, text)

    real = lock.write_file
    monkeypatch.setattr(lock, "write_file", watched)
    with lock_folder(tmp_path / "folder", "fit", 0):
        assert done == [f"{OWNER}.partial"]
        assert folder_owner(tmp_path / "folder") == FolderOwner("fit", -1)
    (tmp_path / "folder" / OWNER).write_text("damaged")
    assert folder_owner(tmp_path / "folder") is None


def test_another_fit_is_refused_while_one_runs(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "one", 0):
        for fit in ("two", "one"):
            with pytest.raises(ValueError, match="is in use by another fit, which saves"):
                with lock_folder(tmp_path, fit, 0):
                    raise AssertionError
    with lock_folder(tmp_path, "two", 0):  # as nothing was saved
        assert folder_owner(tmp_path) == FolderOwner("two", -1)


def test_steps_that_were_there_before(tmp_path: Path) -> None:
    checkpoint = contents(1)
    checkpoint.contents["fit"] = "fit"
    write(step_folder(tmp_path, 1), checkpoint)
    for _ in range(2):
        with lock_folder(tmp_path, "fit", 1):
            assert folder_owner(tmp_path) == FolderOwner("fit", 1)
        (tmp_path / OWNER).unlink()


LOCKING = """
import sys, time
from pathlib import Path
from pymc.variational.checkpoints.lock import lock_folder

with lock_folder(Path(sys.argv[1]), "fit", 0):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_process_that_was_killed_has_no_lock(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", LOCKING, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match="is in use by another fit"):
            with lock_folder(tmp_path, "other", 0):
                raise AssertionError
        process.kill()
        assert process.wait() == -signal.SIGKILL
    with lock_folder(tmp_path, "other", 0):
        assert folder_owner(tmp_path) == FolderOwner("other", -1)


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    check_writable(tmp_path / "new" / "folder")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(NotADirectoryError, match=r"file' is not a folder\. Give another"):
            check_writable(path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match="cannot be written"):
        check_writable(tmp_path / "new")


# By Python, which compiles nothing
@pytest.fixture
def quick() -> Any:
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def two_trainers() -> tuple[Any, Any]:
    model = make_model(open_loader())
    return make_trainer(model=model), make_trainer(model=model)


def saved_by(folder: Path) -> set[Any]:
    return {read(path).contents["fit"] for path in list_checkpoints(folder)}


@pytest.mark.parametrize("n_other", [5, 9])
def test_two_trainers_do_not_mix(tmp_path: Path, quick: Any, n_other: int) -> None:
    first, second = two_trainers()

    def start_the_other(approx: Any, losses: Any, i: int) -> None:
        if i == 1:
            with pytest.raises(ValueError, match="is in use by another fit"):
                second.fit(n_other, checkpoint=tmp_path, checkpoint_every=1)

    first.fit(6, checkpoint=tmp_path, checkpoint_every=2, callbacks=[start_the_other])
    assert second.batches_seen == 0
    assert saved_by(tmp_path) == {first._fit_id}


def test_a_fit_that_was_loaded_has_the_folder(tmp_path: Path, quick: Any) -> None:
    """One that goes on from the same checkpoint meanwhile is refused before its first step."""
    first, _ = two_trainers()
    first.fit(3, checkpoint=tmp_path)
    again = load(tmp_path, model=first.model)
    again.fit(2, checkpoint=tmp_path)
    assert saved_by(tmp_path) == {first._fit_id}

    def go_on_elsewhere(approx: Any, losses: Any, i: int) -> None:
        if i == 7:
            other = load(tmp_path)
            with pytest.raises(ValueError, match="is in use by another fit"):
                other.fit(1)
            assert other.batches_seen == 5

    again.fit(5, checkpoint_every=4, callbacks=[go_on_elsewhere])
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["5", "8", "0"]


def test_a_callback_may_save_too(tmp_path: Path, quick: Any) -> None:
    trainer, _ = two_trainers()

    def save(approx: Any, losses: Any, i: int) -> None:
        if i == 2:
            trainer.save(tmp_path / "other")
            trainer.save(tmp_path)

    trainer.fit(4, checkpoint=tmp_path, callbacks=[save])
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["2", "4"]


def test_a_file_is_refused_before_the_first_step(tmp_path: Path, quick: Any) -> None:
    trainer, _ = two_trainers()
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        trainer.fit(3, checkpoint=tmp_path / "file" / "folder")
    assert trainer.state is None
