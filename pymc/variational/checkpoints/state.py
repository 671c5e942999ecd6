# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Values of a fit as arrays and JSON, and back, bit for bit.

A value is a tree: mappings and lists, and in them arrays, generators, numbers and texts. What JSON has no
form for becomes an object with one name that begins with "$", and arrays stand beside, by their place
in the tree: ``{"rng": rng}`` of an MT19937 has its words in the array "rng/state/state/key".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from numpy.random import (
    MT19937,
    PCG64,
    PCG64DXSM,
    SFC64,
    BitGenerator,
    Generator,
    Philox,
    RandomState,
    SeedSequence,
)
from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.checkpoints.errors import DamagedCheckpointError
from pymc.variational.checkpoints.folders import Contents
from pymc.variational.checkpoints.tensors import can_be_written

__all__ = ["pack", "restore", "unlike", "unpack"]

#: Bit generators that are made again, and the largest place that their buffer of draws has.
BIT_GENERATORS: dict[str, tuple[type[BitGenerator], int]] = {
    "MT19937": (MT19937, 624),
    "PCG64": (PCG64, 0),
    "PCG64DXSM": (PCG64DXSM, 0),
    "Philox": (Philox, 4),
    "SFC64": (SFC64, 0),
}


def pack(tree: Mapping[str, Any]) -> Contents:
    """Take a tree apart into arrays and JSON.

    Parameters
    ----------
    tree : mapping of str
        To None, bool, int, float, str, arrays of floats, integers and booleans, Generator, RandomState,
        and mappings, lists and tuples of them. Tuples come back as lists, and NumPy's scalars as arrays.

    Returns
    -------
    Contents
        For :func:`~pymc.variational.checkpoints.files.write`. Arrays are not copied.

    Raises
    ------
    TypeError
        If there is anything else.

    Examples
    --------
    >>> from pymc.variational.checkpoints.state import pack, unpack
    >>> contents = pack({"mu": np.array([0.5, -0.0]), "rng": np.random.default_rng(1), "step": 3})
    >>> contents.values["mu"]
    {'$array': 'mu'}
    >>> unpack(contents)["rng"].random() == np.random.default_rng(1).random()
    True
    """
    tensors: dict[str, np.ndarray] = {}
    values = _packed("", tree, tensors)
    return Contents(tensors, values)


def _packed(name: str, value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, np.ndarray | np.generic):
        return _packed_array(name, np.asarray(value), tensors)
    if isinstance(value, Generator):
        return {"$generator": _packed(name, _generator_parts(name, value), tensors)}
    if isinstance(value, RandomState):
        state = _checked_state(name, value.get_state(legacy=False))
        return {"$random_state": _packed(name, state, tensors)}
    if isinstance(value, Mapping):
        return {
            _key(name, k): _packed(f"{name}/{k}" if name else k, v, tensors)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_packed(f"{name}/{i}", item, tensors) for i, item in enumerate(value)]
    raise TypeError(
        f"A checkpoint cannot hold {name!r}, of type {type(value).__name__}: it has arrays of numbers, "
        "generators of NumPy, numbers and texts."
    )


def _packed_array(name: str, array: np.ndarray, tensors: dict[str, np.ndarray]) -> dict[str, str]:
    if not can_be_written(array.dtype):
        raise TypeError(
            f"A checkpoint cannot hold {name!r}, an array of dtype {array.dtype}: it has arrays of "
            "floats of up to 64 bits, integers and booleans."
        )
    if name in tensors:
        raise TypeError(f"A checkpoint cannot hold two arrays of one name, {name!r}: rename one.")
    tensors[name] = array
    return {"$array": name}


def _key(name: str, key: Any) -> str:
    if not isinstance(key, str) or key.startswith("$"):
        raise TypeError(
            f"A checkpoint cannot hold the key {key!r} of {name!r}: a key is a text that does not begin "
            "with '$'."
        )
    return key


def _generator_parts(name: str, value: Generator) -> dict[str, Any]:
    """Take the state of a generator, and what children are spawned from."""
    seed = value.bit_generator.seed_seq
    parts: dict[str, Any] = {"state": _checked_state(name, value.bit_generator.state)}
    if isinstance(seed, SeedSequence):
        entropy = seed.entropy
        parts["seed"] = {
            "entropy": entropy.tolist() if isinstance(entropy, np.ndarray) else entropy,
            "spawn_key": [int(key) for key in seed.spawn_key],
            "pool_size": seed.pool_size,
            "n_children_spawned": seed.n_children_spawned,
        }
    return parts


def _checked_state(name: str, state: Mapping[str, Any]) -> Mapping[str, Any]:
    if state["bit_generator"] not in BIT_GENERATORS:
        raise TypeError(
            f"A checkpoint cannot hold the generator {name!r} of a {state['bit_generator']}: it makes "
            f"{', '.join(BIT_GENERATORS)} again."
        )
    return state


def unpack(contents: Contents, path: Path = Path("checkpoint")) -> dict[str, Any]:
    """Put a tree together again.

    Parameters
    ----------
    contents : Contents
        As :func:`pack` made it.
    path : Path
        For the message.

    Raises
    ------
    DamagedCheckpointError
        If it is none of a tree.
    """
    try:
        return _unpacked(contents.values, contents.tensors)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise DamagedCheckpointError(path, f"it holds no values of a fit ({error!r})") from error


def _unpacked(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (tag := next(iter(value))).startswith("$"):
        return _tagged(tag, value[tag], tensors)
    return {key: _unpacked(item, tensors) for key, item in value.items()}


def _tagged(tag: str, value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if tag == "$array":
        return tensors[value]
    if tag == "$float":
        return float(value)
    parts = _unpacked(value, tensors)
    if tag == "$generator":
        made = _bit_generator(parts["state"], parts.get("seed"))
        made.state = parts["state"]
        return Generator(made)
    if tag == "$random_state":
        random_state = RandomState(_bit_generator(parts, None))
        random_state.set_state(parts)
        return random_state
    raise ValueError(f"nothing is called {tag!r}")


def _bit_generator(state: Mapping[str, Any], seed: Mapping[str, Any] | None) -> Any:
    """Make the bit generator that has a state.

    Raises
    ------
    ValueError
        If the place in its buffer is none: NumPy would read other memory.
    """
    name = state["bit_generator"]
    place = state["state"]["pos"] if name == "MT19937" else state.get("buffer_pos", 0)
    cls, most = BIT_GENERATORS[name]
    if not 0 <= place <= most:
        raise ValueError(f"the place {place} in the buffer of a {name}")
    sequence = SeedSequence(0) if seed is None else SeedSequence(**seed)
    return cls(sequence)


def restore(shared: SharedVariable, value: Any) -> None:
    """Give a shared variable a value.

    An array goes into the memory that is there, where it fits: the lines of a table of rows begin with
    lines of the processor's caches.

    Parameters
    ----------
    shared : SharedVariable
    value : array or Generator
        Of the shape and dtype of what the variable has; see :func:`unlike`.
    """
    before = shared.container.storage[0]
    if isinstance(before, np.ndarray) and before.flags.writeable and before.dtype == value.dtype:
        np.copyto(before, value)
    else:
        shared.container.storage[0] = shared.type.filter(value, strict=True)


def unlike(before: Any, value: Any) -> str | None:
    """Tell how a value differs in kind from the one that it is to replace, or None.

    Examples
    --------
    >>> from pymc.variational.checkpoints.state import unlike
    >>> unlike(np.zeros(3), np.zeros(2))
    'float64 of shape (2,) in the checkpoint, float64 of shape (3,) now'
    """
    there, here = _kind(value), _kind(before)
    return None if there == here else f"{there} in the checkpoint, {here} now"


def _kind(value: Any) -> str:
    if isinstance(value, Generator):
        return f"a generator of {value.bit_generator.state['bit_generator']}"
    if not isinstance(value, np.ndarray | np.generic):
        return type(value).__name__
    return f"{value.dtype} of shape {value.shape}"
