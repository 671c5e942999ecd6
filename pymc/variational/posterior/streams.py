#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""What results of a streamed model need of its data, which are at hand for rows that were given to it.

Parameters of rows are in tables, so draws of them need no data. What an encoder makes of a row's data
does, and so do deterministics and terms of them.
"""

from __future__ import annotations

import warnings

from collections.abc import Sequence
from typing import Any

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.given_rows import Given
from pymc.minibatch.guards import is_streamed
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.provenance import Rows
from pymc.minibatch.stream import is_stream, needs_rows, streams_in
from pymc.variational.posterior.outputs import Output

__all__ = ["data_needed", "given_or_raise"]


def data_needed(
    approx: Any, outputs: Sequence[Output], asked: bool, function: str
) -> tuple[dict[Rows, Given], list[Output]]:
    """Tell whether outputs need the data of a stream, and which of these are at hand.

    Parameters
    ----------
    approx : GuidedApproximation
    outputs : sequence of Output
    asked : bool
        Whether the user names them. Deterministics that nobody asked for are left out with a warning.
    function : str
        For messages.

    Returns
    -------
    given : dict of Rows to Given
        The rows that the model holds; empty where none are needed.
    outputs : list of Output
        Those that are left.

    Raises
    ------
    ValueError
        If data are needed that are not there.
    """
    if not is_streamed(approx.model):
        return {}, list(outputs)
    drawn = _drawn_from_data(approx)
    needy = [out for out in outputs if needs_rows(out.graph) or drawn & set(ancestors([out.graph]))]
    latent = {rv.name for rv in approx.model.free_RVs} | {v.name for v in approx.model.value_vars}
    if not asked and not any(out.name in latent for out in needy):
        if needy:
            names = ", ".join(repr(out.name) for out in needy)
            warnings.warn(
                f"{function} leaves out {names}, computed from the data of rows, which come in batches from "
                "a loader. For some rows, give them to the model by pm.set_data, and name it in var_names",
                stacklevel=5,
            )
        return {}, [out for out in outputs if out not in needy]
    if not needy:
        return {}, list(outputs)
    names = " and ".join(repr(out.name) for out in needy)
    return given_or_raise(approx.model, f"{function} of {names}"), list(outputs)


def given_or_raise(model: Any, what: str) -> dict[Rows, Given]:
    """Tell which rows of its streams a model was given.

    Raises
    ------
    ValueError
        If it was given none; `what` says who needs them.
    """
    from pymc.model.transform.stream import required_rows  # which imports the models

    streams = [index for index in model_indexes(model) if is_stream(index)]
    return {Rows(index): required_rows(model, index, what) for index in streams}


def _drawn_from_data(approx: Any) -> set[Variable]:
    """List the variables that a guide draws from the data of rows, and their values."""
    found: set[Variable] = set()
    waiting = list(approx.guides)
    while True:
        by_data = [
            guide
            for guide in waiting
            if (above := guide.reads()) and (streams_in(list(above)) or not found.isdisjoint(above))
        ]
        if not by_data:
            return found
        waiting = [guide for guide in waiting if guide not in by_data]
        for guide in by_data:
            found.update(var for site in guide.sites for var in (site.rv, site.value))
