# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Read an approximation from the disk: :func:`pymc.load_approximation`."""

from __future__ import annotations

import os

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pymc.variational.approximations as approximations

from pymc.model.core import modelcontext
from pymc.variational.approximation import GuideApproximation, guided_approximation
from pymc.variational.auto import AutoApproximation
from pymc.variational.checkpoints.errors import (
    CheckpointMismatchError,
    DamagedCheckpointError,
)
from pymc.variational.checkpoints.fingerprint import (
    differences,
    named,
    versions,
    warn_of_versions,
)
from pymc.variational.checkpoints.latents import (
    latent_differences,
    latent_fingerprint,
)
from pymc.variational.checkpoints.reading import read_newest
from pymc.variational.checkpoints.recipes import Unknown, make
from pymc.variational.checkpoints.saving import parameters_of, put_results, tables_of
from pymc.variational.checkpoints.state import restore, unlike, unpack
from pymc.variational.checkpoints.validation import check_approximation
from pymc.variational.guides.lookups import model_parameters

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["load_approximation"]


def load_approximation(
    path: str | os.PathLike[str],
    *,
    model: Model | None = None,
    guide: Any = None,
    params: Any = (),
) -> Any:
    """Read an approximation that was saved.

    Parameters
    ----------
    path : str or path
        What ``approx.save(path)`` was given.
    model : :class:`Model`, default the one of the context
        The one that was fitted, or one like it, made by the same code.
    guide : optional
        As of :func:`pymc.fit`, where it has a function of the user's, such as that of
        :class:`pymc.Amortized`.
    params : sequence of SharedVariable, optional
        Those of the model that were trained; they get the values that were saved.

    Returns
    -------
    :class:`Approximation` or GuideApproximation
        It draws the same as the one that was saved, for the same `random_seed`, and has its `hist` and
        `report`.

    Raises
    ------
    CheckpointMismatchError
        If the model is another one: a line for each difference, with both sides.
    DamagedCheckpointError
        If a file is not what was written.
    FileNotFoundError
        If there is none.

    Warns
    -----
    UserWarning
        If it was saved by other versions of the packages that compute.

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
    found, contents = read_newest(Path(path).absolute())
    tree = unpack(contents, found)
    if tree.get("kind") != "approximation":
        line = f"kind: {tree.get('kind')!r} in the checkpoint, 'approximation' now"
        raise CheckpointMismatchError(found, [f"{line}: use pm.Trainer.load"])
    check_approximation(tree, found)
    try:
        saved = tree["approximation"]
        lines = list(latent_differences(tree["model"], latent_fingerprint(model, set(params))))
        if lines:
            raise CheckpointMismatchError(found, lines)
        approx = _made(saved, model, guide, params)
        if str(approx) != saved["text"]:
            line = f"approximation: {saved['text']} in the checkpoint, {approx} now"
            raise CheckpointMismatchError(found, [line])
        _set_parameters(approx, saved["parameters"], found)
        put_results(approx, saved, found)
        warn_of_versions(tree["versions"], versions("python"), found)
    except (LookupError, AttributeError) as error:
        raise DamagedCheckpointError(found, f"it has no approximation ({error!r})") from error
    return approx


def _made(saved: Mapping[str, Any], model: Model, guide: Any, params: Any) -> Any:
    """Make the approximation again, with parameters at their start."""
    name = saved["class"]
    if name == GuideApproximation.__name__:
        guides = _guides(saved) if guide is None else guide
        return guided_approximation(model, guides, params=params)
    if guide is not None:
        raise TypeError(
            f"The approximation {saved['text']} is one of pm.{name}: leave guide of pm.load_approximation out"
        )
    size = len(saved["parameters"].get("globals_histogram", ()))
    if name == "Empirical":
        approx = approximations.Empirical(size=size, model=model)
    elif name == AutoApproximation.__name__:
        approx = AutoApproximation(guided_approximation(model, _guides(saved)), size)
    else:
        approx = {"MeanField": approximations.MeanField, "FullRank": approximations.FullRank}[name](
            model=model
        )
    approx.model_parameters = model_parameters(model, params)
    return approx


def _guides(saved: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Make the guides again, by the variables of each.

    Raises
    ------
    TypeError
        If one cannot be made from what is saved.
    """
    guides = {}
    for recipe in saved["guides"]:
        names = tuple(recipe["variables"])
        try:
            guides[names] = make(recipe["class"], recipe["config"])
        except Unknown as error:
            raise TypeError(
                f"The guide of {', '.join(map(repr, names))} in {saved['text']} cannot be made again, as {error} "
                "(an encoder, for one, is a function of yours): give guide= of pm.load_approximation what pm.fit "
                "was given, and params= too"
            ) from error
    return guides


def _set_parameters(approx: Any, saved: Mapping[str, np.ndarray], path: Path) -> None:
    here = parameters_of(approx)
    lines = list(differences(dict.fromkeys(saved, "an array"), dict.fromkeys(here, "an array")))
    lines += [
        f"{name}: {unlike(here[name], saved[name])}"
        for name in here.keys() & saved.keys()
        if unlike(here[name], saved[name])
    ]
    if lines:
        raise CheckpointMismatchError(path, lines)
    tables = tables_of(approx)
    for name, var in named(approx.params).items():
        if var in tables:
            tables[var].shared.get_value(borrow=True)[:, : tables[var].n_params] = saved[name]
        else:
            restore(var, saved[name])
