# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on the disk: folders with ``state.safetensors`` and ``meta.json``, written whole or not at all.

A checkpoint is written beside its place, synced and renamed, and only then is an older one removed. So a
process may be killed, or a disk be full, at any point: the newest whole checkpoint stays.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import file_digest, sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from numpy.random import (
    MT19937,
    PCG64,
    PCG64DXSM,
    SFC64,
    Generator,
    Philox,
    RandomState,
    SeedSequence,
)

from pymc.variational.local_params.parts import Parts

Schema = TypeVar("Schema")

__all__ = [
    "Checkpoint",
    "CheckpointMismatchError",
    "CheckpointSaveError",
    "DamagedCheckpointError",
    "earlier_checkpoints",
    "import_optional",
    "is_checkpoint",
    "list_checkpoints",
    "load_contents",
    "read",
    "read_meta",
    "read_newest",
    "remove_checkpoints",
    "step_folder",
    "step_of",
    "to_builtins",
    "write",
    "write_file",
]

TENSORS, META = "state.safetensors", "meta.json"

FORMAT = "PyMC checkpoint 3"

#: A file that only checkpoints of earlier formats have.
EARLIER_META = "manifest.json"

WRONG_HASH = "its SHA-256 is not that of the file that was written"

LOADERS = {"trainer": "pm.Trainer.load", "approximation": "pm.load_approximation"}

#: Name of a checkpoint of a step, or of one that is being replaced.
_STEP = re.compile(r"step-(\d{9,18})|\.step-(\d{9,18})\.replaced")


Value = np.ndarray | Generator | RandomState | Parts


class DamagedCheckpointError(ValueError):
    """A checkpoint is not what was written; nothing of it was used.

    Parameters
    ----------
    file : Path
    problem : str
        What is wrong with it.
    before : Path, optional
        An earlier checkpoint that is whole.
    """

    def __init__(self, file: Path, problem: str, before: Path | None = None) -> None:
        self.file, self.problem, self.before = file, problem, before
        message = f"{file} of a checkpoint is damaged: {problem}. Nothing of it was used."
        if before is not None:
            message += f" The checkpoint before it is whole: load {str(before)!r}."
        super().__init__(message)


class CheckpointMismatchError(ValueError):
    """A checkpoint belongs to another fit, or has another format.

    Parameters
    ----------
    path : Path
    differences : sequence of str
        A line for each difference, with both sides.
    advice : str, optional
    """

    def __init__(
        self,
        path: Path,
        differences: Sequence[str],
        advice: str = "Give the model, the data and the arguments that it was saved with.",
    ) -> None:
        self.path, self.differences = path, tuple(differences)
        lines = "\n".join(f"  {line}" for line in differences)
        super().__init__(
            f"The checkpoint {str(path)!r} does not fit to what it is loaded for:\n{lines}\n{advice}"
        )


class CheckpointSaveError(OSError):
    """A checkpoint could not be written; earlier ones, and the fit, are as they were."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> CheckpointSaveError:
        """Return the error for a path, with the reason of the operating system."""
        return cls(
            error.errno,
            f"The checkpoint {str(path)!r} could not be written: {error.strerror or error}. Earlier "
            "checkpoints are as they were, and the fit keeps all its steps: save it elsewhere, or "
            "make room and save it again",
        )


BIT_GENERATORS = {cls.__name__: cls for cls in (MT19937, PCG64, PCG64DXSM, Philox, SFC64)}


@dataclass(frozen=True)
class GeneratorState:
    """State of a NumPy generator, and of the seed sequence from which it spawns children."""

    kind: Literal["Generator", "RandomState"]
    state: dict[str, Any]
    seed: dict[str, Any] | None = None

    @classmethod
    def of(cls, name: str, rng: Generator | RandomState) -> GeneratorState:
        """Return the state of a generator, the bit generator of which has to be one of NumPy's."""
        if isinstance(rng, RandomState):
            result = cls("RandomState", rng.get_state(legacy=False))
        else:
            sequence = rng.bit_generator.seed_seq
            seed = dict(sequence.state) if isinstance(sequence, SeedSequence) else None
            result = cls("Generator", dict(rng.bit_generator.state), seed)
        if (bit_generator := result.state["bit_generator"]) not in BIT_GENERATORS:
            raise TypeError(
                f"A checkpoint cannot hold the generator {name!r} of a {bit_generator}. Use one of "
                f"{', '.join(BIT_GENERATORS)}."
            )
        return result

    def make(self) -> Generator | RandomState:
        """Return a new generator in this state."""
        seed = SeedSequence(0) if self.seed is None else SeedSequence(**self.seed)
        bit_generator: Any = BIT_GENERATORS[self.state["bit_generator"]](seed)
        if self.kind == "RandomState":
            random_state = RandomState(bit_generator)
            random_state.set_state(self.state)
            return random_state
        bit_generator.state = self.state
        return Generator(bit_generator)


@dataclass(frozen=True)
class SavedParts:
    """What `Parts` has, without the numbers."""

    lengths: list[int]
    row_shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class CheckpointFile:
    """All of ``meta.json`` except its checksum."""

    format: str
    tensors_sha256: str
    generators: dict[str, GeneratorState]
    contents: dict[str, Any]  # of an approximation or a trainer, by the class of its contents
    parts: dict[str, SavedParts] = field(default_factory=dict)
    parts_sha256: list[str] = field(default_factory=list)  # a file for the k-th part of each array


class Checkpoint(NamedTuple):
    """Contents in JSON, and arrays and generators."""

    contents: dict[str, Any]
    values: Mapping[str, Value]


def step_folder(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pymc.variational.checkpoints.store import step_folder
    >>> step_folder(Path("fits"), 12345).name
    'step-000012345'
    """
    return folder / f"step-{step:09d}"


def step_of(path: Path) -> int | None:
    """Return the step in the name of a checkpoint, None if it has another name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pymc.variational.checkpoints.store import step_of
    >>> step_of(Path("fits/step-000012345")), step_of(Path("fits/best"))
    (12345, None)
    """
    match = _STEP.fullmatch(path.name)
    return None if match is None else int(match[1] or match[2])


def is_checkpoint(path: Path) -> bool:
    """Return True for a checkpoint, even a damaged one, and False for a folder of checkpoints.

    The name does not tell, as a folder of checkpoints may have the name of one.
    """
    if (path / META).exists() or (path / EARLIER_META).exists():
        return True
    holds_others = path.is_dir() and any((inner / META).exists() for inner in path.glob("*step-*"))
    return step_of(path) is not None and not holds_others


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of steps in a folder, by step."""
    found: dict[int, Path] = {}
    # Hidden names come first: one that was moved to be replaced counts until the new one has its name
    for path in sorted(folder.iterdir()):
        step = step_of(path)
        if step is not None and is_checkpoint(path):
            found[step] = path
    return [found[step] for step in sorted(found)]


def earlier_checkpoints(path: Path) -> list[Path]:
    """Return the checkpoints of earlier steps in the same folder."""
    paths = list_checkpoints(path.parent)
    return paths[: paths.index(path)] if path in paths else []


def write(path: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint to a folder, and return its path.

    Parameters
    ----------
    path : Path
        It is replaced if it exists. The folder above it is made.
    checkpoint : Checkpoint

    Raises
    ------
    CheckpointSaveError
        If it could not be written. Earlier checkpoints are untouched, this path included.
    TypeError
        If a checkpoint cannot hold one of the values.
    """
    tensors, generators, parts = _split(checkpoint.values)
    unfinished = _hidden(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if step_of(path) is not None:
            _clean_up(path.parent)
        _remove(unfinished)
        os.mkdir(unfinished)
        _write_tensors(unfinished / TENSORS, tensors)
        of_tensors = _hash(unfinished / TENSORS)
        saved, of_parts = _write_parts(unfinished, parts)
        file = CheckpointFile(FORMAT, of_tensors, generators, checkpoint.contents, saved, of_parts)
        write_file(unfinished / META, _signed(to_builtins(file)))
        _sync(unfinished)
        _move_into_place(unfinished, path)
    except BaseException as error:  # also Ctrl-C
        _remove(unfinished)
        if isinstance(error, OSError):
            raise CheckpointSaveError.of(path, error) from error
        raise
    return path


def _split(
    values: Mapping[str, Value],
) -> tuple[dict[str, np.ndarray], dict[str, GeneratorState], dict[str, Parts]]:
    """Divide values into arrays, in C order, the states of generators, and arrays in parts."""
    tensors, generators, parts = {}, {}, {}
    for name, value in values.items():
        if isinstance(value, Parts):
            parts[name] = value
            continue
        if isinstance(value, Generator | RandomState):
            generators[name] = GeneratorState.of(name, value)
            continue
        array = np.asarray(value, order="C")
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise TypeError(
                f"A checkpoint cannot hold {name!r}, of type {type(value).__name__} and dtype "
                f"{array.dtype}: it holds generators, and arrays of floats of up to 64 bits, integers "
                "and booleans."
            )
        tensors[name] = array
    return tensors, generators, parts


def _write_parts(
    folder: Path, parts: Mapping[str, Parts]
) -> tuple[dict[str, SavedParts], list[str]]:
    """Write arrays in parts, each part when it is made; return what they are, and a hash of each file."""
    hashes = []
    for k in range(max((len(array.lengths) for array in parts.values()), default=0)):
        made = {name: array.part(k) for name, array in parts.items() if k < len(array.lengths)}
        _write_tensors(_part_file(folder, k), made)
        hashes.append(_hash(_part_file(folder, k)))
    saved = {
        name: SavedParts(list(array.lengths), tuple(array.row_shape), array.dtype.str)
        for name, array in parts.items()
    }
    return saved, hashes


def _part_file(folder: Path, k: int) -> Path:
    return folder / f"part-{k:03d}.safetensors"


def _read_part(folder: Path, name: str, k: int) -> np.ndarray:
    file = _part_file(folder, k)
    try:
        return _tensors(file, [name])[name]
    except OSError as error:
        problem = "it was removed after the checkpoint was loaded, and before the fit began"
        raise DamagedCheckpointError(file, problem) from error


def _tensors(file: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Return arrays of a file by name, all by default."""
    with import_optional("safetensors").safe_open(file, framework="numpy") as tensors:
        return {name: tensors.get_tensor(name) for name in names or tensors.keys()}


def _write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write arrays, without a copy of them, and wait until they are on the disk."""
    safetensors = import_optional("safetensors")
    try:
        import_optional("safetensors.numpy").save_file(tensors, path)
    except safetensors.SafetensorError as error:  # it also stands for errors of the disk
        raise OSError(errno.EIO, str(error)) from error
    _sync(path)


def write_file(path: Path, text: bytes) -> None:
    """Write a small file, and wait until it is on the disk."""
    path.write_bytes(text)
    _sync(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _signed(values: Mapping[str, Any]) -> bytes:
    """Return JSON values as text, with a SHA-256 of the text that they have without it."""
    return _text({**values, "sha256": sha256(_text(values)).hexdigest()})


def _text(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; Windows cannot sync folders."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    file = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _move_into_place(finished: Path, path: Path) -> None:
    """Give a finished folder its name, in place of an older one if there is one."""
    replaced = _hidden(path, "replaced")
    if path.exists():
        _remove(replaced)
        os.rename(path, replaced)
    try:
        os.rename(finished, path)
    except OSError:
        if replaced.exists():
            os.rename(replaced, path)
        raise
    _sync(path.parent)
    _remove(replaced)


def remove_checkpoints(paths: Iterable[Path]) -> None:
    """Remove checkpoints; one that cannot be removed stays."""
    for path in paths:
        old = _hidden(path, "old")
        with suppress(OSError):
            os.rename(path, old)  # so that a kill leaves no part of it under its name
            _remove(old)


def _clean_up(folder: Path) -> None:
    """Remove what a killed save left, and put back a checkpoint that it had only moved."""
    for kind in ("partial", "old", "replaced"):
        for path in list(folder.glob(f".step-[0-9]*.{kind}")):
            final = path.with_name(path.name.removeprefix(".").removesuffix(f".{kind}"))
            if kind == "replaced" and not final.exists():
                os.rename(path, final)
            else:
                _remove(path)


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _remove(path: Path) -> None:
    """Remove a folder as far as possible: what is left does no harm."""
    with suppress(OSError):
        if path.is_symlink():  # the folder that it leads to is not ours
            os.unlink(path)
        else:
            shutil.rmtree(path)


def load_contents(path: Path, schema: type[Schema]) -> tuple[Path, Schema, Mapping[str, Value]]:
    """Read the newest checkpoint at a path; return its path, contents by a schema, and values.

    Raises
    ------
    CheckpointMismatchError
        If it is of another kind, or has another format.
    DamagedCheckpointError, FileNotFoundError, ImportError
        As `read_newest`.
    """
    found, (contents, values) = read_newest(path)
    kind, wanted = contents.get("kind"), vars(schema)["kind"]
    if kind in LOADERS and kind != wanted:
        line = f"kind: {kind!r} in the checkpoint, {wanted!r} now"
        raise CheckpointMismatchError(found, [line], f"Use {LOADERS[kind]}.")
    return found, _converted(contents, schema, found / META), values


def read_newest(path: Path) -> tuple[Path, Checkpoint]:
    """Read a checkpoint, or the last one of a folder of checkpoints.

    Raises
    ------
    DamagedCheckpointError
        If it is damaged. The error names the last whole one before it, which is not read instead: that
        would lose steps without a word.
    FileNotFoundError
        If there is none.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"There is no checkpoint {str(path)!r}: it is not a folder.")
    if is_checkpoint(path):
        newest, earlier = path, earlier_checkpoints(path)
    else:
        earlier = list_checkpoints(path)
        if not earlier:
            raise FileNotFoundError(
                f"There is no checkpoint in {str(path)!r}: it has no folder with a name like "
                "step-000000001."
            )
        newest = earlier.pop()
    try:
        return newest, read(newest)
    except DamagedCheckpointError as error:
        before = _last_whole(earlier)
        raise DamagedCheckpointError(error.file, error.problem, before) from error


def _last_whole(paths: list[Path]) -> Path | None:
    for path in reversed(paths):
        with suppress(CheckpointMismatchError, DamagedCheckpointError):
            read(path)
            return path
    return None


def read(path: Path) -> Checkpoint:
    """Read a checkpoint, of which every byte is checked first.

    Raises
    ------
    CheckpointMismatchError
        If it has another format.
    DamagedCheckpointError
        If a file is missing or was changed, or is a link.
    """
    meta, file = read_meta(path), path / TENSORS
    of_parts = [_part_file(path, k) for k in range(len(meta.parts_sha256))]
    for each, expected in zip([file, *of_parts], [meta.tensors_sha256, *meta.parts_sha256]):
        _check_plain(each)
        if _hash(each) != expected:
            raise DamagedCheckpointError(each, WRONG_HASH)
    generators = {name: state.make() for name, state in meta.generators.items()}
    parts = {
        name: Parts(
            saved.lengths,
            saved.row_shape,
            np.dtype(saved.dtype),
            partial(_read_part, path, name),
        )
        for name, saved in meta.parts.items()
    }
    return Checkpoint(meta.contents, {**_tensors(file), **generators, **parts})


def read_meta(path: Path) -> CheckpointFile:
    """Read ``meta.json`` of a checkpoint, and check it; raise as `read`."""
    file = path / META
    if path.is_symlink():
        raise DamagedCheckpointError(path, "it is a link, and may lead out of the folder")
    if not file.exists() and (path / EARLIER_META).exists():
        _refuse_format(path, "an earlier one")
    _check_plain(file)
    text = file.read_bytes()
    try:
        values = json.loads(text)
        is_whole = text == _signed({k: v for k, v in values.items() if k != "sha256"})
    except (ValueError, AttributeError, RecursionError) as error:
        raise DamagedCheckpointError(file, f"it is not a JSON object ({error})") from error
    if not is_whole:
        raise DamagedCheckpointError(file, WRONG_HASH)
    if values.get("format") != FORMAT:
        _refuse_format(path, repr(values.get("format")))
    return _converted(values, CheckpointFile, file)


def _refuse_format(path: Path, found: str) -> None:
    line = f"format: {found} in the checkpoint, {FORMAT!r} in this version"
    advice = "Load it by the version of the package that wrote it."
    raise CheckpointMismatchError(path, [line], advice)


def _converted(values: Mapping[str, Any], schema: type[Schema], file: Path) -> Schema:
    """Return JSON values as an object of a schema; the error names an entry of another type."""
    msgspec = import_optional("msgspec")
    try:
        return msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise DamagedCheckpointError(file, str(error)) from error


def _check_plain(file: Path) -> None:
    """Refuse a file that is missing, or is a link or a folder."""
    try:
        is_plain = stat.S_ISREG(file.lstat().st_mode)
    except OSError as error:
        raise DamagedCheckpointError(file, f"it cannot be read ({error.strerror})") from error
    if not is_plain:
        raise DamagedCheckpointError(file, "it is not a plain file, and may lead out of the folder")


def to_builtins(value: object) -> Any:
    """Return dataclasses, mappings, arrays and numbers of NumPy in types that JSON has."""

    def of_numpy(value: object) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise TypeError(f"A checkpoint cannot hold {value!r} of type {type(value).__name__}.")

    return import_optional("msgspec").to_builtins(value, enc_hook=of_numpy, str_keys=True)


def import_optional(name: str) -> ModuleType:
    """Import a package that only checkpoints need, or say how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Checkpoints need {name}, which is not installed: pip install {name}"
        ) from error
