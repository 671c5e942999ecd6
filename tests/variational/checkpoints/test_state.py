# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Values of a fit come back from arrays and JSON bit for bit."""

from __future__ import annotations

import json

from pathlib import Path
from typing import Any

import numpy as np
import pytensor
import pytest

from numpy.random import MT19937, PCG64, PCG64DXSM, SFC64, Generator, Philox, RandomState

from pymc.minibatch.index import index_state
from pymc.variational.checkpoints.errors import DamagedCheckpointError
from pymc.variational.checkpoints.files import write
from pymc.variational.checkpoints.folders import Contents
from pymc.variational.checkpoints.reading import read_checkpoint
from pymc.variational.checkpoints.state import pack, restore, unlike, unpack
from pymc.variational.rows.table import aligned_zeros


def stored(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Pass a tree through files."""
    return unpack(read_checkpoint(write(folder / "step-000000001", pack(tree))))


@pytest.mark.parametrize("kind", [PCG64, PCG64DXSM, MT19937, Philox, SFC64])
def test_generators(tmp_path, kind):
    rng = Generator(kind(3))
    rng.random(7)
    rng.integers(5, size=3, dtype="uint32")  # half a word is kept for the next
    rng.spawn(2)
    again = stored({"rng": rng}, tmp_path)["rng"]
    children = [one.spawn(1)[0].random(3) for one in (rng, again)]
    np.testing.assert_array_equal(*children)
    for draw in ("random", "standard_normal"):
        np.testing.assert_array_equal(getattr(rng, draw)(700), getattr(again, draw)(700))
    np.testing.assert_array_equal(
        *[one.integers(9, size=5, dtype="uint32") for one in (rng, again)]
    )


@pytest.mark.parametrize("kind", [MT19937, PCG64])
def test_random_states(tmp_path, kind):
    state = RandomState(kind(4))
    state.normal(size=3)  # one more normal is kept for the next call
    again = stored({"state": state}, tmp_path)["state"]
    np.testing.assert_array_equal(state.normal(size=700), again.normal(size=700))
    np.testing.assert_array_equal(state.randint(9, size=5), again.randint(9, size=5))


def test_plain_values(tmp_path):
    tree = {
        "none": None,
        "yes": True,
        "large": 2**130,
        "tenth": 0.1,
        "zero": -0.0,
        "text": "µ/$",
        "list": [1, {"a": [2.5]}],
        "nan": float("nan"),
        "inf": -float("inf"),
        "empty": {},
    }
    again = stored(tree, tmp_path)
    assert np.isnan(again.pop("nan"))
    tree.pop("nan")
    assert again == tree
    assert str(again["zero"]) == "-0.0"


def test_arrays_have_readable_names():
    tree = {"params": {"mu": np.zeros(2)}, "moments": [np.ones(3)], "rng": Generator(MT19937(1))}
    assert set(pack(tree).tensors) == {"params/mu", "moments/0", "rng/state/state/key"}


@pytest.mark.parametrize(
    "value, what",
    [
        (np.array(["a"]), "dtype <U1"),
        (np.array([object()]), "dtype object"),
        (np.zeros(2, dtype="complex128"), "dtype complex128"),
        (np.zeros(2, dtype="longdouble"), "dtype float128|dtype longdouble"),
        (object(), "type object"),
        (print, "type builtin_function_or_method"),
        ({1: 2}, "the key 1"),
        ({"$x": 2}, "the key '\\$x'"),
    ],
)
def test_what_is_no_value_of_a_fit(value, what):
    with pytest.raises(TypeError, match=f"A checkpoint cannot hold.*({what})"):
        pack({"a": {"b": value}})


def test_a_bit_generator_of_somebody_else():
    class Own(PCG64): ...

    with pytest.raises(TypeError, match="cannot hold the generator 'rng' of a Own"):
        pack({"rng": Generator(Own(1))})


def changed(contents: Contents, edit: Any) -> Contents:
    values = json.loads(json.dumps(contents.values))
    edit(values)
    return contents._replace(values=values)


@pytest.mark.parametrize(
    "edit",
    [
        lambda values: values["x"].update({"$array": "y"}),
        lambda values: values["rng"]["$generator"]["state"].update(bit_generator="os"),
        lambda values: values["rng"]["$generator"]["state"]["state"].update(pos=10**6),
        lambda values: values["rng"]["$generator"]["state"]["state"].update(pos=-1),
        lambda values: values["rng"]["$generator"]["state"]["state"].update(key=[1]),
        lambda values: values["rng"]["$generator"].update(seed={"entropy": "x"}),
        lambda values: values.update(x={"$import": "os"}),
        lambda values: values.update(x={"$float": "one"}),
    ],
)
def test_values_that_are_none(edit):
    """Only somebody who makes checkpoints by hand gets here: they have hashes."""
    packed = pack({"x": np.zeros(2), "rng": Generator(MT19937(1))})
    with pytest.raises(DamagedCheckpointError, match="it holds no values of a fit"):
        unpack(changed(packed, edit))


def test_a_table_keeps_its_memory():
    memory = aligned_zeros(5, 4, "float64")
    table = pytensor.shared(memory, "table", shape=(None, None), borrow=True)
    restore(table, np.arange(20.0).reshape(5, 4))
    assert table.get_value(borrow=True) is memory
    np.testing.assert_array_equal(memory, np.arange(20.0).reshape(5, 4))


def test_an_index_goes_on(tmp_path):
    state, other = index_state(1), index_state(2)
    state.set_value(np.array([1, 2, 3, 4], dtype="uint32"))
    again = stored({"index": state.get_value()}, tmp_path)["index"]
    restore(other, again)
    np.testing.assert_array_equal(other.get_value(), [1, 2, 3, 4])


def test_a_generator_is_replaced():
    shared = pytensor.shared(np.random.default_rng(1))
    rng = np.random.default_rng(5)
    restore(shared, rng)
    assert shared.get_value(borrow=True) is rng


def test_values_of_another_kind():
    rng = np.random.default_rng(1)
    assert unlike(rng, np.random.default_rng(2)) is None
    assert unlike(np.zeros(2), np.ones(2)) is None
    assert unlike(np.zeros(2), np.ones(2, "float32")) == (
        "float32 of shape (2,) in the checkpoint, float64 of shape (2,) now"
    )
    assert unlike(rng, None) == "NoneType in the checkpoint, a generator of PCG64 now"
