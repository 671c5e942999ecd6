# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.plates import local_axes
from pymc.minibatch.rebuild import rebuild
from pymc.model.full_data import full_data_model
from pymc.variational.approximation_base import ApproximationBase
from pymc.variational.averaging import TailAverage
from pymc.variational.fit_options import argument_names, check_known
from pymc.variational.optimizers import as_optimizer
from pymc.variational.replacements import as_replacements, check_replacements
from pymc.variational.report import add_fit
from pymc.variational.vectorize import at_each_draw, draw_anew, largest_at_once

if TYPE_CHECKING:
    from pytensor.compile.sharedvalue import SharedVariable

    from pymc.model.core import Model
    from pymc.variational.local_params.table import ParamTable

type Nodes = Variable | list[Variable] | tuple[Variable, ...]


def sample_over(
    owner: _Group | _Approximation, node: Nodes, draws: Mapping[Variable, Variable]
) -> Any:
    """Compute nodes at draws of the flat inputs of an approximation or a group."""
    several = isinstance(node, list | tuple)
    flat = owner.to_flat_input(list(node) if several else [node])
    n_draws = next(iter(draws.values())).shape[0]
    found = at_each_draw(flat, draws, n_draws, largest_at_once(owner.model))
    return found if several else found[0]


def _check_group_arguments(group: Any) -> None:
    """Raise a TypeError for arguments that a group of the release would ignore."""
    cls = type(group)
    if cls.__module__ != "pymc.variational.approximations":  # a user's own may look at any
        return
    where = f"pm.{cls.__name__.removesuffix('Group')}"
    if group._vfam is not None and released.Group.group_for_short_name(group._vfam) is not cls:
        raise TypeError(
            f"{where} got vfam={group._vfam!r}, which is another family than its own: leave it out, or "
            f"write pm.fit(method=...), or Group(None, vfam={group._vfam!r})"
        )
    names = argument_names(cls, "create_shared_params") or frozenset()
    known = names | {"model", "random_seed", "params", "options", "vfam"}
    check_known(where, group._kwargs, known)
    given = {name for name, value in group._kwargs.items() if value is not None}
    if group.user_params is not None:
        given.add("params")
    for alone in ("params", "trace"):
        unused = [name for name in group._kwargs if name in given and name != alone]
        if alone in given and unused:
            raise TypeError(
                f"{where} got {', '.join(unused)} beside {alone}, which say all there is: leave "
                f"{', '.join(unused)} out, or {alone}"
            )


class _Group:
    model: Model
    input: Variable
    ordering: Mapping[str, tuple[str, slice, tuple[int, ...], str]]
    symbolic_initial: Variable
    symbolic_random: Variable
    to_flat_input: Any

    def __init_group__(self, group: Any) -> None:
        """Raise an error for variables of the rows: a group would hold those of a batch."""
        _check_group_arguments(self)
        local = [rv.name for rv in local_axes(self.model)]
        if local:
            raise ValueError(
                f"{type(self).__name__}, a group, would have one value for each row of a batch, but {', '.join(map(repr, local))} "
                "has one for each row of the data: other rows would reuse it at each step. Use pm.fit, "
                "pm.ADVI or pm.FullRankADVI, which keep parameters of all rows; for another guide, "
                "pm.fit(guide=...)"
            )
        # Guides import this module
        from pymc.variational.guides.unnumbered_rows import check_no_row_values

        check_no_row_values(self.model)
        super().__init_group__(group)  # type: ignore[misc]

    def _prepare_start(self, start: Mapping[str, Any] | None = None) -> np.ndarray:
        """Like the release's, in the order of the group's variables, and within their supports."""
        # Guides import this module
        from pymc.variational.guides.initial_values import (
            broadcast_start,
            check_support,
            read_starts,
        )

        start = read_starts(self.model, start) if start else {}
        start = {name: broadcast_start(self.model, name, x) for name, x in start.items()}
        flat = super()._prepare_start(start)  # type: ignore[misc]
        in_model = [self.model.rvs_to_values[rv].name for rv in self.model.free_RVs]
        in_model = [name for name in in_model if name in self.ordering]
        ends = np.cumsum([prod(self.ordering[name][2]) for name in in_model])
        point = {
            name: part.reshape(self.ordering[name][2])
            for name, part in zip(in_model, np.split(flat, ends[:-1]))
        }
        check_support(self.model, point, start)
        return np.concatenate([point[name].ravel() for name in self.ordering])

    def symbolic_sample_over_posterior(self, node: Nodes) -> Any:
        random = self.symbolic_random.astype(self.symbolic_initial.dtype)
        return sample_over(self, node, {self.input: random})


class _ObjectiveFunction:
    """The interface of all objectives of a fit, for an operator."""

    #: Whether a step that is not finite changes nothing, and has a loss that is not finite
    guarded = False
    guide_losses: tuple[str, ...] = ()
    approx: _Approximation
    updates: Any

    def updates_averaged(
        self, fraction: float | None, **kwargs: Any
    ) -> tuple[Mapping[Any, Any], Any, TailAverage | None]:
        """Return the next values of a step, its loss, and averages over the last part of a fit."""
        for name in ("obj_optimizer", "test_optimizer"):
            if name in kwargs:
                kwargs[name] = as_optimizer(kwargs[name])
        updates = self.updates(**kwargs)
        if fraction is None:
            return updates, updates.loss, None
        tail = TailAverage.of([p for p in self.approx.params if p in updates], fraction)
        return tail.updates(updates), updates.loss, tail

    def settings(self) -> dict[str, Any]:
        """Return the objective's entries in the report of a fit."""
        return {}

    def factor(self) -> float | None:
        """Return the factor of the loss, if it is known."""
        return None


class _Approximation(ApproximationBase):
    """The interface of all approximations of a fit, for one of groups."""

    groups: list[Any]
    inputs: list[Variable]
    model: Model
    params: list[SharedVariable]
    symbolic_randoms: list[Variable]

    @property
    def rng(self) -> np.random.RandomState:
        """The generator of seeds."""
        return self.groups[0].rng

    @property
    def tables(self) -> tuple[ParamTable, ...]:
        """The tables of parameters of rows."""
        return ()

    @property
    def dense_params(self) -> list[SharedVariable]:
        """Those of `params` that all rows share."""
        return self.params

    def keep_transformed(self, include_transformed: bool) -> None:
        """Set whether `state` has the unconstrained variables too."""
        for group in self.groups:
            group.include_transformed = include_transformed

    def parameter_scales(self) -> dict[Any, np.ndarray]:
        """Return the natural scales of parameters, if they are known."""
        return {}

    def bad_terms(self) -> list[tuple[str, float]]:
        """List terms of the model that are not finite at the mean, if they are known."""
        return []

    def bad_parameters(self, values: Mapping[Any, np.ndarray]) -> list[tuple[str, str]]:
        """List variables whose parameters are not finite, with their entries, if they are known."""
        return []

    def symbolic_sample_over_posterior(self, node: Nodes) -> Any:
        draws = dict(zip(self.inputs, self.symbolic_randoms))
        return sample_over(self, node, draws)

    def sample_node(
        self,
        node: Nodes,
        size: int | Variable | None = None,
        deterministic: bool = False,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Any:
        """Sample nodes over the posterior: each evaluation is a new draw. Rows are those of a batch.

        Parameters
        ----------
        node : Variable, or list or tuple of Variable
        size : int or scalar variable, optional
            Number of draws, along a new leading axis. Default: one draw, without that axis.
        deterministic : bool
            Whether to replace the draws by the mean of the approximation.
        more_replacements : mapping of Variable or str to Variable or array, optional
            Replacements for other variables, such as a minibatch, or for variables of the model by name.
            They may have another number of rows.

        Returns
        -------
        Variable, or list of Variable

        Raises
        ------
        ValueError, TypeError
            If the model has no variable of a name in `more_replacements`.
        NotImplementedError
            If `deterministic` and a guide has no known mean.
        """
        several = isinstance(node, list | tuple)
        nodes = list(node) if several else [node]
        new = as_replacements(self.model, more_replacements)
        if new:
            # Latent variables are what is sampled: a replacement does not reach into their priors
            latent = {rv: rv for rv in self.model.free_RVs}
            nodes = rebuild(nodes, latent | new)
        sampled = self.sampled_nodes(nodes, size, deterministic)
        draw_anew(sampled, nodes)
        return sampled if several else sampled[0]

    def sampled_nodes(
        self, nodes: list[Variable], size: int | Variable | None, deterministic: bool | Variable
    ) -> list[Variable]:
        """Return nodes at draws of the latent variables."""
        return super().sample_node(nodes, size, deterministic)  # type: ignore[misc]

    def set_size_and_deterministic(
        self, node: Nodes, s: Any, d: Any, more_replacements: Mapping[Any, Any] | None = None
    ) -> Any:
        new = as_replacements(self.model, more_replacements)
        if new:
            check_replacements(self.model, new)
        return super().set_size_and_deterministic(node, s, d, new)  # type: ignore[misc]

    def to_flat_input(self, node: Nodes, more_replacements: Mapping[Any, Any] | None = None) -> Any:
        new = as_replacements(self.model, more_replacements)
        return super().to_flat_input(node, more_replacements=new)  # type: ignore[misc]

    def sample(self, draws: int = 500, **kwargs: Any) -> Any:
        """Draw from the approximation, with deterministics at all rows; the parameters are the release's."""
        model = released.pm.Model.get_context(error_if_none=False) or self.model
        with full_data_model(model):
            found = super().sample(draws, **kwargs)  # type: ignore[misc]
        return add_fit(found, self)


released = _layer.run_release(
    globals(),
    Group=_Group,
    ObjectiveFunction=_ObjectiveFunction,
    Approximation=_Approximation,
)
