# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Where the parameters of guides are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytensor

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.variational.guides.base import Parameter, Plate
from pymc.variational.rows.table import RowTable

__all__ = ["Storage"]


@dataclass(frozen=True, eq=False)
class Storage:
    """Where the parameters of guides are: shared variables, and a table for each plate.

    Parameters
    ----------
    dense : mapping of Parameter or SharedVariable to SharedVariable
    tables : mapping of plate to RowTable
    columns : mapping of Parameter to slice
        Of the table of its plate.
    """

    dense: Mapping[Parameter | SharedVariable, SharedVariable]
    tables: Mapping[Plate, RowTable]
    columns: Mapping[Parameter, slice]

    @classmethod
    def of(cls, parameters: Sequence[Parameter | SharedVariable]) -> Storage:
        """Make room for parameters, with their starting values."""
        dense: dict[Parameter | SharedVariable, SharedVariable] = {}
        by_plate: dict[Plate, list[Parameter]] = {}
        for parameter in dict.fromkeys(parameters):
            if isinstance(parameter, SharedVariable):
                dense[parameter] = parameter
            elif parameter.plate:
                by_plate.setdefault(parameter.plate, []).append(parameter)
            else:
                dense[parameter] = pytensor.shared(
                    parameter.start, parameter.name, shape=parameter.start.shape
                )
        tables, columns = {}, {}
        for plate, mine in by_plate.items():
            starts = [parameter.start for parameter in mine]
            n_rows = max(len(start) for start in starts)
            joined = np.concatenate(
                [np.broadcast_to(start, (n_rows, start.shape[1])) for start in starts], axis=1
            )
            name = "_".join(rows.dim or "rows" for rows in plate)
            tables[plate] = RowTable.of(plate, joined, name)
            begin = 0
            for parameter in mine:
                end = begin + parameter.start.shape[1]
                columns[parameter] = slice(begin, end)
                begin = end
        return cls(dense, tables, columns)

    def copied(self, memo: dict[int, Any]) -> Storage:
        """Copy all values; `memo` is that of :func:`copy.deepcopy`."""
        return Storage(
            {key: deepcopy(var, memo) for key, var in self.dense.items()},
            {
                plate: replace(table, shared=deepcopy(table.shared, memo))
                for plate, table in self.tables.items()
            },
            self.columns,
        )

    @property
    def shared(self) -> list[SharedVariable]:
        return [*self.dense.values(), *(table.shared for table in self.tables.values())]

    def of_batch(self) -> dict[Plate, Variable]:
        """Return the parameters of the rows of a batch, by plate."""
        return {plate: table.gather()[1] for plate, table in self.tables.items()}

    def here(
        self, gathered: Mapping[Plate, Variable]
    ) -> dict[Parameter | SharedVariable, Variable]:
        """What stands for each parameter, given the parameters of the rows of each plate."""
        rows = {
            parameter: gathered[parameter.plate][:, columns]
            for parameter, columns in self.columns.items()
        }
        return {**self.dense, **rows}
