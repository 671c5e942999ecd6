# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The state of a minibatch index: what a draw is a function of, and what it moves on.

A few words instead of a :class:`numpy.random.Generator`, which JAX cannot use and which takes Numba
longer to pass along than a draw takes.
"""

import copy

from typing import Any

import numpy as np

from numpy.random import Generator
from pytensor.graph.basic import Variable
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.random.variable import RandomGeneratorSharedVariable
from pytensor.tensor.type import TensorType

__all__ = ["IndexState", "IndexStateType", "index_state", "index_state_type"]


class IndexStateType(RandomType[np.ndarray]):
    """Type of the state of a minibatch index: ``key`` and ``position``, as uint32 of shape (4,).

    ``key`` is 64 random bits, ``position`` counts the rows drawn with them; each takes two words, the
    low one first. A Generator is a valid value too and stands for a new key at position 0: this is
    what makes PyMC's reseeding restart an epoch.
    """

    def filter(
        self, data: Any, strict: bool = False, allow_downcast: bool | None = None
    ) -> np.ndarray:
        if isinstance(data, Generator):
            key = copy.deepcopy(data).integers(2**32, size=2, dtype="uint32")
            return np.concatenate([key, np.zeros(2, dtype="uint32")])
        if getattr(data, "dtype", None) != "uint32" or data.shape != (4,):
            raise TypeError(
                "The state of a minibatch index is a numpy.random.Generator or an array of four "
                f"uint32 (key and position, low word first), got {data!r}."
            )
        if isinstance(data, np.ndarray) and data.flags.writeable:
            return data
        return np.array(data)  # a JAX array, which an inplace draw could not write to

    # The JAX linker replaces the shared variables of RandomTypes by shared arrays of their values.
    def is_super(self, otype: Any) -> bool:
        return self == otype or (
            isinstance(otype, TensorType) and otype.dtype == "uint32" and otype.ndim == 1
        )

    def convert_variable(self, var: Variable) -> Variable | None:
        if self.is_super(var.type):
            return var
        # PyMC replaces the generators of a graph by new ones, to make it independent of another.
        if isinstance(var, RandomGeneratorSharedVariable):
            return IndexState(self, var.get_value(borrow=True), strict=False, name=var.name)
        return None

    @staticmethod
    def may_share_memory(a: np.ndarray, b: np.ndarray) -> bool:
        return np.may_share_memory(a, b)

    @staticmethod
    def values_eq(a: np.ndarray, b: np.ndarray) -> bool:
        return np.array_equal(a, b)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return "IndexStateType"


index_state_type = IndexStateType()


class _StateStorage(list):
    """Where the value of a state is: what is written past the type's filter becomes a state too.

    Reseeding a compiled function, pymc-extras puts generators there, or what JAX makes of one.
    """

    def __setitem__(self, place: Any, value: Any) -> None:
        if isinstance(value, dict):
            value = np.concatenate([value["jax_state"], np.zeros(2, dtype="uint32")])
        elif isinstance(value, Generator):
            value = index_state_type.filter(value)
        super().__setitem__(place, value)


class IndexState(RandomGeneratorSharedVariable):
    """Shared state of a minibatch index.

    It counts as a shared generator, so that PyMC finds, copies, updates and reseeds it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.container.storage, _StateStorage):  # a clone has that of the first
            self.container.storage = _StateStorage(self.container.storage)

    def __str__(self) -> str:
        return self.name or "IndexState"


def index_state(seed: Any = None, name: str | None = None) -> IndexState:
    """Create a shared state at position 0, with a key drawn from ``np.random.default_rng(seed)``."""
    return IndexState(index_state_type, np.random.default_rng(seed), strict=False, name=name)
