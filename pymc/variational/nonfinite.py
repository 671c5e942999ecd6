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
"""What to say of a step whose loss or parameters are not finite."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from pymc.pytensorf import compile
from pymc.variational.engine.compiled import Step
from pymc.variational.engine.drivers import State
from pymc.variational.engine.feeds import Fed

__all__ = ["describe"]

ADVICE = (
    "The approximation keeps the state of the last good step, and `hist` the losses up to it. Try a "
    "smaller learning rate (obj_optimizer=pm.adam(learning_rate=1e-4)), a bound on the gradient "
    "(total_grad_norm_constraint=10.), a start from which the model's logp is finite (start=...; "
    "model.debug() shows the terms that are not), data without nan or inf, or record the parameters "
    "with pm.callbacks.Tracker to see where they go."
)


def describe(approx: Any, step: Step, n_good: int, loss: float, fed: Fed | None = None) -> str:
    """Write the message for a step that went wrong after `n_good`.

    Parameters
    ----------
    approx : Approximation
        In the state after the last good step. Its method `bad_terms`, if it has one, lists (name,
        value) of the model's terms that are not finite.
    step : Step
        It is taken once more, to see what it does; a guarded one is not, since it does nothing.
    n_good : int
    loss : float
        Of the step that went wrong, nan if it has none.
    fed : Fed, optional
        Its batch.
    """
    beginning = f"NaN occurred in optimization. Step {n_good + 1} is not finite"
    if step.guarded:
        what = "its loss, or a parameter after it," if np.isnan(loss) else "its loss"
        lines = [f"{beginning}: {what} is {loss}."]
    else:
        lines = _taken_again(approx, step, beginning, loss, fed)
    lines += [
        f"The log-probability of `{name}` is {value} at the mean of the approximation before it."
        for name, value in getattr(approx, "bad_terms", partial(_bad_terms, approx))()
    ]
    return "\n".join([*lines, ADVICE])


def _taken_again(
    approx: Any, step: Step, beginning: str, loss: float, fed: Fed | None
) -> list[str]:
    """Take the step that went wrong, and say what its loss and which parameters are."""
    after, losses = step.driver.run(step.driver.copy(step.load()), 1, fed)
    if step.has_loss:
        beginning += f": its loss is {losses[-1] if len(losses) else loss}"
    return [
        f"{beginning}.",
        *(
            f"The current approximation of RV `{name}`.ravel()[{entries}] is not finite after it."
            for name, entries in _bad_parameters(approx, step, after)
        ),
    ]


def _bad_parameters(approx: Any, step: Step, after: State) -> list[tuple[str, str]]:
    """Name the variables, and their entries, whose parameters are not finite in a state."""
    found = []
    for group in approx.groups:
        values = [
            np.asarray(after[step.shared.index(param)])
            for param in group.params
            if param in step.shared
        ]
        bad = np.zeros(group.ddim, dtype=bool)
        for value in values:
            if value.ndim and value.shape[-1] == group.ddim:
                bad |= ~np.isfinite(value).reshape(-1, group.ddim).all(axis=0)
        for name, entries, *_ in group.ordering.values():
            where = np.flatnonzero(bad[entries])
            if where.size:
                found.append((name, ", ".join(map(str, where[:5])) + (", ..." * (where.size > 5))))
    return found


def _bad_terms(approx: Any) -> list[tuple[str, float]]:
    """Name the terms of the model that are not finite at the mean of the approximation."""
    model = approx.model
    variables = [*model.basic_RVs, *model.potentials]
    try:
        terms = [term.sum() for term in model.logp(vars=variables, sum=False)]
        values = approx.sample_node(terms, deterministic=True)
        sums = compile([], values, mode="FAST_COMPILE")()
    # Something else may be wrong with a model that gives no number, and this is a message only
    except Exception:
        return []
    return [
        (var.name, float(value)) for var, value in zip(variables, sums) if not np.isfinite(value)
    ]
