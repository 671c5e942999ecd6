# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Sums over rows on Numba: the source of a loop for each fused operation.

Of ``((X[index] - mu) ** 2).sum(0)``, but for checks and prefetching:

.. code-block:: python

    def row_sums(a0, a1, index0):
        n_rows, n_columns = index0.shape[0], a0.shape[1]
        a1_row = a1[0]
        sum0 = np.zeros(n_columns, np.float64)
        for i in range(0, n_rows - n_rows % 4, 4):
            a0_0 = a0[index0[i + 0]]
            ...
            for j in range(n_columns):
                value_0 = scalar(a0_0[j], a1_row[j])
                ...
                sum0[j] += (value_0 + value_1) + (value_2 + value_3)
        for i in range(n_rows - n_rows % 4, n_rows):
            ...
        return sum0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from pytensor.graph.basic import Apply
from pytensor.link.numba.cache import compile_numba_function_src
from pytensor.link.numba.dispatch.basic import (
    numba_funcify_and_cache_key,
    numba_njit,
    register_funcify_and_cache_key,
)
from pytensor.scalar.basic import ScalarType

from pymc.variational.engine.kernels.numba_rows import (
    check_rows,
    n_ahead,
    prefetch_row,
    version_of,
)
from pymc.variational.engine.kernels.row_sums import RowSums, elementwise_node

CACHE_VERSION = version_of(__file__)

#: Rows at a time
N = 4


@dataclass(frozen=True)
class Operand:
    """An operand of the elementwise operation, as the source names it."""

    name: str
    is_scalar: bool = False
    one_row: bool = False  # the same for all rows
    one_column: bool = False
    index: str | None = None  # the name of the index that gathers its rows

    @property
    def varies(self) -> bool:
        """Whether its rows differ."""
        return not (self.is_scalar or self.one_row)

    @property
    def n_rows(self) -> str:
        return f"{self.index or self.name}.shape[0]"

    def row(self, i: str) -> str:
        """Return the source of a row."""
        return f"{self.name}[{f'{self.index}[{i}]' if self.index else i}]"

    def value(self, t: int) -> str:
        """Return the source of a number in row `t` of those at a time, column j."""
        if self.is_scalar:
            return self.name
        row = f"{self.name}_{t}" if self.varies else f"{self.name}_row"
        return f"{row}[{'0' if self.one_column else 'j'}]"


def operands_of(op: RowSums, node: Apply) -> tuple[list[Operand], list[str]]:
    """Return the operands, and the names of the indexes."""
    inner = elementwise_node(op).inputs
    indexes = [f"index{k}" for k in range(len(node.inputs) - len(inner))]
    gathered = {
        source: index
        for index, (sources, _) in zip(indexes, op.indexed_inputs, strict=True)
        for source in sources
    }
    operands = []
    for i, (outer, var) in enumerate(zip(node.inputs, inner)):
        if isinstance(outer.type, ScalarType):
            operands.append(Operand(f"a{i}", is_scalar=True))
        else:
            one_row, one_column = var.type.broadcastable
            index = gathered.get(i)
            operands.append(Operand(f"a{i}", False, one_row and index is None, one_column, index))
    return operands, indexes


def source_of(
    operands: Sequence[Operand], indexes: Sequence[str], dtypes: Sequence[tuple[str, str]]
) -> str:
    """Return the source; `dtypes` are for each output those of the sum and of the result."""
    varying = [each for each in operands if each.varies]
    gathered = [each for each in varying if each.index]
    wide = [each for each in operands if not each.is_scalar and not each.one_column]
    sums = [f"sum{k}" for k in range(len(dtypes))]
    arguments = ", ".join([*(each.name for each in operands), *indexes])
    results = [
        name if acc == out else f"{name}.astype(np.{out})" for name, (acc, out) in zip(sums, dtypes)
    ]
    lines = [
        f"def row_sums({arguments}):",
        f"    n_rows, n_columns = {varying[0].n_rows}, {wide[0].name}.shape[1]",
        f"    if {_lengths_differ(varying, wide)}:",
        "        raise ValueError('sums over rows: the shapes of the operands differ')",
        *(f"    check_rows({each.index}, {each.name}.shape[0])" for each in gathered),
        *(f"    {each.name}_row = {each.name}[0]" for each in operands if each.one_row),
        *(f"    {name} = np.zeros(n_columns, np.{acc})" for name, (acc, _) in zip(sums, dtypes)),
        f"    n_fours = n_rows - n_rows % {N}",
    ]
    if gathered:
        lines += [
            f"    ahead = n_ahead({gathered[0].name})",
            "    for k in range(min(ahead, n_rows)):",
            *_prefetch(gathered, "        "),
        ]
    lines.append(f"    for i in range(0, n_fours, {N}):")
    if gathered:
        lines += [
            f"        for k in range(i + ahead, min(i + ahead + {N}, n_rows)):",
            *_prefetch(gathered, "            "),
        ]
    lines += _add(operands, sums, dtypes, N)
    lines.append("    for i in range(n_fours, n_rows):")
    lines += _add(operands, sums, dtypes, 1)
    lines.append(f"    return {', '.join(results)}")
    return "\n".join(lines) + "\n"


def _lengths_differ(varying: Sequence[Operand], wide: Sequence[Operand]) -> str:
    rows = [f"{each.n_rows} != n_rows" for each in varying]
    return " or ".join([*rows, *(f"{each.name}.shape[1] != n_columns" for each in wide)])


def _prefetch(gathered: Sequence[Operand], indent: str) -> list[str]:
    return [f"{indent}prefetch_row({each.name}, {each.index}[k])" for each in gathered]


def _add(
    operands: Sequence[Operand], sums: Sequence[str], dtypes: Sequence[tuple[str, str]], n: int
) -> list[str]:
    """Return the lines that add `n` rows, from row i on, to the sums."""
    lines = [
        f"        {each.name}_{t} = {each.row(f'i + {t}')}"
        for t in range(n)
        for each in operands
        if each.varies
    ]
    lines.append("        for j in range(n_columns):")
    for t in range(n):
        values = ", ".join(each.value(t) for each in operands)
        lines.append(f"            value_{t} = scalar({values})")
    for k, (name, (acc, _)) in enumerate(zip(sums, dtypes)):
        output = "" if len(sums) == 1 else f"[{k}]"
        terms = [f"np.{acc}(value_{t}{output})" for t in range(n)]
        total = terms[0] if n == 1 else "({} + {}) + ({} + {})".format(*terms)
        lines.append(f"            {name}[j] += {total}")
    return lines


@register_funcify_and_cache_key(RowSums)
def numba_funcify_RowSums(op: RowSums, node: Apply, **kwargs: Any) -> tuple[Callable, str | None]:
    """Compile the loop for this operation, and for these broadcast axes."""
    inner = elementwise_node(op)
    scalar, scalar_key = numba_funcify_and_cache_key(
        inner.op.scalar_op, node=inner.op.make_scalar_node(*inner.inputs), **kwargs
    )
    operands, indexes = operands_of(op, node)
    dtypes = [
        (np.dtype(acc_dtype).name, out.type.dtype)
        for (*_, acc_dtype), out in zip(op.reduced_outputs, node.outputs, strict=True)
    ]
    source = source_of(operands, indexes, dtypes)
    names = {
        "np": np,
        "scalar": scalar,
        "check_rows": check_rows,
        "n_ahead": n_ahead,
        "prefetch_row": prefetch_row,
    }
    function = compile_numba_function_src(source, "row_sums", names)
    compiled = numba_njit(function, boundscheck=False)
    if scalar_key is None:
        return compiled, None
    parts = ("row_sums", CACHE_VERSION, source, scalar_key)
    return compiled, sha256(repr(parts).encode()).hexdigest()
