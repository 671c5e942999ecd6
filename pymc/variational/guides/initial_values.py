# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Where parameters of guides start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import explicit_graph_inputs

from pymc.initial_point import make_initial_point_fn
from pymc.minibatch.plates import local_axes
from pymc.minibatch.stream_index import is_stream
from pymc.model.full_data import shape_only_model
from pymc.variational.guides.base import Layout, Site
from pymc.variational.vectorize import as_tensor

if TYPE_CHECKING:
    from pymc.model.core import Model

#: A start may be rounded: up to this part of its largest entry
ROUNDED = 0.05


@dataclass(frozen=True)
class InitialValues:
    """The point at which guides start, and how wide they are there.

    Parameters
    ----------
    point : mapping of str to array
        Values of all rows on the unconstrained space, by the name of the value variable.
    sigmas : mapping of str to array
        Standard deviations on the unconstrained space, by the name of the value variable;
        ``softplus(0)``, 0.69, where there is none.
    rng : RandomState
        For what starts at random.
    """

    point: Mapping[str, np.ndarray]
    sigmas: Mapping[str, Any] = field(default_factory=dict)
    rng: np.random.RandomState = field(default_factory=np.random.RandomState)

    @classmethod
    def from_model(
        cls,
        model: Model,
        start: Mapping[str, Any] | None = None,
        start_sigma: Mapping[str, Any] | None = None,
        rng: np.random.RandomState | None = None,
    ) -> InitialValues:
        """Take the initial point of `model` on all rows, or what the user gives instead.

        Raises
        ------
        ValueError, TypeError
            If a start is for a variable that the model does not have as a free one, of another shape,
            or not in its support; or a standard deviation is not a positive number.
        """
        start = read_starts(model, start or {})
        full = shape_only_model(model)
        initial_point = make_initial_point_fn(
            model=full,
            overrides={name: of_all_entries(full, name, x) for name, x in start.items()},
            jitter_rvs=set(),
            return_transformed=True,
        )
        rng = rng or np.random.RandomState()
        point = initial_point(rng.randint(2**30, dtype=np.int64))
        point = _without_data(model, point, start)
        check_support(full, point, start)
        return cls(point, read_sigmas(model, start_sigma or {}), rng)

    def means(self, layout: Layout) -> np.ndarray:
        """Where each entry starts: shape (size,), or (1 or rows, size)."""
        return _once_if_alike(layout.flatten(self.point)).astype(pytensor.config.floatX)

    def rhos(self, layout: Layout, default: float = 0.0) -> np.ndarray:
        """Return the parameters whose softplus is the standard deviation; `default` where it is not given."""
        return self._of_sigmas(layout, default, rhos_of_entries)

    def sds(self, layout: Layout, default: float) -> np.ndarray:
        """Return the standard deviations, `default` where they are not given."""
        return self._of_sigmas(layout, default, sds_of_entries)

    def _of_sigmas(self, layout: Layout, default: float, convert: Callable) -> np.ndarray:
        found = {}
        for site in layout.sites:
            name = site.value.name or ""
            shape = np.shape(self.point[name])
            sigma = self.sigmas.get(name)
            found[name] = (
                np.full(shape, default) if sigma is None else convert(site.name, sigma, shape)
            )
        return _once_if_alike(layout.flatten(found)).astype(pytensor.config.floatX)


def read_starts(model: Model, start: Mapping[Any, Any]) -> dict[str, Any]:
    """Give the values of a start by name; deterministics, as of `pm.find_MAP`, start nothing.

    Parameters
    ----------
    model : Model
    start : mapping
        By a variable, its name, or that of its value variable: on its own space, or on the
        unconstrained one.

    Raises
    ------
    TypeError, ValueError
    """
    named = _by_name(model, "start", start, also={var.name for var in model.deterministics})
    known = _value_names(model)
    return {name: value for name, value in named.items() if name in known}


def read_sigmas(model: Model, start_sigma: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Give standard deviations on the unconstrained space by the name of the value variable.

    Parameters
    ----------
    model : Model
    start_sigma : mapping
        By a variable, its name, or that of its value variable, such as ``"s"`` or ``"s_log__"``.

    Raises
    ------
    TypeError, ValueError
    """
    value_names = _value_names(model)
    sigmas: dict[str, np.ndarray] = {}
    for name, parents in _by_name(model, "start_sigma", start_sigma).items():
        sigma, value_name = _sigma(name, parents), value_names[name]
        if value_name in sigmas and not np.array_equal(sigmas[value_name], sigma):
            raise ValueError(
                f"start_sigma of pm.fit has {_short(sigma)} for {name!r} and "
                f"{_short(sigmas[value_name])} for another name of the same variable: both are on the "
                "unconstrained space. Give one of them"
            )
        sigmas[value_name] = sigma
    return sigmas


def rhos_of_entries(name: str, sigma: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the parameter of each entry whose softplus is its standard deviation.

    The arguments are those of :func:`sds_of_entries`.
    """
    return rhos(sds_of_entries(name, sigma, shape))


def rhos(sds: np.ndarray) -> np.ndarray:
    """Return the parameters whose softplus is a standard deviation."""
    return sds + np.log(-np.expm1(-sds))  # expm1 of a large one would be infinite


def sds_of_entries(name: str, sigma: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the standard deviation of each entry of a value.

    Parameters
    ----------
    name : str
    sigma : array
        Of all entries, or one for each: in the value's shape, or in a row.
    shape : sequence of int

    Raises
    ------
    ValueError
    """
    if sigma.ndim == 1 and sigma.size == prod(shape):
        sigma = sigma.reshape(shape)
    return _broadcast("start_sigma", name, sigma, tuple(shape))


def _value_names(model: Model) -> dict[str, str]:
    """Map both names of each free variable to that of its value variable."""
    both = {rv.name: model.rvs_to_values[rv].name for rv in model.free_RVs}
    return {**{value: value for value in both.values()}, **both}


def _by_name(
    model: Model, argument: str, parents: Any, also: Collection[str] = ()
) -> dict[str, Any]:
    """Check the keys of a dict of starts."""
    if not isinstance(parents, Mapping):
        raise TypeError(
            f"{argument} of pm.fit is a dict by variable, such as {{'mu': 0.1}}; got {parents!r}"
        )
    named: dict[str, Any] = {}
    for key, value in parents.items():
        name = str(getattr(key, "name", key))
        if name in named:
            raise ValueError(
                f"{argument} of pm.fit has {name!r} twice, by its name and as a variable. Give one of them"
            )
        named[name] = value
    known = _value_names(model)
    unknown = [name for name in named if name not in known and name not in also]
    if unknown:
        names = sorted(rv.name for rv in model.free_RVs)
        raise ValueError(
            f"{argument} of pm.fit has {', '.join(map(repr, unknown))}, but the model's free "
            f"variables are {names}"
        )
    return named


def _once_if_alike(flat: np.ndarray) -> np.ndarray:
    """Keep one row where all rows are alike."""
    if flat.ndim == 2 and len(flat) > 1 and (flat == flat[:1]).all():
        return flat[:1].copy()
    return flat


def check_used(sites: Sequence[Site], arguments: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Refuse starts of variables whose guide starts where its parameters do: an encoder, or a model.

    Parameters
    ----------
    sites : sequence of Site
        The variables that encoders draw, or guides that are models.
    arguments : mapping of str to dict or None
        `start` and `start_sigma` as given.

    Raises
    ------
    ValueError
    """
    for argument, parents in arguments.items():
        for site in sites:
            if parents and (site.name in parents or site.value.name in parents):
                raise ValueError(
                    f"{argument} of pm.fit has {site.name!r}, whose distribution a guide model or "
                    "an encoder of pm.Amortized gives: it starts where the parameters of that do, and "
                    f"this would change nothing. Leave {site.name!r} out, and set the parameters"
                )


def _without_data(
    model: Model, point: Mapping[str, np.ndarray], start: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Start at 0 what starts where the data of its row say, if these come in batches from a loader."""
    point = dict(point)
    for rv, axes in local_axes(model).items():
        name = model.rvs_to_values[rv].name
        if start.keys().isdisjoint((rv.name, name)) and any(a and is_stream(a) for a in axes):
            point[name] = np.where(np.isfinite(point[name]), point[name], 0)
    return point


def check_support(model: Model, point: Mapping[str, np.ndarray], start: Mapping[str, Any]) -> None:
    """Raise where a start is no value of its variable, or two starts of one variable differ.

    Parameters
    ----------
    model : Model
    point : mapping of str to array
        On the unconstrained space, by the name of the value variable; others are left out.
    start : mapping of str to value
        As given, by name.

    Raises
    ------
    ValueError
    """
    for rv in model.free_RVs:
        value = model.rvs_to_values[rv].name
        parents = {name: start[name] for name in (rv.name, value) if name in start}
        if not parents or value not in point:
            continue
        named = parents.get(rv.name, parents.get(value))
        if not np.isfinite(point[value]).all():
            raise ValueError(
                f"start of pm.fit has {_short(named)} for {rv.name!r}, which is not within its support: "
                "on the unconstrained space, where the guide would start, it is not finite. Give a "
                "value that the variable can have"
            )
        _check_same(model, rv, point, parents)


def _check_same(
    model: Model, rv: Variable, point: Mapping[str, np.ndarray], parents: Mapping[str, Any]
) -> None:
    """Raise where the value of a variable at `point` is not what was given, by one name or by both."""
    value = model.rvs_to_values[rv]
    by_graph = any(isinstance(start, str | Variable) for start in parents.values())
    if rv.name not in parents or by_graph or model.rvs_to_transforms[rv] is None:
        return
    constrained = model.replace_rvs_by_values([rv])
    inputs = [var for var in explicit_graph_inputs(constrained) if var in model.value_vars]
    if any(var.name not in point for var in inputs):
        return  # its bounds depend on a variable of another group
    python = Mode(linker="py", optimizer=None)  # it is called once or twice
    backward = pytensor.function(inputs, constrained, mode=python)

    def on_own_space(at: Any) -> np.ndarray:
        values = {**point, value.name: at}
        return backward(*(np.asarray(values[var.name], var.type.dtype) for var in inputs))[0]

    starts = on_own_space(point[value.name])
    if value.name in parents and not _about_equal(
        on_own_space(parents[value.name]), parents[rv.name]
    ):
        raise ValueError(
            f"start of pm.fit has {_short(parents[rv.name])} for {rv.name!r}, and "
            f"{_short(parents[value.name])} for {value.name!r}, which is the same variable on the "
            "unconstrained space, and another value of it. Give one of them"
        )
    if not _about_equal(starts, parents[rv.name]):
        raise ValueError(
            f"start of pm.fit has {_short(parents[rv.name])} for {rv.name!r}, which is not within its support: "
            f"it would start at {_short(starts)}. Give a value that the variable can have"
        )


def _about_equal(found: np.ndarray, parents: Any) -> bool:
    """Tell whether two values are equal up to a few digits: 0.33 in a simplex is a third."""
    return np.allclose(
        found, parents, rtol=0, atol=ROUNDED * float(np.max(np.abs(parents), initial=0))
    )


def of_all_entries(model: Model, name: str, start: Any) -> Any:
    """Let one value be that of all entries of a variable.

    Parameters
    ----------
    model : Model
    name : str
        Of a variable, or of its value variable, of which the start stays as it is.
    start : array_like, or str or Variable, which stay as they are

    Raises
    ------
    ValueError
        If it has another shape.
    """
    if isinstance(start, str | Variable) or name not in model.named_vars:
        return start
    shape = as_tensor(model[name]).shape.eval(mode="FAST_COMPILE")
    return _broadcast("start", name, start, tuple(map(int, shape)))


def _sigma(name: str, sigma: Any) -> np.ndarray:
    """Check a standard deviation on the unconstrained space."""
    array = np.asarray(sigma)
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"start_sigma of pm.fit has {_short(sigma)} for {name!r}, of type {type(sigma).__name__}: "
            "a standard deviation is a number, or an array of them, such as 0.1"
        )
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(
            f"start_sigma of pm.fit has {_short(sigma)} for {name!r}: a standard deviation, here on the "
            "unconstrained space, is positive and finite, such as 0.1"
        )
    return array


def _broadcast(argument: str, name: str, parents: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.broadcast_to(parents, shape)
    except ValueError:
        space = " on the unconstrained space" if argument == "start_sigma" else ""
        raise ValueError(
            f"{argument} of pm.fit for {name!r} has the shape {np.shape(parents)}, which does not broadcast "
            f"to {shape}, that of the variable{space}: where it has rows, those of all data, not of a "
            "batch. Give one value for all entries, or one for each"
        ) from None


def _short(parents: Any) -> str:
    return np.array2string(np.asarray(parents), threshold=6)
