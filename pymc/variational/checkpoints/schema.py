# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Declared schema of the JSON in a checkpoint, which msgspec checks when the file is read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

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

from pymc.data_loading.batch import Position
from pymc.variational.report import FitReport

__all__ = [
    "ApproximationContents",
    "CheckpointFile",
    "GeneratorState",
    "TrainerContents",
    "import_optional",
    "to_builtins",
]

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
class CheckpointFile:
    """All of ``meta.json`` except its checksum."""

    format: str
    tensors_sha256: str
    generators: dict[str, GeneratorState]
    contents: dict[str, Any]  # one of the two classes of contents below


@dataclass(frozen=True, kw_only=True)
class ApproximationContents:
    """Contents of a saved approximation, apart from arrays and generators."""

    kind: Literal["approximation"] = "approximation"
    versions: dict[str, str]
    model: dict[str, dict[str, str]]  # identity of the free variables
    type: str
    text: str  # what it prints
    guides: list[tuple[list[str], dict[str, Any]]]  # names of variables, and the guide in JSON
    include_transformed: bool
    report: FitReport | None


@dataclass(frozen=True, kw_only=True)
class TrainerContents:
    """Contents of a checkpoint of a streamed fit, apart from arrays and generators."""

    kind: Literal["trainer"] = "trainer"
    versions: dict[str, str]
    model: dict[str, dict[str, str]]
    loader: dict[str, Any]
    step: dict[str, Any]  # identity of what a step computes with
    fit: str
    arguments: dict[str, Any]
    position: Position
    batches_seen: int
    i: int
    until: int | None  # the step at which the running call of `fit` is to end
    averaged: bool
    every: int | None  # steps between two checkpoints
    keep: int | None  # None: the fit does not write checkpoints into this folder by itself
    include_transformed: bool
    report: FitReport


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
