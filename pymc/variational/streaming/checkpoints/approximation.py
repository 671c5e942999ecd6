#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""Approximations on the disk: ``approx.save(path)`` and :func:`pymc.load_approximation`."""

from __future__ import annotations

import os

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

import pymc.variational.approximations as approximations

from pymc.model.core import modelcontext
from pymc.variational.approximation import GuideApproximation, guided_approximation
from pymc.variational.engine.step import host_value
from pymc.variational.guides.full_rank import FullRankGuide
from pymc.variational.guides.low_rank import LowRank
from pymc.variational.guides.mean_field import MeanFieldGuide
from pymc.variational.report import FitReport
from pymc.variational.streaming.checkpoints.errors import (
    CheckpointMismatchError,
    DamagedCheckpointError,
)
from pymc.variational.streaming.checkpoints.files import write
from pymc.variational.streaming.checkpoints.fingerprint import (
    differences,
    named,
    versions,
    warn_of_versions,
)
from pymc.variational.streaming.checkpoints.latents import (
    latent_differences,
    latent_fingerprint,
)
from pymc.variational.streaming.checkpoints.reading import read_newest
from pymc.variational.streaming.checkpoints.state import pack, restore, unlike, unpack
from pymc.variational.streaming.checkpoints.validation import (
    check_approximation,
    check_generators,
)

__all__ = ["load_approximation", "put_results", "results_tree", "save_approximation"]

#: Approximations of the release that are made again from a model.
CLASSES = ("MeanField", "FullRank", "Empirical")


def save_approximation(approx: Any, path: str | os.PathLike[str]) -> Path:
    """Write an approximation; see :meth:`pymc.Approximation.save`."""
    target = Path(path).absolute()
    if target.exists():
        raise FileExistsError(
            f"path={str(path)!r} of save exists, and is left as it is: give another, or remove it."
        )
    tree = {
        "kind": "approximation",
        "model": latent_fingerprint(approx.model, set(approx.params)),
        "versions": versions("python"),
        "approximation": {
            "class": _class_of(approx),
            "text": str(approx),
            "guides": [_guide_recipe(guide) for guide in getattr(approx, "guides", ())],
            "parameters": _parameters(approx),
            **results_tree(approx),
        },
    }
    return write(target, pack(tree))


def load_approximation(
    path: str | os.PathLike[str],
    *,
    model: Any = None,
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


def results_tree(approx: Any) -> dict[str, Any]:
    """Take what an approximation knows of its fit, and its generators."""
    report = getattr(approx, "report", None)
    return {
        "generators": [owner.rng for owner in _owners(approx)],
        "include_transformed": [
            bool(getattr(owner, "include_transformed", False)) for owner in _owners(approx)
        ],
        "hist": np.asarray(getattr(approx, "hist", ()), dtype="float64"),
        "guide_losses": dict(getattr(approx, "guide_losses", {})),
        "report": None if report is None else {**asdict(report), "settings": dict(report.settings)},
    }


def put_results(approx: Any, saved: Mapping[str, Any], path: Path) -> None:
    """Give an approximation what :func:`results_tree` took."""
    check_generators(saved, len(_owners(approx)), path)
    for owner, rng, transformed in zip(
        _owners(approx), saved["generators"], saved["include_transformed"], strict=True
    ):
        owner.rng = rng
        owner.include_transformed = transformed
    approx.hist = saved["hist"]
    if hasattr(approx, "guide_losses"):
        approx.guide_losses = dict(saved["guide_losses"])
    report = saved["report"]
    if report is not None:
        approx.report = FitReport(**report)


def _owners(approx: Any) -> list[Any]:
    """Those that have generators: groups, or a guided approximation itself."""
    return [approx]


def _class_of(approx: Any) -> str:
    """Tell by which name an approximation is made again.

    Raises
    ------
    TypeError
        If it is by no name.
    """
    name = type(approx).__name__
    if type(approx) not in [*_classes().values(), GuideApproximation]:
        raise TypeError(
            f"{name}.save of groups of your own cannot be loaded again without them: only approximations of "
            f"pm.fit, {', '.join(f'pm.{known}' for known in CLASSES)} are saved. Save the draws: "
            "approx.sample().to_netcdf(...)"
        )
    return name


def _classes() -> dict[str, Any]:
    return {name: getattr(approximations, name) for name in CLASSES}


def _guide_recipe(guide: Any) -> dict[str, Any]:
    names = [site.name for site in guide.sites]
    return {
        "class": type(guide).__name__,
        "names": names,
        "rows": bool(guide.sites[0].plate),
        "rank": guide.rank if isinstance(guide, LowRank) else None,
    }


def _family(recipe: Mapping[str, Any]) -> Any:
    """Make what `guide` of :func:`pymc.fit` says of a guide, None where only the user can."""
    if recipe["class"] == MeanFieldGuide.__name__:
        return "mean_field"
    if recipe["class"] == FullRankGuide.__name__:
        return "row_full_rank" if recipe["rows"] else "full_rank"
    return LowRank(recipe["rank"]) if recipe["class"] == LowRank.__name__ else None


def _made(saved: Mapping[str, Any], model: Any, guide: Any, params: Any) -> Any:
    """Make the approximation again, with parameters at their start."""
    if saved["class"] == GuideApproximation.__name__:
        families = {tuple(recipe["names"]): _family(recipe) for recipe in saved["guides"]}
        if guide is None and None in families.values():
            raise TypeError(
                f"The approximation {saved['text']} has encoders, which are functions of yours: give "
                "guide= of pm.load_approximation what pm.fit was given, and params= too"
            )
        return guided_approximation(model, families if guide is None else guide, params=params)
    if guide is not None or len(params):
        raise TypeError(
            f"The approximation {saved['text']} is not one of guides: leave guide and params of "
            "pm.load_approximation out"
        )
    released = _classes()
    if saved["class"] == "Empirical":
        size = len(saved["parameters"]["histogram"])
        return released["Empirical"](size=size, model=model)
    return released[saved["class"]](model=model)


def _tables(approx: Any) -> dict[SharedVariable, Any]:
    return {table.shared: table for table in approx.tables}


def _parameters(approx: Any) -> dict[str, np.ndarray]:
    """Take the parameters: of tables those of the rows, without what an optimizer keeps."""
    tables = _tables(approx)
    return {
        name: tables[var].parameters() if var in tables else host_value(var)
        for name, var in named(approx.params).items()
    }


def _set_parameters(approx: Any, saved: Mapping[str, np.ndarray], path: Path) -> None:
    here = _parameters(approx)
    lines = list(differences(dict.fromkeys(saved, "an array"), dict.fromkeys(here, "an array")))
    lines += [
        f"{name}: {unlike(here[name], saved[name])}"
        for name in here.keys() & saved.keys()
        if unlike(here[name], saved[name])
    ]
    if lines:
        raise CheckpointMismatchError(path, lines)
    tables = _tables(approx)
    for name, var in named(approx.params).items():
        if var in tables:
            tables[var].shared.get_value(borrow=True)[:, : tables[var].n_params] = saved[name]
        else:
            restore(var, saved[name])
