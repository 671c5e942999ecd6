# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Read an approximation from the disk: :func:`pymc.load_approximation`."""

from __future__ import annotations

import os

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

import pymc.variational.approximations as approximations

from pymc.minibatch.group_reads import Groups
from pymc.model.core import modelcontext
from pymc.variational.approximation import GuideApproximation, guided_approximation
from pymc.variational.auto import AutoApproximation
from pymc.variational.checkpoints.components import CannotRebuild, argument_from_json
from pymc.variational.checkpoints.identity import (
    differences,
    latent_identity,
    model_differences,
    names_of,
    types_of,
    versions,
    warn_of_versions,
)
from pymc.variational.checkpoints.saving import ApproximationContents, dense_parameters
from pymc.variational.checkpoints.store import CheckpointMismatchError, Value, load_contents
from pymc.variational.guides.lookups import model_parameters

if TYPE_CHECKING:
    from pymc.model.core import Model
    from pymc.variational.checkpoints.trainer import TrainerContents

__all__ = ["load_approximation", "set_results", "set_value", "with_prefix"]


def load_approximation(
    path: str | os.PathLike[str],
    *,
    model: Model | None = None,
    guide: object = None,
    params: Sequence[SharedVariable] = (),
) -> Any:
    """Read an approximation that ``approx.save`` wrote.

    Parameters
    ----------
    path : str or path
        What ``approx.save(path)`` was given.
    model : :class:`Model`, default the one of the context
        The fitted model, or one like it, made by the same code.
    guide : optional
        As of :func:`pymc.fit`, if it has a function of your own, as :class:`pymc.Amortized` has.
    params : sequence of SharedVariable, optional
        The trained parameters of the model; they get the saved values.

    Returns
    -------
    :class:`Approximation` or GuideApproximation
        It draws the same as the saved one for the same `random_seed`, and has its `hist` and `report`.

    Raises
    ------
    CheckpointMismatchError
        If the model differs: a line for each difference, with both sides.
    DamagedCheckpointError
        If a file was changed.
    FileNotFoundError
        If there is no approximation.

    Warns
    -----
    UserWarning
        If other versions of the packages that compute wrote it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "fit"
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu")
    ...     approx = pm.fit(10, random_seed=1, progressbar=False)
    >>> saved = approx.save(path)
    >>> again = pm.load_approximation(path, model=model)
    >>> again.params[0].get_value() == approx.params[0].get_value()
    array([ True])
    """
    model = modelcontext(model)
    found, contents, values = load_contents(Path(path).absolute(), ApproximationContents)
    lines = list(model_differences(contents.model, latent_identity(model, set(params))))
    if lines:
        raise CheckpointMismatchError(found, lines)
    parameters = with_prefix("parameters", values)
    positions = with_prefix("groups", values)
    groups = {
        model[name]: Groups(axis, positions[name], tuple(lengths))
        for name, (axis, lengths) in contents.groups.items()
    }
    n_draws = len(parameters.get("globals_histogram", ()))
    approx = _make(contents, n_draws, model, guide, params, groups)
    if str(approx) != contents.text:
        line = f"approximation: {contents.text} in the checkpoint, {approx} now"
        raise CheckpointMismatchError(found, [line])
    lines = list(differences(types_of(parameters), types_of(dense_parameters(approx))))
    if lines:
        raise CheckpointMismatchError(found, lines)
    tables = {table.shared: table for table in approx.tables}
    for name, var in names_of(approx.params).items():
        if var in tables:
            var.get_value(borrow=True)[:, : tables[var].n_params] = parameters[name]
        else:
            set_value(var, parameters[name])
    set_results(approx, contents, values)
    warn_of_versions(contents.versions, versions("python"), found)
    return approx


def _make(
    contents: ApproximationContents,
    size: int,
    model: Model,
    guide: object,
    params: Sequence[SharedVariable],
    groups: Mapping[Variable, Groups],
) -> GuideApproximation:
    """Make the approximation again, with parameters at their start and `size` draws if it has draws."""
    if contents.type == GuideApproximation.__name__:
        guides = guide
        if guides is None:
            guides = {names: each.of_saved(groups) for names, each in _guides(contents).items()}
        return guided_approximation(model, guides, params=params, groups=groups)
    if guide is not None:
        raise TypeError(
            f"The approximation {contents.text} is one of pm.{contents.type}: leave guide of "
            "pm.load_approximation out"
        )
    if contents.type == AutoApproximation.__name__:
        normal = guided_approximation(model, _guides(contents), groups=groups)
        approx = AutoApproximation(normal, size)
    elif contents.type == "Empirical":
        approx = approximations.Empirical(size=size, model=model)
    else:
        known = {"MeanField": approximations.MeanField, "FullRank": approximations.FullRank}
        approx = known[contents.type].of_groups(model, groups)
    approx.model_parameters = model_parameters(model, params)
    return approx


def _guides(contents: ApproximationContents) -> dict[tuple[str, ...], Any]:
    """Make the guides again, by the variables of each."""
    guides = {}
    for names, recipe in contents.guides:
        try:
            guides[tuple(names)] = argument_from_json(recipe)
        except CannotRebuild as error:
            raise TypeError(
                f"The guide of {', '.join(map(repr, names))} in {contents.text} cannot be made again: {error}. "
                "Its config() is None, or its class is not loaded; an encoder, for one, is a function of "
                "yours. Give guide= of pm.load_approximation what pm.fit was given, and params= too"
            ) from error
    return guides


def set_value(shared: SharedVariable, value: Value) -> None:
    """Set the value of a shared variable, in its memory where it fits.

    The rows of a table begin at lines of the processor's caches, and have to stay there.
    """
    before = shared.container.storage[0]
    if (
        isinstance(before, np.ndarray)
        and isinstance(value, np.ndarray)
        and before.flags.writeable
        and before.dtype == value.dtype
    ):
        np.copyto(before, value)
    else:
        shared.container.storage[0] = shared.type.filter(value, strict=True)


def set_results(
    approx: GuideApproximation,
    contents: ApproximationContents | TrainerContents,
    values: Mapping[str, Any],
) -> None:
    """Set the generator, the losses and the report of an approximation."""
    approx.rng, approx.hist = values["rng"], values["hist"]
    approx.include_transformed = contents.include_transformed
    approx.guide_losses = with_prefix("guide_losses", values)
    if contents.report is not None:
        approx.report = approx.underlying.report = contents.report


def with_prefix(prefix: str, values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the values with names ``prefix/name``, by name."""
    start = f"{prefix}/"
    return {name.removeprefix(start): v for name, v in values.items() if name.startswith(start)}
