# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Reweighted wake-sleep: a loss of the model and another of the guide, without gradients through draws.

With draws :math:`z_k \sim q_\phi(z \mid x)` of a row and its normalised weights
:math:`v_k \propto p_\theta(x, z_k) / q_\phi(z_k \mid x)`,

.. math::

    \text{wake-}\theta: \; -\log \frac1K \sum_k \frac{p_\theta(x, z_k)}{q_\phi(z_k \mid x)}, \quad
    \text{wake-}\phi: \; -\sum_k v_k \log q_\phi(z_k \mid x), \quad
    \text{sleep-}\phi: \; -\log q_\phi(z' \mid x'), \; (z', x') \sim p_\theta.

No gradient passes through a draw or a weight, so variables of rows may be discrete.

The sleep phase replaces the observed values in the graph of a guide by simulated ones. So a column, a
logarithm or a concatenation of them is simulated too, and what the model itself computes from observed
values. Data that are not observed, such as covariates, stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Apply, Variable, equal_computations
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort
from pytensor.scalar import Cast, Second
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.type import RandomGeneratorType
from pytensor.tensor.shape import Shape, Shape_i, SpecifyShape

from pymc.argument_checks import check_number
from pymc.minibatch.axis_tracking import indexes
from pymc.variational.guides.base import Guide
from pymc.variational.guides.model_guide import ModelGuide
from pymc.variational.minibatch_rv import (  # type: ignore[attr-defined]  # of the release
    MinibatchRandomVariable,
    unscaled_rv,
)
from pymc.variational.objectives.base import (
    Draws,
    Loss,
    Losses,
    Objective,
    Setting,
    Weights,
    draw_all,
    log_weights,
    total,
)
from pymc.variational.objectives.importance_weighted import IWAE
from pymc.variational.vectorize import at_draws

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["ReweightedWakeSleep"]

WAKE_ONLY = "stay awake with pm.ReweightedWakeSleep(insomnia=1)"


@dataclass(frozen=True)
class ReweightedWakeSleep(Objective):
    """Reweighted wake-sleep, the objective "rws".

    The parameters of the model, and the guides of global variables, follow the importance-weighted
    bound (wake-theta), whose negative is the loss in the history. The guides of rows, or all guides if no
    variable has rows, minimise ``insomnia`` times wake-phi plus ``1 - insomnia`` times sleep-phi. All
    losses are in nats.

    Parameters
    ----------
    insomnia : float
        From 0 to 1, the share of wake-phi. Below 1 the guides of rows have to be amortized, by inputs
        of which at least one is computed from observed values: those are replaced by simulated ones.

    Raises
    ------
    TypeError, ValueError
        If `insomnia` is not a number from 0 to 1.

    Notes
    -----
    The fit keeps the guide's losses, wake-phi and sleep-phi without their shares, next to the history:
    ``approx.guide_losses["wake_phi"]`` has one for each step, of the size of the history's.

    With one particle the weights say nothing, and wake-phi has a gradient of mean 0.

    References
    ----------
    Jörg Bornschein, Yoshua Bengio (2015), Reweighted wake-sleep, section 2. arXiv:1406.2751
    Tuan Anh Le et al. (2019), Revisiting reweighted wake-sleep for models with stochastic control flow,
    equations 5, 7 and 9. arXiv:1805.10469

    Examples
    --------
    >>> pm.ReweightedWakeSleep(insomnia=0.8).name
    'rws(insomnia=0.8)'
    """

    insomnia: float = 1.0

    of_particles: ClassVar[bool] = True  # type: ignore[misc]
    needs_reparametrisation: ClassVar[bool] = False  # type: ignore[misc]

    def __post_init__(self) -> None:
        hint = "It is the share of wake-phi in the loss of the guide, from 0 (sleep only) to 1 (wake only)"
        check_number(
            self.insomnia, "insomnia", "pm.ReweightedWakeSleep", at_least=0, at_most=1, hint=hint
        )

    @property
    def name(self) -> str:  # type: ignore[override]
        return "rws" if self.insomnia == 1 else f"rws(insomnia={self.insomnia:g})"

    @property
    def guide_losses(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the losses of the guide that a fit keeps, each without its share."""
        wake = ("wake_phi",) if self.insomnia > 0 else ()
        return wake if self.insomnia == 1 else (*wake, "sleep_phi")

    def losses(self, setting: Setting) -> Losses:
        """Return wake-theta, and for the guides of rows wake-phi and sleep-phi.

        Raises
        ------
        ValueError
            If `insomnia` is below 1 and the inputs of a guide cannot be simulated.
        """
        guides = setting.local_guides or setting.guides
        others = tuple(guide for guide in setting.guides if guide not in guides)
        draws = draw_all(setting)
        weights = log_weights(setting, draws)
        bound = IWAE().bound
        detached = log_weights(setting, draws.detached(guides), setting.detached_params(guides))
        theta = -total(setting, detached, bound)
        aux_losses, phi = {}, pt.constant(0.0)
        if self.insomnia > 0:
            aux_losses["wake_phi"] = wake_phi(setting, draws, weights, guides)
            phi = phi + self.insomnia * aux_losses["wake_phi"]
        if self.insomnia < 1:
            simulated = simulate(setting, draws, guides, self.name)
            aux_losses["sleep_phi"] = sleep_phi(setting, simulated, guides)
            phi = phi + (1 - self.insomnia) * aux_losses["sleep_phi"]
        shared = setting.shared_params(guides)
        rest = (*setting.parameters_of(others), *setting.model_only_params(guides))
        minimised = [Loss("guide", phi, setting.parameters_of(guides))]
        # Only the model is differentiated in theta, and only the guide in phi
        if shared:
            minimised.append(Loss("shared", theta + phi, shared))
        minimised.append(Loss("wake_theta", theta, rest))
        reported = -total(setting, weights, bound)
        return Losses(reported, tuple(minimised), tuple(aux_losses.items()))


def wake_phi(setting: Setting, draws: Draws, weights: Weights, guides: Sequence[Guide]) -> Variable:
    """Return the cross-entropy of guides of one plate to their weighted draws, in nats of all data."""
    plate = guides[0].plate
    logw = disconnected_grad(weights.rows[plate] if plate else weights.global_)

    def weighted(logq: Variable, axis: int) -> Variable:
        return (pt.special.softmax(logw, axis=axis) * logq).sum(axis=axis)

    return -total(setting, _logq(setting, draws.detached(guides), guides), weighted)


def sleep_phi(setting: Setting, simulated: Draws, guides: Sequence[Guide]) -> Variable:
    """Return the cross-entropy of guides of one plate to simulated draws, in nats of all data."""
    logq = _logq(setting, simulated, guides)
    return -total(setting, logq, lambda weights, axis: weights.mean(axis=axis))


def _logq(setting: Setting, draws: Draws, guides: Sequence[Guide]) -> Weights:
    logqs = [
        guide.logq(
            draws.latents[guide], setting.param_values, draws.n_sample_dims[guide], draws.parents
        )
        for guide in guides
    ]
    logq, plate = pt.add(*logqs) if len(logqs) > 1 else logqs[0], guides[0].plate
    return Weights(pt.constant(0.0), {plate: logq}) if plate else Weights(logq, {})


def simulate(setting: Setting, draws: Draws, guides: Sequence[Guide], name: str) -> Draws:
    """Draw the variables of amortized guides from the model, and the observed values that the guides read.

    Variables of the rows and their observed values are simulated together, once for each outer draw, given
    the draws of other variables. The result is of `guides`, all of one plate, without gradients; its
    `parents` have the simulated observed values. `name` is that of the objective in messages.
    """
    phase = (
        f"objective {name!r} has a sleep phase, in which guides learn from simulated data in the place "
        "of observed ones"
    )
    rvs = [site.rv for guide in guides for site in guide.sites]
    detached = {
        var: disconnected_grad(draw) for var, draw in draws.parents.items() if var not in rvs
    }
    _check_potentials(setting, phase)
    observed = _observed_values(setting.model)
    inputs = _observed_inputs(guides, observed, detached, phase)
    graphs = _simulate(rvs, observed, detached, set(inputs.values()), phase)
    n_sample_dims = len(setting.sample_shapes[0])
    simulated = {
        old: disconnected_grad(_with_sample_dims(new, old, n_sample_dims))
        for old, new in graphs.items()
    }
    parents = detached | {rv: simulated[rv] for rv in rvs}
    parents |= {var: simulated[value] for var, value in inputs.items()}
    return Draws(
        {guide: guide.latents_from(simulated) for guide in guides if isinstance(guide, ModelGuide)},
        parents,
        dict.fromkeys(guides, n_sample_dims),
    )


def _check_potentials(setting: Setting, phase: str) -> None:
    """Raise if a Potential depends on the rows, since it cannot be simulated from."""
    local = {site.value for site in setting.sites if site.plate}
    potentials = {var.name for var in setting.model.potentials}
    for term in setting.terms:
        if term.name in potentials and (
            term.plate or term.mixed or not local.isdisjoint(ancestors([term.logp]))
        ):
            raise ValueError(
                f"{phase}, but a model with the pm.Potential {term.name!r} of the rows cannot be "
                "simulated: the guide would learn the posterior without it. Write it as a distribution, "
                f"or {WAKE_ONLY}"
            )


def _observed_inputs(
    guides: Sequence[Guide],
    observed: Collection[Variable],
    detached: Collection[Variable],
    phase: str,
) -> dict[Variable, Variable]:
    """Map the variables in guides that are observed values to these."""
    rvs = {site.rv for guide in guides for site in guide.sites}
    inputs: dict[Variable, Variable] = {}
    for guide in guides:
        sites = ", ".join(repr(site.name) for site in guide.sites)
        if not isinstance(guide, ModelGuide):
            raise ValueError(
                f"{phase}, but the guide of {sites} is computed from no data: give it a pm.Amortized "
                f"guide, or {WAKE_ONLY}"
            )
        graphs = [dist.graph for dist in guide.distributions]
        found = _find_observed(graphs, observed, [*detached, *rvs])
        if not found and rvs.isdisjoint(guide.reads()):
            raise ValueError(
                f"{phase}, but no input of the guide of {sites} is computed from what the model "
                f"observes: name the minibatch that is observed among its inputs, or {WAKE_ONLY}"
            )
        subject = f"{phase}, but the guide of {sites}"
        _check_data(graphs, observed, [*detached, *rvs, *found], subject)
        inputs |= found
    return inputs


def _check_data(
    graphs: Sequence[Variable],
    observed: Collection[Variable],
    known: Collection[Variable],
    subject: str,
) -> None:
    """Raise if graphs read the data of an observed value other than through `known` variables."""
    data = _data_of(graphs, known) & _data_of(list(observed)) - set(known)
    if data:
        names = ", ".join(sorted(repr(var.name or str(var)) for var in data))
        raise ValueError(
            f"{subject} is computed from {names} in another way than what is observed of it. Compute "
            "it from what is observed, and keep covariates in a pm.Data of their own"
        )


def _simulate(
    rvs: Sequence[Variable],
    observed: Mapping[Variable, Variable],
    detached: Mapping[Variable, Variable],
    wanted: Collection[Variable],
    phase: str,
) -> dict[Variable, Variable]:
    """Simulate `rvs` and the `wanted` observed values, conditional on the `detached` draws.

    `observed` maps each observed value to its variable. If the model reads an observed value, it reads the
    simulated one here.
    """
    keys = [*rvs, *observed]
    outputs = (unscaled_rv(rv)[0].astype(value.type.dtype) for value, rv in observed.items())
    # All graphs go through each replacement together: apart, they would be different simulations
    parents = {var: var.type() for var in detached}
    graphs = list(graph_replace(_without_scales([*rvs, *outputs]), parents, strict=False))
    lengths = {var: var.type() for var in _observed_shapes(graphs, observed, rvs)}
    graphs = list(graph_replace(graphs, lengths, strict=False))
    placeholders = {value: value.type() for value in observed}
    found = {var: placeholders[value] for var, value in _find_observed(graphs, observed).items()}
    graphs = list(graph_replace(graphs, found, strict=False))
    graphs = _fill_in(dict(zip(keys, graphs)), placeholders)
    result = {key: g for key, g in zip(keys, graphs) if key in rvs or key in wanted}
    for key, graph in result.items():
        subject = f"{phase}, but in the model {observed.get(key, key).name!r}"
        if not set(placeholders.values()).isdisjoint(ancestors([graph])):
            raise ValueError(
                f"{subject} depends on observed values that depend on itself, so that none can be "
                "simulated first. Let one observed variable be given the other, and not both, or "
                f"{WAKE_ONLY}"
            )
        _check_data([graph], observed, (), subject)
    shapes = {new: var for var, new in lengths.items()}
    graphs = list(graph_replace(list(result.values()), shapes, strict=False))
    draws = {new: detached[var] for var, new in parents.items()}
    return dict(zip(result, at_draws(_with_new_generators(graphs), draws)))


def _fill_in(
    graphs: Mapping[Variable, Variable], placeholders: Mapping[Variable, Variable]
) -> list[Variable]:
    """Replace the placeholders of observed values by their simulations, in an order in which that is possible.

    Placeholders of values that depend on each other are left.
    """
    place = {key: k for k, key in enumerate(graphs)}
    result, waiting = list(graphs.values()), dict(placeholders)
    while waiting:
        left = set(waiting.values())
        ready = [v for v in waiting if left.isdisjoint(ancestors([result[place[v]]]))]
        if not ready:
            break
        # A graph without placeholders stays the same variable when the others are replaced
        swaps = {waiting.pop(value): result[place[value]] for value in ready}
        result = list(graph_replace(result, swaps, strict=False))
    return result


def _observed_values(model: Model) -> dict[Variable, Variable]:
    """Map each observed value, before PyMC's cast to the type of the variable, to the variable."""
    result = {}
    for rv in model.observed_RVs:
        value = model.rvs_to_values[rv]
        while value.owner is not None and _is_cast(value.owner):
            value = value.owner.inputs[0]
        result[value] = rv
    return result


def _is_cast(node: Apply) -> bool:
    is_cast = isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, Cast)
    return is_cast or isinstance(node.op, SpecifyShape)


def _find_observed(
    graphs: Sequence[Variable], observed: Collection[Variable], blockers: Collection[Variable] = ()
) -> dict[Variable, Variable]:
    """Map the variables in graphs that equal an observed value to it; a batch may be there in copies."""
    return {
        var: value
        for var in ancestors(graphs, blockers)
        for value in observed
        if var is value or (var.owner is not None and equal_computations([var], [value]))
    }


def _shapes_in(graphs: Sequence[Variable]) -> list[Variable]:
    return [v for v in ancestors(graphs) if v.owner and isinstance(v.owner.op, Shape | Shape_i)]


def _observed_shapes(
    graphs: Sequence[Variable], observed: Collection[Variable], rvs: Collection[Variable]
) -> list[Variable]:
    """List the shapes of observed values in graphs: a simulation has the same ones."""
    return [
        var
        for var in _shapes_in(graphs)
        if _find_observed([var], observed) and set(rvs).isdisjoint(ancestors([var]))
    ]


def _data_of(graphs: Sequence[Variable], drawn: Collection[Variable] = ()) -> set[Variable]:
    """Return the data whose values graphs read, without those read for their rows or shapes only."""
    blockers = {*indexes(graphs), *drawn, *_shapes_in(graphs)}
    return {var for var in ancestors(graphs, blockers) if isinstance(var, SharedVariable)}


def _without_scales(graphs: Sequence[Variable]) -> list[Variable]:
    """Remove Ops that scale variables, and values that are read for their shape only."""
    graphs = list(graphs)
    while swaps := [pair for node in toposort(graphs) for pair in _simpler(node)]:
        graphs = list(graph_replace(graphs, dict(swaps[:1])))
    return graphs


def _simpler(node: Apply) -> list[tuple[Variable, Variable]]:
    """Return the output of a node that can be replaced, with its replacement."""
    output = node.outputs[0]
    if isinstance(node.op, MinibatchRandomVariable):
        return [(output, node.inputs[0])]
    if not isinstance(node.op, Elemwise) or not isinstance(node.op.scalar_op, Second):
        return []
    like, value = node.inputs  # of pt.ones_like and the like
    lengths = [
        known or (value if like.type.broadcastable[k] else like).shape[k]
        for k, known in enumerate(output.type.shape)
    ]
    return [(output, pt.alloc(value, *lengths))]


def _with_new_generators(graphs: Sequence[Variable]) -> list[Variable]:
    """Copy the random generators of graphs, since the loss may contain the model's variables by shape.

    The rows of the batch stay the same.
    """
    rngs = [
        var
        for var in ancestors(graphs)
        if isinstance(var, SharedVariable) and isinstance(var.type, RandomGeneratorType)
    ]
    fresh = {rng: pytensor.shared(rng.get_value(), name=rng.name) for rng in rngs}
    # An index that reads the length of data in the graphs would be copied otherwise
    same = {var: var for var in indexes(graphs, by_shape=True)}
    return list(graph_replace(graphs, {**fresh, **same}, strict=False))


def _with_sample_dims(new: Variable, old: Variable, n_sample_dims: int) -> Variable:
    """Pad a draw that depends on no global variable with leading axes."""
    n_missing = n_sample_dims - (new.type.ndim - old.type.ndim)
    return pt.shape_padleft(new, n_missing) if n_sample_dims else new
