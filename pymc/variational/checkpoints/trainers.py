# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Streamed fits on the disk: ``trainer.save``, ``Trainer.load``, and checkpoints while a fit runs."""

from __future__ import annotations

import os
import uuid
import warnings

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from pymc.argument_checks import check_int
from pymc.data_loading.base import Loader
from pymc.data_loading.batch import Position
from pymc.variational.checkpoints.claims import (
    Claim,
    check_folder,
    check_own,
    claim,
    hold,
)
from pymc.variational.checkpoints.disk import Disk
from pymc.variational.checkpoints.errors import CheckpointMismatchError
from pymc.variational.checkpoints.files import write
from pymc.variational.checkpoints.fits import load_trainer, trainer_tree
from pymc.variational.checkpoints.folders import is_one, step_folder, step_of
from pymc.variational.checkpoints.reading import read_newest
from pymc.variational.checkpoints.state import pack, unpack
from pymc.variational.engine.loop import LoopEnd
from pymc.variational.fit_options import FitOptions

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Checkpoints", "Plan", "Resumable", "checkpoint_plan", "new_fit_id"]

#: How many checkpoints a fit keeps.
KEEP = 3


class Plan(NamedTuple):
    """Where and how often a fit writes checkpoints.

    Parameters
    ----------
    folder : Path
        Where a checkpoint was loaded that is in no folder of them: that checkpoint.
    every : int, optional
        Steps. None: only when a call of `fit` has ended.
    keep : int
    """

    folder: Path
    every: int | None = None
    keep: int = KEEP


class Resumable:
    """What a trainer does with checkpoints: a mixin of :class:`pymc.Trainer`."""

    _feed: Any
    _fit_id: str
    _arguments: dict[str, Any]
    _plan: Plan | None = None
    dataloader: Loader
    model: Model
    inference: Any
    state: Any
    batches_seen: int
    position: Position
    approx: Any
    prepare: Any

    @cached_property
    def _run_id(self) -> str:
        """Name this trainer, to tell it from others that go on with the same fit."""
        return new_fit_id()

    @property
    def _claim(self) -> Claim:
        return Claim(self._fit_id, self._run_id)

    def _take_plan(self, options: dict[str, Any]) -> Plan | None:
        """Take the arguments about checkpoints out of those of a call of `fit`.

        Returns
        -------
        Plan
            None if this call writes none.

        Raises
        ------
        TypeError, ValueError, OSError
            If one is wrong, or the folder is that of another fit, or is a file, or cannot be written.

        Warns
        -----
        UserWarning
            If no folder is given, and the fit cannot save in the one that it had.
        """
        is_given = options.get("checkpoint") is not None
        plan = checkpoint_plan(self._plan, options)
        if plan is not None:
            if is_given:
                check_folder(self, plan.folder)
            elif not _can_go_on(self, plan.folder):
                return None
        self._plan = plan
        return plan

    def _saver(self, plan: Plan | None) -> Callable[[bool], None]:
        """Return what writes checkpoints of passes over all rows, and at the end."""
        if plan is None:
            return lambda is_end: None
        claim(plan.folder, self._claim)

        def save(is_end: bool) -> None:
            if is_end or self.state.i % (plan.every or 1) == 0:
                save_trainer(self, plan.folder, plan.keep)

        return save

    def save(self, path: str | os.PathLike[str], *, keep: int | None = None) -> Path:
        """Write a checkpoint of the fit as it is.

        Parameters
        ----------
        path : str or path
            A folder of checkpoints of this fit: the new one is ``step-000012345`` in it, by the number of
            steps up to now.
        keep : int, optional
            How many checkpoints stay in the folder, the last ones. Default: all. Those of other fits,
            and those that were there before this fit saved in it, stay in any case.

        Returns
        -------
        Path
            The checkpoint.

        Raises
        ------
        TypeError
            If there was no fit yet, or something in it has no form in a checkpoint.
        ValueError
            If the folder is that of another fit, or has checkpoints of later steps.
        OSError
            If the folder is a file, or the disk is full. Earlier checkpoints and the fit are as they were.
        """
        if self.state is None:
            raise TypeError("Need to call `.fit` first: there is nothing to save.")
        if keep is not None:
            keep = check_int(keep, "keep", "Trainer.save")
        folder = Path(path).absolute()
        check_folder(self, folder)
        claim(folder, self._claim)
        return save_trainer(self, folder, keep)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        dataloader: Any,
        model: Model | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a trainer that goes on from a checkpoint, bit for bit.

        Parameters
        ----------
        path : str or path
            A checkpoint, or a folder of them: its last one.
        dataloader : DataLoader
            Of the same data, with the same arguments.
        model : Model, default the one of the context
            Made by the same code.
        **kwargs
            Arguments of the trainer and of its `fit`. Those of the checkpoint are taken from there: only
            functions of one's own have to be given again. `callbacks` and `progressbar` are as given here.

        Returns
        -------
        Trainer
            Its `fit(n)` takes n more steps: parameters, the optimizer, generators, `hist` and `position`
            go on. The average of ``fit(average=...)`` does too, where `n` are the steps that were left.
            It writes checkpoints into the same folder, as often as the fit before did, where that folder
            has the file ``.fit.json`` of the fit: an archive of single checkpoints is left as it is, with a
            warning. ``fit(n, checkpoint=..., checkpoint_every=...)`` says otherwise, and
            ``checkpoint=None`` writes none.

        Notes
        -----
        It is bit for bit on one machine, with the same versions. So a trainer compiles for Numba without
        `numba__fastmath`: with it, a process that compiled a step itself may have other last bits than one
        that found it in PyTensor's cache of compiled code.

        Raises
        ------
        CheckpointMismatchError
            If model, data or arguments are others: a line for each difference, with both sides.
        DamagedCheckpointError
            If a file is not what was written. It names the checkpoint before, if that is whole.
        FileNotFoundError
            If there is none.

        Warns
        -----
        UserWarning
            If it was written by other versions of the packages that compute.
        """
        found, contents = read_newest(Path(path).absolute())
        tree = unpack(contents, found)
        if tree.get("kind") != "trainer":
            line = f"kind: {tree.get('kind')!r} in the checkpoint, 'trainer' now"
            raise CheckpointMismatchError(found, [f"{line}: use pm.load_approximation"])
        trainer = load_trainer(cls, found, tree, dataloader, model, kwargs)
        if (saved := tree.get("checkpointing")) is not None:
            folder = found if step_of(found) is None else found.parent
            trainer._plan = Plan(folder, saved["every"], saved["keep"])
        return trainer


class Checkpoints:
    """Writes checkpoints in the course of a fit; a callback, and the last one.

    It makes the folder that of the fit, before its first step.

    Parameters
    ----------
    trainer : Trainer
    folder : Path
    every : int, optional
        Steps. Default: only when a call of `fit` has ended.
    keep : int
    until : int
        At which step this call of `fit` is to end.
    disk : Disk, optional
    """

    at_end = True

    def __init__(
        self,
        trainer: Any,
        folder: Path,
        every: int | None,
        keep: int,
        until: int,
        disk: Disk | None = None,
    ) -> None:
        self.trainer, self.folder, self.keep, self.until = trainer, folder, keep, until
        self.every = every or max(until, 1)
        self.disk = disk
        self._end: LoopEnd | None = None
        claim(folder, trainer._claim)

    def tell(self, end: LoopEnd) -> None:
        """Take what the loop has of its steps, before a call that is due."""
        self._end = end

    def __call__(self, approx: Any, losses: np.ndarray | None, i: int) -> None:
        end, self._end = self._end, None
        save_trainer(self.trainer, self.folder, self.keep, end, self.until, self.disk)


def checkpoint_plan(before: Plan | None, options: dict[str, Any]) -> Plan | None:
    """Take the arguments of `fit` about checkpoints out, and check them.

    Parameters
    ----------
    before : Plan, optional
        Of the fit up to now: it holds for what is not given.
    options : dict

    Returns
    -------
    Plan
        None without checkpoints.

    Raises
    ------
    TypeError, ValueError
    """
    names = FitOptions.names("checkpoint")
    given = {name: options.pop(name) for name in names if name in options}
    path, every, keep = map(given.get, names)
    every = None if every is None else check_int(every, "checkpoint_every", "Trainer.fit")
    keep = None if keep is None else check_int(keep, "keep", "Trainer.fit")
    if path is None and ("checkpoint" in given or before is None):
        if every is not None or keep is not None:
            raise TypeError(
                f"checkpoint_every={every!r} and keep={keep!r} of Trainer.fit need a folder: write "
                "checkpoint='folder' too"
            )
        return None
    if path is not None and not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint={path!r} of Trainer.fit has to be a folder, a str or a path")
    plan = before or Plan(Path())
    if path is not None:
        plan = plan._replace(folder=Path(path).absolute())
    if "checkpoint_every" in given:
        plan = plan._replace(every=every)
    return plan if keep is None else plan._replace(keep=keep)


def _can_go_on(trainer: Any, folder: Path) -> bool:
    """Tell whether a fit can save where it did before; warn if not."""
    if is_one(folder):
        problem = "The checkpoint that it goes on from is in no folder of checkpoints"
    else:
        try:
            check_own(trainer, folder)
            return True
        except (OSError, ValueError) as error:
            problem = str(error)
    warnings.warn(
        f"This fit writes no checkpoints. {problem}. Write Trainer.fit(n, checkpoint='folder') with another "
        "folder, or checkpoint=None to have none",
        stacklevel=4,
    )
    return False


def save_trainer(
    trainer: Any,
    folder: Path,
    keep: int | None = None,
    end: LoopEnd | None = None,
    until: int | None = None,
    disk: Disk | None = None,
) -> Path:
    """Write the checkpoint of a step.

    Parameters
    ----------
    trainer : Trainer
    folder : Path
    keep : int, optional
    end : LoopEnd, optional
        Of a call of `fit` that is running: what it has up to now.
    until : int, optional
        At which step that call is to end.
    disk : Disk, optional
    """
    after = hold(folder, trainer._claim).after
    plan = trainer._plan
    often = (
        None if plan is None or plan.folder != folder else {"every": plan.every, "keep": plan.keep}
    )
    contents = pack({**trainer_tree(trainer, end, until), "checkpointing": often})
    path = step_folder(folder, trainer.batches_seen)
    return write(path, contents, keep=keep, disk=disk, owner=trainer._fit_id, after=after)


def new_fit_id() -> str:
    """Name a fit, so that two do not save into one folder."""
    return uuid.uuid4().hex
