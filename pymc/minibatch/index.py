# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The index of a minibatch: a random variable for the rows in the batch.

A draw is a function of the state alone, four 32-bit words. So it is the same on every backend, needs no
:class:`numpy.random.Generator` while the model runs, and no rewrite can change it.
"""

import copy

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, SupportsIndex

import numpy as np
import pytensor.tensor as pt

from numpy.random import Generator
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import ThunkType
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.random.variable import RandomGeneratorSharedVariable
from pytensor.tensor.type import TensorType, integer_dtypes
from pytensor.tensor.type_other import NoneConst, NoneTypeT
from pytensor.tensor.variable import TensorVariable

from pymc.argument_checks import check_choice, check_int
from pymc.minibatch.shuffle import (
    NARROW,
    SAMPLING,
    WIDE,
    Array,
    PairHash,
    pack_state,
    unpack_state,
)

ROW_COUNTS_DIFFER = -1
"""Number of rows of data that do not agree on one. No batch can be drawn from it."""


class BatchSizeError(ValueError):
    """A batch is larger than the data, or the data differ in their numbers of rows.

    Made from ``(batch_size, n_rows)``, two ints that compiled code can pass along. PyTensor makes it
    from a message, when it adds a node's description to an error.
    """

    def __init__(self, batch_size: int | str, n_rows: int | None = None) -> None:
        if n_rows is None:
            message = str(batch_size)
        elif n_rows == ROW_COUNTS_DIFFER:
            message = (
                "the data of one pm.Minibatch call have different numbers of rows, but one index "
                "takes the same rows of all of them. Give all of them new values of one length, "
                "such as by one pm.set_data call."
            )
        else:
            message = (
                f"batch_size is {batch_size}, but the data have {n_rows} rows, and a batch cannot be "
                f"larger than the data. Give pm.Minibatch a batch_size of at most {n_rows}, or give "
                f"pm.set_data at least {batch_size} rows. To use all rows, take the data without "
                "pm.Minibatch."
            )
        super().__init__(message)


def check_batch_size(batch_size: int, n_rows: int) -> None:
    """Raise a BatchSizeError if the data have fewer rows than a batch."""
    if n_rows < batch_size:
        raise BatchSizeError(batch_size, int(n_rows))


class IndexStateType(RandomType[np.ndarray]):
    """Type of the state of a minibatch index: ``key`` and ``position``, as uint32 of shape (4,).

    ``key`` is 64 random bits, ``position`` counts the rows drawn with them; each takes two words, the
    low one first. A Generator is a valid value too, and stands for a new key at position 0. So PyMC's
    reseeding restarts an epoch.
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
    def is_super(self, otype: object) -> bool:
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
    """Storage of a state, which makes states of generators that bypass the type's filter.

    pymc-extras reseeds a compiled function so, with generators or what JAX makes of them.
    """

    def __setitem__(self, place: SupportsIndex | slice, value: Any) -> None:
        if isinstance(value, dict):
            value = np.concatenate([value["jax_state"], np.zeros(2, dtype="uint32")])
        elif isinstance(value, Generator):
            value = index_state_type.filter(value)
        super().__setitem__(place, value)


class IndexState(RandomGeneratorSharedVariable):
    """Shared state of a minibatch index.

    It counts as a shared generator, so that PyMC finds, copies, updates and reseeds it.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.container.storage, _StateStorage):  # a clone has that of the first
            self.container.storage = _StateStorage(self.container.storage)

    def __str__(self) -> str:
        return self.name or "IndexState"


def index_state(seed: int | None = None, name: str | None = None) -> IndexState:
    """Create a shared state at position 0, with a key drawn from ``np.random.default_rng(seed)``."""
    return IndexState(index_state_type, np.random.default_rng(seed), strict=False, name=name)


class MinibatchIndexRV(RandomVariable):
    """Rows of a batch, drawn at random from ``0 .. n_rows - 1``.

    The batch is the core dimension of a draw: no rewrite can split a draw, and its shape is static.

    Parameters
    ----------
    batch_size : int
    dim : str, optional
        Name of the subsampled dim.
    sampling : {"epoch", "without_replacement", "with_replacement"}
    inplace : bool, default False
        Whether a draw overwrites its input state.

    Notes
    -----
    ``make_node(state, size, n_rows)`` has the outputs ``(next_state, index)``; `size` is None,
    `n_rows` an integer scalar, and ``index`` a vector of int64 of static shape ``(batch_size,)``.
    """

    name = "minibatch_index"
    signature = "()->(batch)"
    dtype = "int64"
    _print_name = ("MinibatchIndex", r"\operatorname{MinibatchIndex}")
    __props__ = ("batch_size", "dim", "sampling", "inplace")  # type: ignore[assignment]
    source = "minibatch index"  # its name in messages

    def __init__(
        self,
        batch_size: int,
        dim: str | None = None,
        sampling: str = "epoch",
        inplace: bool = False,
    ) -> None:
        self.batch_size = check_int(batch_size, "batch_size", "a minibatch index")
        self.dim = dim
        self.sampling = sampling
        super().__init__(inplace=inplace)

    def make_node(  # type: ignore[override]
        self, rng: Variable, size: Variable | None, n_rows: Variable | int
    ) -> Apply:
        if not index_state_type.is_super(rng.type):
            raise TypeError(
                f"The state of a minibatch index must be an IndexState, got {rng} of type "
                f"{rng.type}. Create it with index_state(seed)."
            )
        if not (size is None or (isinstance(size, Variable) and isinstance(size.type, NoneTypeT))):
            raise ValueError(
                f"A minibatch index takes no size, got {size}: its only axis is the batch."
            )
        n_rows = pt.as_tensor_variable(n_rows)
        if n_rows.type.ndim or n_rows.type.dtype not in integer_dtypes:
            raise TypeError(
                f"The number of rows must be an integer scalar, got {n_rows} of type {n_rows.type}."
            )
        if isinstance(n_rows, Constant):  # of whatever small dtype its value fits into
            n_rows = pt.constant(n_rows.data, dtype="int64")
        return super().make_node(rng, NoneConst, pt.cast(n_rows, "int64"))

    def _supp_shape_from_params(
        self, dist_params: object, param_shapes: object = None
    ) -> list[Variable]:
        return [pt.constant(self.batch_size, dtype="int64")]

    def draw(
        self, xp: ModuleType, state: Array, n_rows: Array, pair_hash: PairHash
    ) -> tuple[Array, Array]:
        """Return the next state and the rows, of ``numpy`` or ``jax.numpy``.

        The state is uint32 of shape (4,), the rows are uint64 of shape (batch_size,). `pair_hash` is NARROW
        where `n_rows` allows it, else WIDE.
        """
        key, position = unpack_state(state)
        n_rows = xp.asarray(n_rows).astype("uint64").reshape(1)
        draw_rows = SAMPLING[self.sampling]
        rows = draw_rows(xp, key, position, n_rows, self.batch_size, pair_hash)
        return pack_state(xp, key, position + np.uint64(self.batch_size)), rows

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list]) -> None:
        state, _, n_rows = inputs
        check_batch_size(self.batch_size, int(n_rows))
        pair_hash = NARROW if n_rows <= NARROW.max_rows else WIDE
        next_state, rows = self.draw(np, state, n_rows, pair_hash)
        if self.inplace:
            state[:] = next_state
            next_state = state
        outputs[0][0] = next_state
        outputs[1][0] = rows.astype("int64")

    def make_thunk(
        self,
        node: Apply,
        storage_map: dict[Variable, list],
        compute_map: dict[Variable, list[bool]],
        no_recycling: list[Variable],
        impl: str | None = None,
    ) -> ThunkType:
        make = COMPILED_THUNKS.get(type(self))
        # Python's linkers run a function a few times, and compiling takes as long as 10,000 draws
        if impl == "py" or make is None:
            return super().make_thunk(node, storage_map, compute_map, no_recycling, impl)
        return make(self, node, storage_map, compute_map)

    def __str__(self) -> str:
        dim = f"{self.dim}: " if self.dim else ""
        return f"MinibatchIndex{{{dim}{self.batch_size}, {self.sampling}}}"


#: For each Op, a function that makes its compiled thunk: :mod:`pymc.minibatch.dispatch` fills it.
COMPILED_THUNKS: dict[type[MinibatchIndexRV], Callable[[Any, Apply, Any, Any], ThunkType]] = {}


def minibatch_index(
    rows: Variable | int, batch_size: int, sampling: str = "epoch", dim: str | None = None
) -> TensorVariable:
    """Draw the rows of a batch from ``0 .. rows - 1``.

    `rows` is an int or a symbolic integer, at most ``2**62``. A batch that is larger raises a
    BatchSizeError: here if `rows` is constant, else when the index is drawn.
    """
    check_choice(sampling, "sampling", "a minibatch index", tuple(SAMPLING))
    op = MinibatchIndexRV(batch_size, dim, sampling)
    _, index = op(rows, rng=index_state(), return_next_rng=True)
    n_rows = index.owner.inputs[2]
    if isinstance(n_rows, Constant):
        check_batch_size(op.batch_size, n_rows.data)
    index.name = f"minibatch_{dim}" if dim else "minibatch_index"
    return index
