# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.backends.base import MultiTrace
from pymc.minibatch.group_reads import Groups
from pymc.model.core import Model, modelcontext
from pymc.pytensorf import floatX
from pymc.variational.approximation import GuideApproximation
from pymc.variational.fit_options import check_known
from pymc.variational.groups import sample_over
from pymc.variational.guides.base import FlatGuide, Guide
from pymc.variational.guides.empirical import EmpiricalGuide, particles_of_trace
from pymc.variational.guides.initial_values import set_diagonal, sigmas_of_group
from pymc.variational.guides.specification import make_guides


class _MeanFieldGroup:
    def create_shared_params(
        self: Any,
        start: Mapping[str, np.ndarray] | None = None,
        start_sigma: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, SharedVariable]:
        # By both names of a variable, and of any shape
        start_sigma = sigmas_of_group(self, start_sigma)
        return super().create_shared_params(start, start_sigma)  # type: ignore[misc]


class _FullRankGroup:
    def create_shared_params(
        self: Any,
        start: Mapping[str, np.ndarray] | None = None,
        start_sigma: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, SharedVariable]:
        params = super().create_shared_params(start)  # type: ignore[misc]
        set_diagonal(self, params["L_tril"], start_sigma)
        return params


class _EmpiricalGroup:
    def create_shared_params(
        self: Any,
        trace: MultiTrace | None = None,
        size: int | None = None,
        jitter: float = 1,
        start: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, SharedVariable]:
        # The jitter is drawn by the group's generator, and not by the global one of NumPy
        params = super().create_shared_params(trace, size, 0, start)  # type: ignore[misc]
        if trace is None:
            histogram = params["histogram"]
            particles = histogram.get_value(borrow=True)
            noise = self.rng.normal(0, jitter, particles.shape)
            histogram.set_value(floatX(particles + noise), borrow=True)
        return params


released = _layer.run_release(
    globals(),
    MeanFieldGroup=_MeanFieldGroup,
    FullRankGroup=_FullRankGroup,
    EmpiricalGroup=_EmpiricalGroup,
)

# Of the classes that `Group(vfam=...)` makes
_layer.register_again(released.Group._Group__name_registry, released)
_layer.register_again(released.Group._Group__param_registry, released)


class _OneGuide(GuideApproximation, released.SingleGroupApproximation):  # type: ignore[name-defined]
    """An approximation by one guide, with the attributes of one by a group."""

    _guide: str

    def __init__(
        self,
        model: Model | None,
        guide: str | Guide,
        *,
        start: Mapping[str, Any] | None = None,
        start_sigma: Mapping[str, Any] | None = None,
        random_seed: int | None = None,
        groups: Mapping[Variable, Groups] | None = None,
    ) -> None:
        model = modelcontext(model)
        rng = np.random.RandomState(random_seed)
        options: dict[str, Any] = {"start": start, "start_sigma": start_sigma, "rng": rng}
        options["groups"] = groups
        if isinstance(guide, str):  # the guide of globals; rows have another one
            guides = make_guides(model, others=guide, **options)
        else:
            guides = make_guides(model, {None: guide}, **options)
        super().__init__(model, guides, rng=rng)

    @classmethod
    def of_groups(cls, model: Model, groups: Mapping[Variable, Groups]) -> Self:
        """Return an approximation of some groups, such as those that a saved one is of."""
        approx = object.__new__(cls)
        _OneGuide.__init__(approx, model, cls._guide, groups=groups)
        return approx

    @property
    def shared_params(self) -> dict[str, SharedVariable]:
        """The shared variables of the parameters, by name."""
        storage = self.storage
        return {
            name: storage.dense[parameter]
            for guide in self.guides
            if isinstance(guide, FlatGuide)
            for name, parameter in guide.params_by_name.items()
            if parameter in storage.dense
        }

    @cached_property
    def groups(self) -> list[Any]:
        if self.tables or self.groups_with_rows:
            return super().groups
        rvs = [site.rv for site in self.sites]
        # The group has the guide's own shared variables, so that changes of one are seen by the other
        group = self._group_class(rvs, model=self.model, params=self.shared_params)
        group.shared_params, group.rng = self.shared_params, self.rng
        return [group]


def check_starts(name: str, arguments: Mapping[str, Any], *more: str) -> None:
    """Raise a TypeError for an unknown argument of an approximation or a method."""
    if arguments.get("params") is not None:
        raise TypeError(
            f"params of pm.{name} are parameters of your own, which no fit would change: give them to a group, "
            "pm.variational.Approximation([pm.Group(None, params=...)])"
        )
    known = {"model", "random_seed", "start", "start_sigma", *more}
    check_known(f"pm.{name}", arguments, known)


class MeanField(_OneGuide):
    """Mean-field approximation: independent normal distributions of all entries.

    Parameters
    ----------
    model : Model, optional
    start : dict of str to array, optional
        Means, by the name of a variable, or of its value variable.
    start_sigma : dict of str to array, optional
        Standard deviations on the unconstrained space, by either name.
    random_seed : int, optional
    """

    _group_class = released.MeanFieldGroup
    _guide = "mean_field"

    def __init__(self, *, model: Model | None = None, **arguments: Any) -> None:
        check_starts("MeanField", arguments)
        super().__init__(model, self._guide, **arguments)


class FullRank(_OneGuide):
    """Full-rank approximation: one normal distribution of all global entries, independent ones of rows.

    The parameters are those of :class:`MeanField`.
    """

    _group_class = released.FullRankGroup
    _guide = "full_rank"

    def __init__(self, *, model: Model | None = None, **arguments: Any) -> None:
        check_starts("FullRank", arguments)
        super().__init__(model, self._guide, **arguments)


class Empirical(_OneGuide):
    """Empirical approximation: particles, such as the draws of MCMC.

    Parameters
    ----------
    trace : MultiTrace, optional
        The result of `pm.sample(return_inferencedata=False)`: its draws are the particles.
    size : int, optional
        Number of particles that start at one point, without a trace.
    jitter : float
        Standard deviation of their noise on the unconstrained space.
    model : Model, optional
    start : dict of str to array, optional
    random_seed : int, optional

    Raises
    ------
    ValueError
        If neither `trace` nor `size` is given, or the trace lacks variables of the model.
    """

    _group_class = released.EmpiricalGroup

    def __init__(
        self,
        trace: MultiTrace | None = None,
        size: int | None = None,
        *,
        jitter: float = 1,
        model: Model | None = None,
        **arguments: Any,
    ) -> None:
        check_starts("Empirical", arguments, "trace", "size", "jitter")
        if trace is None:
            if size is None:
                raise released.opvi.ParametrizationError(
                    "Need `trace` or `size` to initialize pm.Empirical: draws of MCMC, or a number of particles"
                )
            super().__init__(model, EmpiricalGuide(size, jitter), **arguments)
            return
        model = modelcontext(model)
        _check_trace(trace, model, size)
        super().__init__(model, EmpiricalGuide(len(trace) * trace.nchains, 0), **arguments)
        histogram = particles_of_trace(trace, self.sites)
        self.histogram.set_value(histogram)

    @property
    def histogram(self) -> SharedVariable:
        """The particles, shape (size, ndim)."""
        return self.shared_params["histogram"]

    def evaluate_over_trace(self, node: Variable | Sequence[Variable]) -> Any:
        """Compute a node of the model at each particle, along a new leading axis."""
        several = isinstance(node, list | tuple)
        nodes = self.model.replace_rvs_by_values(list(node) if several else [node])
        found = sample_over(self, nodes, {self.input: self.histogram})
        return found if several else found[0]


def _check_trace(trace: object, model: Model, size: int | None) -> None:
    if not isinstance(trace, MultiTrace):
        raise NotImplementedError(
            f"trace of pm.Empirical is a {type(trace).__name__}: give it a MultiTrace, of "
            "pm.sample(return_inferencedata=False), which has the values on the unconstrained space"
        )
    if size is not None:
        raise TypeError(
            f"pm.Empirical got size={size} beside trace, whose draws are the particles: leave size out, or trace"
        )
    names = {model.rvs_to_values[rv].name for rv in model.free_RVs}
    missing = sorted(names.difference(trace.varnames))
    if missing:
        raise ValueError(
            f"trace of pm.Empirical has not all free RVs of the model: {', '.join(missing)} are missing"
        )
