# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What an observed value may depend on: data, and minibatch indexes; nothing else that is random.

The check is a graph rewriter that changes nothing and raises. It is registered in
``observed_checks_db``, where other checks of observed values have their place.
"""

from __future__ import annotations

from typing import Any

from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.rewriting.basic import GraphRewriter
from pytensor.graph.rewriting.db import RewriteDatabaseQuery, SequenceDB
from pytensor.tensor.random.op import RNGConsumerOp

from pymc.minibatch.index import MinibatchIndexRV

__all__ = ["check_observed", "is_valid_observed", "observed_checks_db"]

# Without a callback: the default one would print what is raised, and go on
observed_checks_db = SequenceDB(failure_callback=None)
observed_checks_db.name = "observed_checks_db"


class CheckAncestry(GraphRewriter):
    """Raise where an output depends on a random variable that is not a minibatch index."""

    def apply(self, fgraph: FunctionGraph) -> None:
        for observed in fgraph.outputs:
            path = random_ancestor(observed)
            if path:
                culprit = path[-1].name or str(path[-1].owner.op)
                steps = " <- ".join(v.name or str(v.owner.op if v.owner else v) for v in path)
                raise TypeError(
                    "Variables that depend on other nodes cannot be used for observed data. "
                    f"The observed value depends on the random variable {culprit!r} ({steps}), so "
                    "it would change at each evaluation. It may depend on data (arrays, pm.Data, "
                    "shared variables) and on pm.Minibatch only. To condition on draws of "
                    f"{culprit!r}, draw them first: observed=pm.draw(...)"
                )


observed_checks_db.register("check_ancestry", CheckAncestry(), "basic", position=1)


def check_observed(observed: Variable) -> None:
    """Run the registered checks of an observed value.

    Raises
    ------
    TypeError
        If it depends on a random variable that is not a minibatch index; the message names the
        variable and the path to it.
    """
    checks = observed_checks_db.query(RewriteDatabaseQuery(include=["basic"]))
    checks.rewrite(FunctionGraph(outputs=[observed], clone=False))


def is_valid_observed(var: Any) -> bool:
    """Tell whether `var` may be observed; all that is not symbolic may."""
    return not isinstance(var, Variable) or not random_ancestor(var)


def random_ancestor(var: Variable) -> tuple[Variable, ...]:
    """Find the path from `var` to a random variable other than a minibatch index; or an empty one."""
    paths: list[tuple[Variable, ...]] = [(var,)]
    seen = set()
    while paths:
        path = paths.pop()
        node = path[-1].owner
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node.op, RNGConsumerOp) and not isinstance(node.op, MinibatchIndexRV):
            return path
        inner = node.op.inner_outputs if isinstance(node.op, HasInnerGraph) else ()
        paths.extend((*path, parent) for parent in (*node.inputs, *inner))
    return ()
