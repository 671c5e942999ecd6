# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What to say of a step whose loss or parameters are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from pymc.variational.engine.batch_feed import PreparedBatches
from pymc.variational.engine.step_cache import Step

__all__ = ["describe"]

ADVICE = (
    "The approximation keeps the state of the last good step, and `hist` the losses up to it. Try a "
    "smaller learning rate (obj_optimizer=pm.adam(learning_rate=1e-4)), a bound on the gradient "
    "(total_grad_norm_constraint=10.), a start from which the model's logp is finite (start=...; "
    "model.debug() shows the terms that are not), data without nan or inf, or record the parameters "
    "with pm.callbacks.Tracker to see where they go."
)


def describe(
    approx: Any, step: Step, n_good: int, loss: float, fed: PreparedBatches | None = None
) -> str:
    """Write the message for a step that went wrong after `n_good`.

    Parameters
    ----------
    approx : Approximation
        In the state after the last good step.
    step : Step
        It is taken once more, to see what it does; a guarded one is not, since it does nothing.
    n_good : int
    loss : float
        Of the step that went wrong, nan if it has none.
    fed : PreparedBatches, optional
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
        for name, value in approx.bad_terms()
    ]
    return "\n".join([*lines, ADVICE])


def _taken_again(
    approx: Any, step: Step, beginning: str, loss: float, fed: PreparedBatches | None
) -> list[str]:
    """Take the step that went wrong, and say what its loss and which parameters are."""
    after, losses = step.driver.run(step.driver.copy(step.load()), 1, fed)
    if step.has_loss:
        beginning += f": its loss is {losses[-1].flat[0] if len(losses) else loss}"
    return [
        f"{beginning}.",
        *(
            f"The current approximation of RV `{name}`.ravel()[{entries}] is not finite after it."
            for name, entries in approx.bad_parameters(
                dict(zip(step.shared, map(np.asarray, after)))
            )
        ),
    ]
