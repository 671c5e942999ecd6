# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Unsigned integers of a batch, such as the bytes of images, that are subtracted in a model."""

from __future__ import annotations

import warnings

from collections.abc import Iterable

import numpy as np

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.scalar import Neg, Sub
from pytensor.tensor.elemwise import Elemwise

from pymc.minibatch.provenance import indexes

__all__ = ["warn_of_unsigned"]


def warn_of_unsigned(terms: Iterable[Variable], name: str) -> None:
    """Warn if terms depend on a difference of unsigned integers of a batch, which has no sign.

    The data are left as they are: as integers they index groups, and take a byte where floats take eight.

    Parameters
    ----------
    terms : iterable of Variable
    name : str
        Of the variable of the model that they are of.

    Warns
    -----
    UserWarning
    """
    for var in ancestors(list(terms)):
        node = var.owner
        if (
            node is not None
            and isinstance(node.op, Elemwise)
            and isinstance(node.op.scalar_op, Sub | Neg)
            and var.type.dtype.startswith("uint")
            and indexes([var])
        ):
            wrapped = np.array(3, var.type.dtype) - np.array(5, var.type.dtype)
            warnings.warn(
                f"{name!r} depends on a difference of {var.type.dtype} of a minibatch: unsigned integers wrap "
                f'below zero, 3 - 5 is {wrapped}. Write x.astype("float64") before it is subtracted',
                UserWarning,
                stacklevel=4,
            )
            return
