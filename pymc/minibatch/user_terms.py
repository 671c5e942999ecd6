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
"""Terms that a user's function makes: what it may do to rows out of sight of the graph of the model.

A Simulator compares a summary of all values, the draws of a `CustomDist` may depend on each other,
and its ``logp=`` may reach for data that are no parameter.
"""

from __future__ import annotations

from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable

from pymc.minibatch.provenance import OWN, Axes, Lost, Rows, indexes, rows_of, trace

__all__ = ["check_closed", "mixed_inside"]


def mixed_inside(rv: Variable, value: Axes) -> Lost | None:
    """Tell whether the distribution of `rv` makes the rows of its value depend on each other.

    Parameters
    ----------
    rv : Variable
    value : tuple of Rows, SAME or OWN
        The axes of the observed value.

    Returns
    -------
    Lost or None
        None where its draws are independent along the axes of rows, or nothing is known of it.
    """
    from pymc.distributions.custom import CustomSymbolicDistRV

    op = rv.owner.op if rv.owner is not None else None
    if op is None or not rows_of(value):
        return None
    summary = getattr(type(op), "_sum_stat", None)
    if summary is not None and getattr(summary, "__name__", None) != "identity":
        return Lost(op, f"the summary statistic of {op} may mix the rows of a minibatch", False)
    if not isinstance(op, CustomSymbolicDistRV):
        return None
    # As if each draw inside were of its row: what mixes draws then mixes rows
    draws = {
        var: _aligned(value, var, getattr(var.owner.op, "ndim_supp", 0))
        for var in ancestors(op.inner_outputs)
        if var.owner is not None
        and isinstance(var.owner.op, RandomVariable)
        and var is var.owner.outputs[1]
    }
    [*_, found] = [trace(out, draws) for out in op.inner_outputs if hasattr(out.type, "shape")]
    return found if isinstance(found, Lost) else None


def _aligned(value: Axes, draw: Variable, ndim_supp: int) -> Axes:
    batch = draw.type.ndim - ndim_supp
    places = range(len(value) - draw.type.ndim, len(value) - ndim_supp)
    axes = [value[k] if k >= 0 else OWN for k in places]
    fits = [isinstance(a, Rows) and n != 1 for a, n in zip(axes, draw.type.shape)]
    return (*(a if fit else OWN for a, fit in zip(axes[:batch], fits)), *(OWN,) * ndim_supp)


def check_closed(name: str, rv: Variable) -> None:
    """Raise where the ``logp=`` of a `CustomDist` uses a minibatch that is not a parameter of it.

    Raises
    ------
    ValueError
        The message names the index. Its rows could not be checked, nor the full data take their place.
    """
    # Of modules that come after this one
    from pymc.distributions.custom import CustomDistRV, CustomSymbolicDistRV
    from pymc.logprob.abstract import _logprob

    node = rv.owner
    if node is None or not isinstance(node.op, CustomDistRV | CustomSymbolicDistRV):
        return
    inputs = [var if isinstance(var, Constant) else var.type() for var in node.inputs]
    try:
        logp = _logprob(node.op, [rv.type()], *inputs)
    except NotImplementedError:  # it has none
        return
    found = indexes([logp], by_shape=True)
    if found:
        raise ValueError(
            f"the logp= of {name!r} uses {Rows(found[0])}, which is not among its parameters, so that "
            "its rows cannot be followed. Pass what it needs as a parameter: "
            "pm.CustomDist(name, x, ..., logp=lambda value, x, ...: ...)"
        )
