# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Optimizers that compose: a chain of links, each of which transforms the gradients.

Any function ``(grads, params) -> updates``, such as ``pm.adam(learning_rate=0.01)``, is an optimizer of a
fit. An :class:`Optimizer` has an explicit state instead. Both are links of a :func:`chain`, and so are the
optimizers of optax.

The result of the last link is *added* to the parameters. So a chain needs one of PyMC's optimizers, or
:func:`scale_by_learning_rate`, which changes the sign.
"""

from __future__ import annotations

import sys

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import isclass, isroutine, signature
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace

from pymc.argument_checks import check_number
from pymc.variational.number_inputs import as_input, lift_numbers
from pymc.variational.optimizer_base import Optimizer, State, Variables, step_counter
from pymc.variational.schedules import (
    Schedule,
    check_rate_of,
    rate_at,
    rates_at,
    with_number_inputs,
)
from pymc.variational.updates import SCHEDULED, adagrad

__all__ = [
    "AddDecayedWeights",
    "Chain",
    "Clip",
    "ClipByGlobalNorm",
    "FunctionOptimizer",
    "Optimizer",
    "Scale",
    "ScaleByAdam",
    "adamw",
    "add_decayed_weights",
    "as_optimizer",
    "chain",
    "clip",
    "clip_by_global_norm",
    "name_of",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_schedule",
]


_POSITIVE = partial(check_number, above=0)
_DECAY = partial(
    check_number,
    at_least=0,
    below=1,
    hint="It is the share of a moving mean that stays at a step",
)
_WEIGHT_DECAY = partial(
    check_number, at_least=0, hint="With a negative one the parameters grow without bound"
)


@dataclass(frozen=True)
class Chain(Optimizer):
    """A sequence of links: see :func:`chain`."""

    parts: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        self.links  # raises a TypeError for a part that is no optimizer

    def __repr__(self) -> str:
        return f"chain({', '.join(map(name_of, self.parts))})"

    @property
    def links(self) -> tuple[Optimizer, ...]:
        return tuple(link for part in self.parts for link in as_optimizer(part).links)

    def check(self, names: Sequence[str | None]) -> None:
        for link in self.links:
            link.check(names)

    def rates(self, steps: np.ndarray) -> np.ndarray:
        return np.prod([link.rates(steps) for link in self.links], axis=0)

    def init(self, params: Sequence[SharedVariable]) -> State:
        states = [link.init(params) for link in self.links]
        return {f"{k}/{name}": v for k, state in enumerate(states) for name, v in state.items()}

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        after: State = {}
        for k, link in enumerate(self.links):
            prefix = f"{k}/"
            of_link = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            grads, of_link = link.update(grads, of_link, params, step)
            after |= {f"{prefix}{name}": variables for name, variables in of_link.items()}
        return grads, after


@dataclass(frozen=True)
class FunctionOptimizer(Optimizer):
    """A function ``(grads, params) -> updates`` as a link.

    For PyMC's optimizers `learning_rate`, from :func:`with_number_inputs`, is an input of the step, while the
    compiler knows the other numbers. For other functions all floats become inputs.
    """

    function: Callable[..., Mapping[SharedVariable, Variable]]
    learning_rate: Any = None

    def __repr__(self) -> str:
        return name_of(self.function)

    def rates(self, steps: np.ndarray) -> np.ndarray:
        function = self.function.func if isinstance(self.function, partial) else self.function
        # Its sum of squares grows with the steps, wherever the parameters are
        falls = (1.0 + steps) ** -0.5 if function is adagrad else 1.0
        return rates_at(self.learning_rate, steps) * falls

    def init(self, params: Sequence[SharedVariable]) -> State:
        _, updates = self.changes([p.zeros_like() for p in params], params, step_counter())
        return {"kept": [var.get_value() for var in updates]}

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        changes, updates = self.changes(grads, params, step)
        new = [*changes, *updates.values()]
        new = graph_replace(new, dict(zip(updates, state["kept"])), strict=False)
        return new[: len(changes)], {"kept": new[len(changes) :]}

    def changes(
        self, grads: Variables, params: Variables, step: Variable
    ) -> tuple[list[Variable], dict[SharedVariable, Variable]]:
        """Call the function; the other variables that it updates are its state."""
        rate = self.learning_rate
        if callable(rate):  # of the step of the fit, which is one for all parameters
            rate = rate_at(rate, step)
        arguments = {} if rate is None else {"learning_rate": rate}
        updates = dict(self.function(list(grads), list(params), **arguments))
        if rate is None:
            values = [var.type.filter_variable(value) for var, value in updates.items()]
            updates = dict(zip(updates, lift_numbers(values, [*grads, *params, *updates])))
        return [updates.pop(param, param) - param for param in params], updates


@dataclass(frozen=True)
class Clip(Optimizer):
    r"""Bound each entry of the gradients to :math:`[-\delta, \delta]`.

    Parameters
    ----------
    max_delta : float
        :math:`\delta > 0`.

    Raises
    ------
    TypeError, ValueError
        If it is not a positive, finite number.

    Examples
    --------
    >>> from pymc.variational.optimizers import chain, clip
    >>> clipped = chain(clip(1.0), pm.sgd(learning_rate=0.01))
    """

    max_delta: float = field(metadata={"check": _POSITIVE})

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        bound = as_input(self.max_delta, "max_delta")
        return [pt.clip(grad, -bound, bound) for grad in grads], state


@dataclass(frozen=True)
class ClipByGlobalNorm(Optimizer):
    r"""Bound the Euclidean norm of the gradients of all parameters together.

    :math:`g \leftarrow g \, \min(1, c / \|g\|)`, with the norm over all parameters of the fit: those that
    all rows share, and those of the rows of the batch. It is `total_grad_norm_constraint` of a fit as a
    link.

    Parameters
    ----------
    max_norm : float
        :math:`c > 0`.

    Raises
    ------
    TypeError, ValueError
        If it is not a positive, finite number.

    References
    ----------
    .. [1] Pascanu, R., Mikolov, T. & Bengio, Y. (2013). On the difficulty of training recurrent neural
       networks. ICML, algorithm 1.

    Examples
    --------
    >>> from pymc.variational.optimizers import chain, clip_by_global_norm
    >>> bounded = chain(clip_by_global_norm(10.0), pm.adam(learning_rate=0.01))
    """

    joint = True

    max_norm: float = field(metadata={"check": _POSITIVE})

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        bound = as_input(self.max_norm, "max_norm")
        squares = [(grad**2).sum() for grad in grads]
        norm = pt.sqrt(squares[0] if len(squares) == 1 else pt.add(*squares))
        factor = bound / pt.maximum(norm, bound)  # 1 up to the bound, and never 0 / 0
        return [grad * factor for grad in grads], state


@dataclass(frozen=True)
class AddDecayedWeights(Optimizer):
    r"""Add a multiple of the parameters to the gradients: :math:`g \leftarrow g + \lambda \theta`.

    Before one of PyMC's optimizers it is the gradient of an L2 penalty. Between :func:`scale_by_adam` and
    :func:`scale_by_learning_rate` it is the decoupled weight decay of :func:`adamw`.

    Parameters
    ----------
    weight_decay : float
        :math:`\lambda \ge 0`.
    mask : sequence of str, optional
        Names of the parameters that decay. Default: all, also those of the standard deviations of a guide,
        so name the weights of an encoder instead.

    Raises
    ------
    TypeError, ValueError
        If `weight_decay` is no such number, or, when a fit begins, it has no parameter of such a name.

    Examples
    --------
    >>> from pymc.variational.optimizers import add_decayed_weights, chain
    >>> penalised = chain(add_decayed_weights(1e-4, mask=["weights"]), pm.adam(learning_rate=0.01))
    """

    # With a negative one the parameters would grow without bound
    weight_decay: float = field(metadata={"check": _WEIGHT_DECAY})
    mask: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.mask, str):
            raise TypeError(
                f"mask={self.mask!r} of add_decayed_weights must be a list of names of parameters: write "
                f"[{self.mask!r}]"
            )
        if self.mask is not None:
            object.__setattr__(self, "mask", tuple(self.mask))

    def check(self, names: Sequence[str | None]) -> None:
        unknown = [name for name in self.mask or () if name not in names]
        if unknown:
            raise ValueError(
                f"mask of add_decayed_weights has {', '.join(map(repr, unknown))}, and the parameters of "
                f"this fit are {', '.join(map(repr, names))}: without one of its names nothing would decay"
            )

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        decay = as_input(self.weight_decay, "weight_decay")
        return [
            grad + decay * param if self.mask is None or param.name in self.mask else grad
            for grad, param in zip(grads, params)
        ], state


@dataclass(frozen=True)
class Scale(Optimizer):
    """Multiply by a number or a schedule: see :func:`scale` and :func:`scale_by_learning_rate`."""

    factor: float | Schedule
    descend: bool = False

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        factor = rate_at(with_number_inputs(self.factor), step)
        return [-(factor * grad) if self.descend else factor * grad for grad in grads], state

    def rates(self, steps: np.ndarray) -> np.ndarray:
        return rates_at(self.factor, steps)


@dataclass(frozen=True)
class ScaleByAdam(Optimizer):
    r"""Divide a moving mean of the gradients by the root of a moving mean of their squares.

    :math:`m \leftarrow \beta_1 m + (1 - \beta_1) g`, :math:`v \leftarrow \beta_2 v + (1 - \beta_2) g^2`, and
    :math:`g \leftarrow \hat m / (\sqrt{\hat v} + \epsilon)` with :math:`\hat m = m / (1 - \beta_1^n)` and
    :math:`\hat v = v / (1 - \beta_2^n)`. Of a row, :math:`n` counts its visits.

    Parameters
    ----------
    beta1, beta2 : float
        From 0 up to 1, without 1.
    epsilon : float
        Positive. It is added to the corrected root, as in algorithm 1 of [1]_; :func:`pymc.adam` adds it
        to the root without correction.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number of this range.

    References
    ----------
    .. [1] Kingma, D. P. & Ba, J. (2015). Adam: A Method for Stochastic Optimization. ICLR.

    Examples
    --------
    >>> from pymc.variational.optimizers import chain, scale_by_adam, scale_by_learning_rate
    >>> adam = chain(scale_by_adam(beta1=0.8), scale_by_learning_rate(0.01))
    """

    numbers_are_inputs = False  # the compiler takes the logarithm of a known base once

    beta1: float = field(default=0.9, metadata={"check": _DECAY})
    beta2: float = field(default=0.999, metadata={"check": _DECAY})
    epsilon: float = field(default=1e-8, metadata={"check": _POSITIVE})

    def init(self, params: Sequence[SharedVariable]) -> State:
        zeros = [np.zeros_like(param.get_value(borrow=True)) for param in params]
        # A count of its own, since it is one of each row
        return {"mean": zeros, "square": zeros, "n": [np.zeros((), pytensor.config.floatX)]}

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        n = state["n"][0] + 1
        mean = [self.beta1 * m + (1 - self.beta1) * g for m, g in zip(state["mean"], grads)]
        square = [self.beta2 * v + (1 - self.beta2) * g**2 for v, g in zip(state["square"], grads)]
        of_mean, of_square = 1 - self.beta1**n, 1 - self.beta2**n
        changes = [
            (m / of_mean) / (pt.sqrt(v / of_square) + self.epsilon) for m, v in zip(mean, square)
        ]
        return changes, {"mean": mean, "square": square, "n": [n]}


# Links are called like functions in a chain
clip = Clip
clip_by_global_norm = ClipByGlobalNorm
add_decayed_weights = AddDecayedWeights
scale_by_adam = ScaleByAdam


def chain(*optimizers: Any) -> Chain:
    r"""Compose optimizers: gradients go through one after the other.

    Parameters
    ----------
    *optimizers : Optimizer, callable (grads, params) -> updates, or optimizer of optax
        The result of each is the gradient of the next. The result of the last is added to the parameters.

    Returns
    -------
    Chain
        An `obj_optimizer` of a fit, and a link of another chain.

    Raises
    ------
    TypeError
        If one of them is no optimizer.

    Examples
    --------
    >>> from pymc.variational.optimizers import chain, clip_by_global_norm
    >>> chain(clip_by_global_norm(10.0), pm.adam(learning_rate=0.01))
    chain(ClipByGlobalNorm(max_norm=10.0), adam(learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-08))
    """
    if not optimizers:
        raise TypeError(
            "chain() has no optimizer: write chain(clip(1.0), pm.adam(learning_rate=0.01))"
        )
    return Chain(optimizers)


def scale(factor: float) -> Scale:
    """Multiply the gradients by a number.

    Parameters
    ----------
    factor : float

    Raises
    ------
    TypeError, ValueError
        If it is not a finite number.

    Examples
    --------
    >>> from pymc.variational.optimizers import chain, scale
    >>> halved = chain(pm.adam(learning_rate=0.01), scale(0.5))
    """
    return Scale(check_number(factor, "factor", "scale"))


def scale_by_schedule(schedule: Schedule) -> Scale:
    """Multiply the gradients by a function of the step.

    Parameters
    ----------
    schedule : callable
        One of :mod:`pymc.variational.schedules`, or your own.

    Raises
    ------
    TypeError
        If it cannot be called.

    Examples
    --------
    >>> from pymc.variational.optimizers import chain, scale_by_schedule
    >>> from pymc.variational.schedules import linear_warmup
    >>> warm = chain(pm.adam(learning_rate=0.01), scale_by_schedule(linear_warmup(1.0, 100)))
    """
    if not callable(schedule):
        raise TypeError(
            f"schedule of scale_by_schedule is a function of the step, got {schedule!r}: write "
            "scale(...) for a number"
        )
    return Scale(schedule)


def scale_by_learning_rate(learning_rate: float | Schedule) -> Scale:
    r"""Multiply by minus the learning rate: :math:`g \leftarrow -\eta g`, the end of a descent.

    Parameters
    ----------
    learning_rate : float, symbolic scalar or schedule
        :math:`\eta`.

    Raises
    ------
    TypeError, ValueError
        If it is not a finite number, nor a schedule.

    Examples
    --------
    >>> from pymc.variational.optimizers import chain, scale_by_adam, scale_by_learning_rate
    >>> adam = chain(scale_by_adam(), scale_by_learning_rate(0.01))
    """
    check_rate_of("scale_by_learning_rate", learning_rate)
    return Scale(learning_rate, descend=True)


def adamw(
    learning_rate: float | Schedule = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 1e-4,
    mask: Sequence[str] | None = None,
) -> Chain:
    r"""Adam with decoupled weight decay: :math:`\theta \leftarrow \theta - \eta (a + \lambda \theta)`.

    :math:`a` is the result of :func:`scale_by_adam`. Unlike an L2 penalty, the decay is not divided by the
    root of the squared gradients [1]_.

    Parameters
    ----------
    learning_rate : float, symbolic scalar or schedule
        :math:`\eta`.
    beta1, beta2, epsilon : float
        Of :func:`scale_by_adam`.
    weight_decay : float
        :math:`\lambda \ge 0`. It is multiplied by the learning rate.
    mask : sequence of str, optional
        Names of the parameters that decay. Default: all.

    Returns
    -------
    Chain

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number of its range.

    References
    ----------
    .. [1] Loshchilov, I. & Hutter, F. (2019). Decoupled Weight Decay Regularization. ICLR, algorithm 2.

    Examples
    --------
    >>> with pm.Model():
    ...     mu = pm.Normal("mu")
    ...     approx = pm.fit(10, obj_optimizer=pm.adamw(learning_rate=0.1), progressbar=False)
    """
    return chain(
        scale_by_adam(beta1, beta2, epsilon),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def as_optimizer(value: Any) -> Optimizer:
    """Return the `obj_optimizer` of a fit as an :class:`Optimizer`, or raise a TypeError.

    Examples
    --------
    >>> from pymc.variational.optimizers import as_optimizer
    >>> as_optimizer(pm.adam(learning_rate=0.1)).learning_rate.get_value()
    array(0.1)
    """
    if isinstance(value, Optimizer):
        return value
    optax = sys.modules.get("optax")  # who has one of its optimizers has imported it
    if optax is not None and isinstance(value, optax.GradientTransformation):
        # JAX comes with it
        from pymc.variational.optax_optimizers import OptaxOptimizer

        return OptaxOptimizer(value)
    if not callable(value):
        raise TypeError(
            f"obj_optimizer={value!r} is no optimizer: write pm.adam(learning_rate=0.01), a chain of "
            "pymc.variational.optimizers, a function (grads, params) -> updates, or an optimizer of optax; the "
            "name 'tuned' is known to fits of a number of steps, pm.fit(n) and Trainer.fit(n)"
        )
    function, arguments = value, {}
    if isinstance(value, partial) and not value.args:
        function, arguments = value.func, value.keywords
    if not any(function is known for known in SCHEDULED):
        return FunctionOptimizer(value)
    default = signature(function).parameters["learning_rate"].default
    return FunctionOptimizer(value, with_number_inputs(arguments.get("learning_rate", default)))


def name_of(optimizer: Any) -> str:
    """Return the text of an optimizer in reports and errors, with the arguments of PyMC's.

    Examples
    --------
    >>> from pymc.variational.optimizers import name_of
    >>> name_of(pm.sgd(learning_rate=0.1))
    'sgd(learning_rate=0.1)'
    """
    if isinstance(optimizer, partial):
        given = ", ".join(f"{name}={value!r}" for name, value in optimizer.keywords.items())
        return f"{name_of(optimizer.func)}({given})"
    return optimizer.__name__ if isroutine(optimizer) or isclass(optimizer) else repr(optimizer)
