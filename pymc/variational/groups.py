# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Approximations by groups, as a user's own: checks of their arguments, and their draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeAlias

from pytensor.graph.basic import Variable

from pymc.minibatch.rebuild import rebuild
from pymc.model.core import Model
from pymc.model.full_data import full_data_model
from pymc.variational.fit_options import argument_names, check_known
from pymc.variational.replacements import as_replacements
from pymc.variational.report import add_fit
from pymc.variational.vectorize import at_each_draw, draw_anew, largest_at_once

__all__ = ["Nodes", "at_all_rows", "check_group_arguments", "sample_over", "with_replacements"]

Nodes: TypeAlias = Variable | list[Variable] | tuple[Variable, ...]


def check_group_arguments(group: Any) -> None:
    """Raise a TypeError for arguments that a group would ignore."""
    cls = type(group)
    if cls.__module__ != "pymc.variational.approximations":  # a user's own may look at any
        return
    where = f"pm.{cls.__name__.removesuffix('Group')}"
    if group._vfam is not None and cls.group_for_short_name(group._vfam) is not cls:
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


def sample_over(owner: Any, node: Nodes, draws: Mapping[Variable, Variable]) -> Any:
    """Compute nodes at draws of the flat inputs of an approximation or a group."""
    several = isinstance(node, list | tuple)
    flat = owner.to_flat_input(list(node) if several else [node])
    n_draws = next(iter(draws.values())).shape[0]
    found = at_each_draw(flat, draws, n_draws, largest_at_once(owner.model))
    return found if several else found[0]


def with_replacements(sample_node: Callable[..., Any]) -> Callable[..., Any]:
    """Let `Approximation.sample_node` replace variables before it samples nodes.

    The function gets a list of nodes, and returns one. What it returns is drawn anew at each evaluation.
    """

    @wraps(sample_node)
    def wrapper(
        approx: Any,
        node: Nodes,
        size: int | Variable | None = None,
        deterministic: bool | Variable = False,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Any:
        several = isinstance(node, list | tuple)
        nodes = list(node) if several else [node]
        new = as_replacements(approx.model, more_replacements)
        if new:
            # Latent variables are what is sampled: a replacement does not reach into their priors
            latent = {rv: rv for rv in approx.model.free_RVs}
            nodes = rebuild(nodes, latent | new)
        sampled = sample_node(approx, nodes, size, deterministic)
        draw_anew(sampled, nodes)
        return sampled if several else sampled[0]

    return wrapper


def at_all_rows(sample: Callable[..., Any]) -> Callable[..., Any]:
    """Let `Approximation.sample` compute deterministics at all rows, and return the report of the fit too."""

    @wraps(sample)
    def wrapper(approx: Any, draws: int = 500, **kwargs: Any) -> Any:
        model = Model.get_context(error_if_none=False) or approx.model  # type: ignore[attr-defined]
        with full_data_model(model):
            found = sample(approx, draws, **kwargs)
        return add_fit(found, approx)

    return wrapper
