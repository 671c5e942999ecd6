# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The rule for Scan: a loop over rows that maps each of them, or over something else, with states of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytensor.graph.basic import Apply, Variable
from pytensor.scan.op import Scan
from pytensor.scan.utils import ScanArgs

from pymc.minibatch.graph_types import ndim_of
from pymc.minibatch.provenance import (
    OWN,
    SAME,
    Axes,
    Axis,
    Lost,
    Rows,
    RowsLost,
    follow,
    label,
    meet,
    rows_of,
    trace,
)


@follow.register(Scan)
def _(op: Scan, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """A loop over rows keeps them if its steps are independent; one over something else, if each step does.

    A state that is carried has the axes of its first value and those that a step makes of them, found
    by induction: steps are followed until the axes of all states stay what they are.
    """
    outer = dict(zip(node.inputs, inputs, strict=True))
    args = ScanArgs(node.inputs, node.outputs, op.inner_inputs, op.inner_outputs, op.info)
    looped = [outer[var] for var in args.outer_in_seqs]
    along = meet(
        [axes[0] for axes in looped],
        [label(v) for v, axes in zip(args.outer_in_seqs, looped) if axes[0] is OWN],
    )
    states = _states(args, outer)
    if states or args.outer_in_mit_mot:
        if isinstance(along, Rows):
            why = f"{op} carries a state from one row of a minibatch to the next"
            raise RowsLost(why, by_place=True)
    if (args.outer_in_mit_mot or op.info.as_while) and any(rows_of(axes) for axes in inputs):
        raise RowsLost(f"the rows of a minibatch cannot be followed through {op}", certain=False)
    known: dict[Variable, Axes | Lost] = {
        **{var: axes[1:] for var, axes in zip(args.inner_in_seqs, looped)},
        **dict(zip(args.inner_in_non_seqs, (outer[var] for var in args.outer_in_non_seqs))),
    }
    try:
        _follow_states(states, known)
        found = {
            out: _stacked(along, trace(inner, known))
            for inner, out in zip(args.inner_out_nit_sot, args.outer_out_nit_sot, strict=True)
        }
    except RowsLost as lost:  # what is lost at one step may be taken up at the next
        raise RowsLost(lost.why, lost.certain and not states, lost.by_place) from lost
    found |= {state.stacked: (OWN, *state.axes) for state in states}
    return [found.get(out, (OWN,) * ndim_of(out)) for out in node.outputs]


@dataclass
class _State:
    """A state that a loop carries: its variables at each tap, its next value, all of its values."""

    taps: Sequence[Variable]
    next: Variable
    stacked: Variable
    axes: Axes


def _states(args: ScanArgs, outer: Mapping[Variable, Axes]) -> list[_State]:
    taps = [*([tap] for tap in args.inner_in_sit_sot), *args.inner_in_mit_sot]
    return [
        _State(at, new, stacked, outer[start][1:])
        for at, new, stacked, start in zip(
            taps,
            [*args.inner_out_sit_sot, *args.inner_out_mit_sot],
            [*args.outer_out_sit_sot, *args.outer_out_mit_sot],
            [*args.outer_in_sit_sot, *args.outer_in_mit_sot],
            strict=True,
        )
    ]


def _follow_states(states: Sequence[_State], known: dict[Variable, Axes | Lost]) -> None:
    """Find the axes of states, and add those of their taps to what is known."""
    moved = True
    while moved:
        known.update({tap: state.axes for state in states for tap in state.taps})
        moved = False
        for state in states:
            axes = trace(state.next, known)
            if isinstance(axes, Lost):
                raise RowsLost(axes.why, axes.certain, axes.by_place)
            new = tuple(meet(pair) for pair in zip(state.axes, axes, strict=True))
            moved, state.axes = moved or new != state.axes, new


def _stacked(along: Axis, step: Axes | Lost) -> Axes:
    if isinstance(step, Lost):
        raise RowsLost(step.why, step.certain, step.by_place)
    return (OWN if along is SAME else along, *step)
