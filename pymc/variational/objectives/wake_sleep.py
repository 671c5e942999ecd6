# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Reweighted wake-sleep: the model and the guide have losses of their own, and draws are held.

With draws :math:`z_k \sim q_\phi(z \mid x)` of a row and its normalised weights
:math:`v_k \propto p_\theta(x, z_k) / q_\phi(z_k \mid x)`,

.. math::

    \text{wake-}\theta: \; -\log \frac1K \sum_k \frac{p_\theta(x, z_k)}{q_\phi(z_k \mid x)}, \quad
    \text{wake-}\phi: \; -\sum_k v_k \log q_\phi(z_k \mid x), \quad
    \text{sleep-}\phi: \; -\log q_\phi(z' \mid x'), \; (z', x') \sim p_\theta.

No gradient passes through a draw or a weight, so variables of rows may be discrete.

References
----------
-   Jörg Bornschein, Yoshua Bengio (2015)
    Reweighted wake-sleep, section 2. arXiv:1406.2751
-   Tuan Anh Le et al. (2019)
    Revisiting reweighted wake-sleep for models with stochastic control flow, equations 5, 7 and 9.
    arXiv:1805.10469
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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
from pymc.variational.minibatch_rv import released, unscaled_rv
from pymc.variational.objectives.base import (
    Draws,
    Loss,
    Losses,
    Objective,
    Setting,
    Weights,
    draw_all,
    log_weights,
    sample_shapes,
    total,
)
from pymc.variational.objectives.importance_weighted import IWAE, hold, tied_parameters, untied
from pymc.variational.vectorize import at_draws

if TYPE_CHECKING:
    from pymc.model.core import Model


@dataclass(frozen=True)
class ReweightedWakeSleep(Objective):
    """Reweighted wake-sleep, the objective "rws".

    The parameters of the model, and the guides of global variables, follow the importance-weighted
    bound (wake-theta), whose negative is what the history has. The guides of rows, or all guides where
    nothing is of a row, minimise ``insomnia`` times wake-phi plus ``1 - insomnia`` times sleep-phi. All
    losses are in nats.

    Parameters
    ----------
    insomnia : float
        From 0 to 1, the share of wake-phi. Below 1 the guides of rows have to be amortized, by inputs
        of which at least one is computed from observed values: those are replaced by simulated ones.

    Raises
    ------
    TypeError, ValueError
        If `insomnia` is no number from 0 to 1.

    Notes
    -----
    The fit keeps the guide's losses, wake-phi and sleep-phi without their shares, beside the history:
    ``approx.guide_losses["wake_phi"]`` has one for each step, of the size of the history's.

    With one particle the weights say nothing, and wake-phi has a gradient of mean 0.

    References
    ----------
    Jörg Bornschein, Yoshua Bengio (2015), Reweighted wake-sleep, section 2.
    Tuan Anh Le et al. (2019), Revisiting reweighted wake-sleep, equations 5, 7 and 9.

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
        """Build wake-theta, and for the guides of rows wake-phi and sleep-phi.

        Raises
        ------
        ValueError
            If `insomnia` is below 1 and what a guide is computed from cannot be simulated.
        """
        mine = setting.local_guides or setting.guides
        others = tuple(guide for guide in setting.guides if guide not in mine)
        draws = draw_all(setting)
        weights = log_weights(setting, draws)
        bound = IWAE().bound
        theta = -total(setting, log_weights(setting, *hold(setting, draws, mine)), bound)
        aux_losses = {}
        if self.insomnia > 0:
            aux_losses["wake_phi"] = wake_phi(setting, draws, weights, mine)
        if self.insomnia < 1:
            aux_losses["sleep_phi"] = sleep_phi(setting, draws, mine, self.name)
        share = {"wake_phi": self.insomnia, "sleep_phi": 1 - self.insomnia}
        phi = pt.add(*(share[name] * loss for name, loss in aux_losses.items()), pt.constant(0.0))
        rest = (*setting.parameters_of(others), *untied(setting, mine))
        tied = tied_parameters(setting, mine)
        return Losses(
            -total(setting, weights, bound),
            (
                Loss("guide", phi, setting.parameters_of(mine)),
                *((Loss("tied", theta + phi, tied),) if tied else ()),
                Loss("wake_theta", theta, rest),
            ),
            tuple(aux_losses.items()),
        )


def wake_phi(setting: Setting, draws: Draws, weights: Weights, guides: Sequence[Guide]) -> Variable:
    """Fit guides of one plate to their own draws, each by its weight among those of its row.

    Returns
    -------
    scalar Variable
        In nats of all data; a cross-entropy.
    """
    plate = guides[0].sites[0].plate
    held, _ = hold(setting, draws, guides)
    logw = disconnected_grad(weights.rows[plate] if plate else weights.global_)

    def weighted(logq: Variable, axis: int) -> Variable:
        return (pt.special.softmax(logw, axis=axis) * logq).sum(axis=axis)

    return -total(setting, _logq(setting, held, guides), weighted)


def sleep_phi(setting: Setting, draws: Draws, guides: Sequence[Guide], name: str) -> Variable:
    """Fit guides of one plate to what the model simulates for the rows of the batch.

    The global variables are those of `draws`. Variables of the rows, and what is observed of them, are
    simulated together, once for each outer draw.

    Returns
    -------
    scalar Variable
        In nats of all data; a cross-entropy.

    Raises
    ------
    ValueError
        If the inputs of a guide cannot be simulated.
    """
    logq = _logq(setting, simulate(setting, draws, guides, name), guides)
    return -total(setting, logq, lambda weights, axis: weights.mean(axis=axis))


def _logq(setting: Setting, draws: Draws, guides: Sequence[Guide]) -> Weights:
    logqs = [
        guide.logq(
            draws.latents[guide], setting.param_values, draws.n_sample_dims[guide], draws.parents
        )
        for guide in guides
    ]
    plate = guides[0].sites[0].plate
    logq = pt.add(*logqs) if len(logqs) > 1 else logqs[0]
    return Weights(pt.constant(0.0), {plate: logq}) if plate else Weights(logq, {})


AWAKE = "stay awake with pm.ReweightedWakeSleep(insomnia=1)"


def simulate(setting: Setting, draws: Draws, guides: Sequence[Guide], name: str) -> Draws:
    """Draw the variables of amortized guides from the model, and what the guides then see.

    Parameters
    ----------
    setting : Setting
    draws : Draws
        Of which those of other variables are held.
    guides : sequence of Guide
        All of one plate.
    name : str
        What messages call the objective.

    Returns
    -------
    Draws
        Blocks of `guides`, held; `given` has the simulated values of all that is observed.

    Raises
    ------
    ValueError
        If the model has a Potential of the rows or cannot be simulated in an order; or if a guide is
        not amortized, or not computed from observed values in a way that can be simulated.
    """
    phase = (
        f"objective {name!r} has a sleep phase, in which guides learn from simulated data in the place "
        "of observed ones"
    )
    rvs = [site.rv for guide in guides for site in guide.sites]
    held = {var: disconnected_grad(d) for var, d in draws.parents.items() if var not in rvs}
    _check_potentials(setting, phase)
    observed = observed_values(setting.model)
    seen = _seen(guides, observed, held, phase)
    graphs = _simulated(rvs, observed, held, set(seen.values()), phase)
    n_sample_dims = len(sample_shapes(setting)[0])
    drawn = {
        old: disconnected_grad(_with_lead(new, old, n_sample_dims)) for old, new in graphs.items()
    }
    return Draws(
        {guide: guide.block_of(drawn) for guide in guides if isinstance(guide, ModelGuide)},
        held | {rv: drawn[rv] for rv in rvs} | {var: drawn[value] for var, value in seen.items()},
        dict.fromkeys(guides, n_sample_dims),
    )


def _check_potentials(setting: Setting, phase: str) -> None:
    """Raise where a Potential says of the rows what no simulation follows."""
    local = {site.value for site in setting.sites if site.plate}
    potentials = {var.name for var in setting.model.potentials}
    for term in setting.terms:
        if term.name in potentials and (
            term.plate or term.mixed or not local.isdisjoint(ancestors([term.logp]))
        ):
            raise ValueError(
                f"{phase}, but a model with the pm.Potential {term.name!r} of the rows cannot be "
                "simulated: the guide would learn the posterior without it. Write it as a distribution, "
                f"or {AWAKE}"
            )


def _seen(
    guides: Sequence[Guide], observed: Collection[Variable], held: Collection[Variable], phase: str
) -> dict[Variable, Variable]:
    """Map what guides are computed from to the observed value that it is."""
    rvs = {site.rv for guide in guides for site in guide.sites}
    seen: dict[Variable, Variable] = {}
    for guide in guides:
        sites = ", ".join(repr(site.name) for site in guide.sites)
        if not isinstance(guide, ModelGuide):
            raise ValueError(
                f"{phase}, but the guide of {sites} is computed from no data: give it a pm.Amortized "
                f"guide, or {AWAKE}"
            )
        dists = guide.graphs
        found = reads(dists, observed, [*held, *rvs])
        if not found and rvs.isdisjoint(guide.reads()):
            raise ValueError(
                f"{phase}, but no input of the guide of {sites} is computed from what the model "
                f"observes: name the minibatch that is observed among its inputs, or {AWAKE}"
            )
        subject = f"{phase}, but the guide of {sites}"
        _check_data(dists, observed, [*held, *rvs, *found], subject)
        seen |= found
    return seen


def _check_data(
    graphs: Sequence[Variable],
    observed: Collection[Variable],
    known: Collection[Variable],
    subject: str,
) -> None:
    """Raise where graphs read the data of an observed value otherwise than by what is known."""
    data = data_of(graphs, known) & data_of(list(observed)) - set(known)
    if data:
        names = ", ".join(sorted(repr(var.name or str(var)) for var in data))
        raise ValueError(
            f"{subject} is computed from {names} in another way than what is observed of it. Compute "
            "it from what is observed, and keep covariates in a pm.Data of their own"
        )


def _simulated(
    rvs: Sequence[Variable],
    observed: Mapping[Variable, Variable],
    held: Mapping[Variable, Variable],
    wanted: Collection[Variable],
    phase: str,
) -> dict[Variable, Variable]:
    """Simulate variables, and observed ones, whose draws are also where the model reads their values.

    `observed` has the variable of each observed value, and `wanted` those values whose simulation is
    returned beside that of `rvs`; `held` has the draws of the other variables.
    """
    keys = [*rvs, *observed]
    drawn = (unscaled_rv(rv)[0].astype(value.type.dtype) for value, rv in observed.items())
    # In one go, here and below: apart, the variables would be of different simulations
    globals_ = {var: var.type() for var in held}
    graphs = list(graph_replace(plain([*rvs, *drawn]), globals_, strict=False))
    lengths = {var: var.type() for var in lengths_of(graphs, observed, rvs)}
    graphs = list(graph_replace(graphs, lengths, strict=False))
    marks = {value: value.type() for value in observed}
    found = {var: marks[value] for var, value in reads(graphs, observed).items()}
    graphs = in_turn(keys, list(graph_replace(graphs, found, strict=False)), marks)
    result = {key: g for key, g in zip(keys, graphs) if key in rvs or key in wanted}
    for key, graph in result.items():
        subject = f"{phase}, but in the model {observed.get(key, key).name!r}"
        if not set(marks.values()).isdisjoint(ancestors([graph])):
            raise ValueError(
                f"{subject} depends on observed values that depend on itself, so that none can be "
                "simulated first. Let one observed variable be given the other, and not both, or "
                f"{AWAKE}"
            )
        _check_data([graph], observed, (), subject)
    back = {mark: var for var, mark in lengths.items()}
    graphs = list(graph_replace(list(result.values()), back, strict=False))
    parents = {mark: held[var] for var, mark in globals_.items()}
    return dict(zip(result, at_draws(drawn_anew(graphs), parents)))


def in_turn(
    keys: Sequence[Variable], graphs: list[Variable], marks: Mapping[Variable, Variable]
) -> list[Variable]:
    """Put simulations in the place of the marks of observed values, once they have no mark themselves.

    `keys` says what each graph is of. Marks are left where values depend on each other.
    """
    place, waiting = {key: k for k, key in enumerate(keys)}, dict(marks)
    while waiting:
        left = set(waiting.values())
        ready = [v for v in waiting if left.isdisjoint(ancestors([graphs[place[v]]]))]
        if not ready:
            break
        # What depends on no mark stays the same variable in the graphs that are replaced
        swaps = {waiting.pop(value): graphs[place[value]] for value in ready}
        graphs = list(graph_replace(graphs, swaps, strict=False))
    return graphs


def observed_values(model: Model) -> dict[Variable, Variable]:
    """Map what each observed variable is observed as to the variable.

    A value that PyMC has cast to the type of its variable stands for the one before the cast.
    """
    result = {}
    for rv in model.observed_RVs:
        value = model.rvs_to_values[rv]
        while value.owner is not None and _keeps_values(value.owner.op):
            value = value.owner.inputs[0]
        result[value] = rv
    return result


def reads(
    graphs: Sequence[Variable], observed: Collection[Variable], blockers: Collection[Variable] = ()
) -> dict[Variable, Variable]:
    """Map what graphs have of observed values to these.

    Two reads of one batch are two variables that are alike.
    """
    return {
        var: value
        for var in ancestors(graphs, blockers)
        for value in observed
        if var is value or (var.owner is not None and equal_computations([var], [value]))
    }


def lengths_of(
    graphs: Sequence[Variable], observed: Collection[Variable], rvs: Collection[Variable]
) -> list[Variable]:
    """List the shapes of observed values in graphs: a simulation has the same ones."""
    shapes = [v for v in ancestors(graphs) if v.owner and isinstance(v.owner.op, Shape | Shape_i)]
    return [v for v in shapes if reads([v], observed) and set(rvs).isdisjoint(ancestors([v]))]


def data_of(graphs: Sequence[Variable], drawn: Collection[Variable] = ()) -> set[Variable]:
    """Find the data that values are read from; which rows are read, and shapes, are none."""
    shapes = (v for v in ancestors(graphs) if v.owner and isinstance(v.owner.op, Shape | Shape_i))
    blockers = {*indexes(graphs), *drawn, *shapes}
    return {var for var in ancestors(graphs, blockers) if isinstance(var, SharedVariable)}


def plain(graphs: Sequence[Variable]) -> list[Variable]:
    """Take the Ops that scale variables out of graphs, and values that are read for their shape only."""
    graphs = list(graphs)
    while swaps := [(node.outputs[0], new) for node in toposort(graphs) for new in _plain(node)]:
        graphs = list(graph_replace(graphs, dict(swaps[:1])))
    return graphs


def _plain(node: Apply) -> list[Variable]:
    if isinstance(node.op, released.MinibatchRandomVariable):
        return [node.inputs[0]]
    if not isinstance(node.op, Elemwise) or not isinstance(node.op.scalar_op, Second):
        return []
    like, value = node.inputs  # of pt.ones_like and the like
    lengths = [
        known or (value if like.type.broadcastable[k] else like).shape[k]
        for k, known in enumerate(node.outputs[0].type.shape)
    ]
    return [pt.alloc(value, *lengths)]


def drawn_anew(graphs: Sequence[Variable]) -> list[Variable]:
    """Give graphs generators of their own: the model's own variables may be in the loss by shape.

    The rows of the batch stay what they are.
    """
    rngs = [
        var
        for var in ancestors(graphs)
        if isinstance(var, SharedVariable) and isinstance(var.type, RandomGeneratorType)
    ]
    fresh = {rng: pytensor.shared(rng.get_value(), name=rng.name) for rng in rngs}
    # Else the index might be copied, as one that reads the length of data that the graphs read too
    same = {var: var for var in indexes(graphs, by_shape=True)}
    return list(graph_replace(graphs, {**fresh, **same}, strict=False))


def _keeps_values(op: Any) -> bool:
    is_cast = isinstance(op, Elemwise) and isinstance(op.scalar_op, Cast)
    return is_cast or isinstance(op, SpecifyShape)


def _with_lead(new: Variable, old: Variable, n_sample_dims: int) -> Variable:
    """Give a draw that no global variable is in the leading axes of the others."""
    return (
        pt.shape_padleft(new, n_sample_dims - (new.type.ndim - old.type.ndim))
        if n_sample_dims
        else new
    )
