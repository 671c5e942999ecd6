# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import pickle
import sys

from collections.abc import Mapping
from contextvars import ContextVar
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, SupportsIndex

import cloudpickle
import numpy as np

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.plates import local_axes
from pymc.variational.averaging import TailAverage
from pymc.variational.groups import (
    Nodes,
    at_all_rows,
    check_group_arguments,
    sample_over,
    with_replacements,
)
from pymc.variational.optimizers import as_optimizer
from pymc.variational.replacements import as_replacements, check_replacements
from pymc.variational.report import FitReport

if TYPE_CHECKING:
    from pytensor.compile.sharedvalue import SharedVariable

    from pymc.model.core import Model
    from pymc.variational.local_params.table import ParamTable

#: True while cloudpickle pickles the parts of an approximation.
_is_pickling = ContextVar("_is_pickling", default=False)


class _Group:
    model: Model
    input: Variable
    ordering: Mapping[str, tuple[str, slice, tuple[int, ...], str]]
    symbolic_initial: Variable
    symbolic_random: Variable
    to_flat_input: Any

    def __init_group__(self, group: Any) -> None:
        check_group_arguments(self)
        # A group would hold values of the rows of one batch
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

    def _prepare_start(self, start: Any = None) -> np.ndarray:
        # Guides import this module
        from pymc.variational.guides.initial_values import (
            broadcast_start,
            check_support,
            read_starts,
        )

        start = read_starts(self.model, start) if start else {}
        start = given = {name: broadcast_start(self.model, name, x) for name, x in start.items()}
        start = super()._prepare_start(start)  # type: ignore[misc]
        # From the order of the model to that of the group
        in_model = [self.model.rvs_to_values[rv].name for rv in self.model.free_RVs]
        in_model = [name for name in in_model if name in self.ordering]
        ends = np.cumsum([prod(self.ordering[name][2]) for name in in_model])
        point = {
            name: part.reshape(self.ordering[name][2])
            for name, part in zip(in_model, np.split(start, ends[:-1]))
        }
        check_support(self.model, point, given)
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


class _Approximation:
    """The interface of all approximations of a fit, for one of groups.

    Attributes
    ----------
    guides : tuple of Guide
        Empty for groups.
    hist : array of floats, shape (n_steps,)
        The loss of each step; empty without a fit, or for one without a score.
    report : FitReport or None
        Of the fit.
    guide_losses : mapping of str to array of floats
        Losses of the guide alone, by name.
    """

    groups: list[Any]
    inputs: list[Variable]
    model: Model
    params: list[SharedVariable]
    symbolic_randoms: list[Variable]

    guides: tuple[Any, ...] = ()
    hist: np.ndarray = np.asarray(())
    report: FitReport | None = None
    guide_losses: Mapping[str, np.ndarray] = MappingProxyType({})

    @property
    def underlying(self) -> Any:
        """The approximation of the guides: itself, except for automatic fits."""
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle by cloudpickle, as pickle cannot hold the methods and functions of a model.

        Raises
        ------
        pickle.PicklingError
            If a part of the model, or of the fit, cannot be pickled by that either.
        """
        # cloudpickle itself, and copy, need the parts
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if _is_pickling.get() or caller == "copy" or "cloudpickle" in caller:
            return super().__reduce_ex__(protocol)
        token = _is_pickling.set(True)
        try:
            return cloudpickle.loads, (cloudpickle.dumps(self, int(protocol)),)
        except Exception as error:
            raise pickle.PicklingError(
                f"{self} cannot be pickled, since a part of its model, or of its fit, cannot be: {error}. Write "
                "what was fitted to a folder by approx.save(path), and read it by "
                "pm.load_approximation(path, model=...), with a model made by the same code"
            ) from error
        finally:
            _is_pickling.reset(token)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the approximation to a folder, from which :func:`pymc.load_approximation` reads it.

        Parameters
        ----------
        path : str or path
            A folder, which must not be there yet.

        Returns
        -------
        Path
            The folder, absolute. It holds arrays, JSON and checksums, and no pickle.

        Raises
        ------
        FileExistsError
        TypeError
            If the approximation is made of groups of the user's own.
        ImportError
            If safetensors or msgspec is not installed.
        OSError
            If the folder cannot be written, for example on a full disk. It does not exist then.
        """
        # Here, as most fits are not saved
        from pymc.variational.checkpoints.saving import save_approximation

        return save_approximation(self, path)  # type: ignore[arg-type]

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

    @with_replacements
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
        return super().sample_node(node, size, deterministic, more_replacements)  # type: ignore[misc]

    def set_size_and_deterministic(
        self, node: Nodes, s: Any, d: Any, more_replacements: Mapping[Any, Any] | None = None
    ) -> Any:
        more_replacements = as_replacements(self.model, more_replacements)
        check_replacements(self.model, more_replacements)
        return super().set_size_and_deterministic(node, s, d, more_replacements)  # type: ignore[misc]

    def to_flat_input(self, node: Nodes, more_replacements: Mapping[Any, Any] | None = None) -> Any:
        more_replacements = as_replacements(self.model, more_replacements)
        return super().to_flat_input(node, more_replacements)  # type: ignore[misc]

    @at_all_rows
    def sample(self, draws: int = 500, **kwargs: Any) -> Any:
        return super().sample(draws, **kwargs)  # type: ignore[misc]


released = _layer.run_release(
    globals(),
    Group=_Group,
    ObjectiveFunction=_ObjectiveFunction,
    Approximation=_Approximation,
)
