# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Shapes of variables of any type, and attributes of Ops that share no class."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from pytensor.graph.basic import Variable
from pytensor.graph.type import HasShape

__all__ = [
    "Marginal",
    "MarginalOfRows",
    "extended_signature",
    "ndim_of",
    "ndim_supp",
    "static_shape",
]


def ndim_of(var: Variable) -> int:
    """Return the number of axes of a variable; 0 of what is no array, such as a generator."""
    return var.type.ndim if isinstance(var.type, HasShape) else 0


def static_shape(var: Variable) -> tuple[int | None, ...]:
    """Return the static shape of a variable; empty of what is no array, such as a generator."""
    return var.type.shape if isinstance(var.type, HasShape) else ()


@runtime_checkable
class _Supported(Protocol):
    """An Op of draws: a `RandomVariable`, a `SymbolicRandomVariable`, or what PyMC measures."""

    ndim_supp: Any


@runtime_checkable
class _Signed(Protocol):
    """A `SymbolicRandomVariable`, which comes after this module."""

    extended_signature: str | None


@runtime_checkable
class Marginal(Protocol):
    """An Op of pymc-extras: a variable was marginalized out of those that depend on it."""

    marginalized_name: str
    inner_outputs: Any
    n_dependent_rvs: Any


@runtime_checkable
class MarginalOfRows(Marginal, Protocol):
    """One whose marginalized variable may have a value for each row."""

    dims_connections: Any


def ndim_supp(op: Any, default: int | None = 0) -> Any:
    """Return the number of axes of one draw of an Op; `default` of one that does not draw."""
    return op.ndim_supp if isinstance(op, _Supported) else default


def extended_signature(op: Any) -> str | None:
    """Return the signature of a `SymbolicRandomVariable`, None where it has none."""
    return op.extended_signature if isinstance(op, _Signed) else None
