# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""The optimizer of ``pm.fit(n, obj_optimizer="tuned")``: Adam that becomes a natural gradient.

Posteriors of many rows are narrow, and their standard deviations can be decades apart. At one learning rate
Adam is either too slow to arrive, or varies by many standard deviations when it has. This optimizer starts
with one rate for all parameters, and ends with steps in proportion to the scale of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.argument_checks import check_int
from pymc.variational.number_inputs import as_input
from pymc.variational.optimizer_base import State, Variables
from pymc.variational.optimizers import Chain, ScaleByAdam, chain, scale_by_learning_rate
from pymc.variational.schedules import cosine_decay

__all__ = ["AdamToFisher", "tuned", "with_named_optimizer"]

#: The learning rate at the first step: about the largest at which widths do not run away.
PEAK = 0.1

#: The last part of the steps that is averaged.
AVERAGED = 0.5

#: The part of the steps in which the power rises.
RISING = 0.5


@dataclass(frozen=True)
class AdamToFisher(ScaleByAdam):
    r"""Adam's direction that becomes the gradient divided by its mean square, over `n_steps` steps.

    :math:`g \leftarrow \hat m / \sqrt{\hat v} \cdot \max(1, \sqrt{\hat v})^{-p}`, where the power :math:`p`
    rises from 0 to 1 over the first half of the steps. At 1 it is :math:`\hat m / \hat v`: like the Fisher
    information, the mean square of a noisy gradient is large where the posterior is narrow, so that
    steps become as small as its standard deviation. For gradients below 1 it is Adam.

    Parameters
    ----------
    beta1, beta2, epsilon : float
        Of :func:`~pymc.variational.optimizers.scale_by_adam`. `beta2` is small, so that the first gradients,
        which are far larger than later ones, are soon forgotten.
    n_steps : int
        Steps of the fit.
    """

    beta2: float = 0.99
    n_steps: int = 10_000

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        changes, after = super().update(grads, state, params, step)
        n_rising = RISING * as_input(self.n_steps, "n_steps")
        power = pt.minimum(step / n_rising, 1).astype(after["n"][0].dtype)
        # Adam's correction: a moving average that starts from 0 is too small at first
        of_square = 1 - self.beta2 ** after["n"][0]
        sizes = [pt.sqrt(pt.maximum(square / of_square, 1)) for square in after["square"]]
        return [change * size**-power for change, size in zip(changes, sizes)], after


def tuned(n_steps: int, learning_rate: float = PEAK) -> Chain:
    """Return the optimizer of ``pm.fit(n_steps, obj_optimizer="tuned")``.

    :class:`AdamToFisher` at a rate that falls to 0 along half a cosine. Use it with ``average=0.5``, which the
    name implies. It is for the loss of a batch, ``reduction="batch"``.

    Parameters
    ----------
    n_steps : int
        Steps of the fit, at least 1. A `refine` after them goes on at a rate of 0.
    learning_rate : float
        At the first step.

    Returns
    -------
    Chain

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number of its range.

    Examples
    --------
    >>> from pymc.variational.tuned import tuned
    >>> with pm.Model():
    ...     mu = pm.Normal("mu")
    ...     approx = pm.fit(50, obj_optimizer=tuned(50, 0.05), average=0.5, progressbar=False)
    """
    n_steps = check_int(n_steps, "n_steps", "tuned")
    return chain(
        AdamToFisher(n_steps=n_steps),
        scale_by_learning_rate(cosine_decay(learning_rate, n_steps)),
    )


def with_named_optimizer(n: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace "tuned", the name of an optimizer, in the options of a fit by the optimizer, and its average.

    An `average` among the options has precedence.

    Raises
    ------
    ValueError
        If no optimizer has that name.
    TypeError
        If `until` is given too.
    """
    name = options.get("obj_optimizer")
    if not isinstance(name, str):
        return dict(options)
    if name != "tuned":
        raise ValueError(
            f"obj_optimizer={name!r} of a fit is no name of an optimizer. The only name is 'tuned'; write other "
            "optimizers with their learning rate, such as obj_optimizer=pm.adam(learning_rate=0.01)"
        )
    if (until := options.get("until")) is not None:
        raise TypeError(
            f"until={until!r} and obj_optimizer={name!r} of a fit contradict each other: the rate falls over all "
            f"n={n} steps, and before their end it is too large to stop at. Leave until out, or take a constant "
            "rate, obj_optimizer=pm.adam(learning_rate=0.01, beta2=0.99)"
        )
    average = options.get("average")
    average = AVERAGED if average is None else average
    return {**options, "obj_optimizer": tuned(max(n, 1)), "average": average}
