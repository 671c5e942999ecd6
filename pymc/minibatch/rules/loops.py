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
"""The rule for Scan: a loop over rows that maps each of them, or a loop over something else."""

from __future__ import annotations

from collections.abc import Sequence

from pytensor.graph.basic import Apply, Variable
from pytensor.scan.op import Scan
from pytensor.scan.utils import ScanArgs

from pymc.minibatch.provenance import (
    OWN,
    SAME,
    Axes,
    Axis,
    Lost,
    RowsLost,
    follow,
    label,
    meet,
    refuse_rows,
    rows_of,
    trace,
)


@follow.register(Scan)
def _(op: Scan, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """A loop whose steps are independent keeps rows along it; one that carries a state mixes them."""
    outer = dict(zip(node.inputs, inputs, strict=True))
    args = ScanArgs(node.inputs, node.outputs, op.inner_inputs, op.inner_outputs, op.info)
    looped = [outer[var] for var in args.outer_in_seqs]
    along = meet(
        [axes[0] for axes in looped],
        [label(v) for v, axes in zip(args.outer_in_seqs, looped) if axes[0] is OWN],
    )
    carries = bool(args.outer_in_mit_mot or args.outer_in_mit_sot or args.outer_in_sit_sot)
    if carries:
        refuse_rows([along], f"{op} carries a state from one row of a minibatch to the next")
    if (carries or op.info.as_while) and any(rows_of(axes) for axes in inputs):
        raise RowsLost(f"the rows of a minibatch cannot be followed through {op}", certain=False)
    known: dict[Variable, Axes | Lost] = {
        **{var: axes[1:] for var, axes in zip(args.inner_in_seqs, looped)},
        **dict(zip(args.inner_in_non_seqs, (outer[var] for var in args.outer_in_non_seqs))),
    }
    found = {
        out: _stacked(along, trace(inner, known))
        for inner, out in zip(args.inner_out_nit_sot, args.outer_out_nit_sot, strict=True)
    }
    return [found.get(out, (OWN,) * getattr(out.type, "ndim", 0)) for out in node.outputs]


def _stacked(along: Axis, step: Axes | Lost) -> Axes:
    if isinstance(step, Lost):
        raise RowsLost(step.why, step.certain)
    return (OWN if along is SAME else along, *step)
