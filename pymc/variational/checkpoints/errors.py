# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["CheckpointMismatchError", "CheckpointSaveError", "DamagedCheckpointError"]


class DamagedCheckpointError(ValueError):
    """A checkpoint is not what was written: nothing of it was used.

    Parameters
    ----------
    file : Path
    problem : str
        What is wrong with it.
    before : Path, optional
        A checkpoint from earlier steps that is whole.
    """

    def __init__(self, file: Path, problem: str, before: Path | None = None) -> None:
        self.file, self.problem, self.before = file, problem, before
        message = f"{file} of a checkpoint is damaged: {problem}. Nothing of it was used."
        if before is not None:
            message += f" The one before it is whole: load {str(before)!r}."
        super().__init__(message)

    def offering(self, before: Path | None) -> DamagedCheckpointError:
        """Say the same, and which checkpoint there is in its place."""
        return DamagedCheckpointError(self.file, self.problem, before)


class CheckpointMismatchError(ValueError):
    """The checkpoint belongs to another fit.

    Parameters
    ----------
    path : Path
    differences : sequence of str
        One line for each, with both sides.
    """

    def __init__(self, path: Path, differences: Sequence[str]) -> None:
        self.path, self.differences = path, tuple(differences)
        lines = "\n".join(f"  {line}" for line in differences)
        super().__init__(
            f"The checkpoint {str(path)!r} is of another fit than the one it is loaded for:\n{lines}\n"
            "Give the model, the data and the arguments that it was saved with."
        )


class CheckpointSaveError(OSError):
    """A checkpoint could not be written; earlier ones, and the fit, are as they were."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> CheckpointSaveError:
        """Say what the error was about."""
        return cls(
            error.errno,
            f"The checkpoint {str(path)!r} could not be written: {error.strerror or error}. Earlier "
            "checkpoints are as they were, and the fit keeps all its steps: save it elsewhere, or "
            "make room and save it again",
        )
