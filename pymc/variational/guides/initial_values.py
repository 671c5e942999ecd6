# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Initial values of guides: the arguments `start` and `start_sigma` of :func:`pymc.fit`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor

from numpy.typing import ArrayLike
from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
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

#: Relative rounding of a start that is accepted: 0.33 in a simplex stands for a third.
ROUNDING = 0.05


@dataclass(frozen=True)
class InitialValues:
    """Initial means and standard deviations of guides.

    Parameters
    ----------
    point : mapping of str to array
        Values of all rows on the unconstrained space, by the name of the value variable.
    sigmas : mapping of str to array
        Standard deviations on the unconstrained space, by the name of the value variable. A variable that
        is missing has the default of its guide.
    rng : RandomState
        Draws random initial values, such as those of particles.
    """

    point: Mapping[str, np.ndarray]
    sigmas: Mapping[str, np.ndarray] = field(default_factory=dict)
    rng: np.random.RandomState = field(default_factory=np.random.RandomState)

    @classmethod
    def from_model(
        cls,
        model: Model,
        start: Mapping[str, Any] | None = None,
        start_sigma: Mapping[str, Any] | None = None,
        rng: np.random.RandomState | None = None,
    ) -> InitialValues:
        """Take the initial point of `model` on all rows, or the user's values instead.

        Raises
        ------
        ValueError, TypeError
            If a start is for a variable that is no free variable of the model, has another shape or is
            not in the support; or a standard deviation is not a positive number.
        """
        start = read_starts(model, start or {})
        full = shape_only_model(model)
        initial_point = make_initial_point_fn(
            model=full,
            overrides={name: broadcast_start(full, name, x) for name, x in start.items()},
            jitter_rvs=set(),
            return_transformed=True,
        )
        rng = rng or np.random.RandomState()
        point = initial_point(rng.randint(2**30, dtype=np.int64))
        point = _without_missing_data(model, point, start)
        check_support(full, point, start)
        return cls(point, read_sigmas(model, start_sigma or {}), rng)

    def means(self, layout: Layout) -> np.ndarray:
        """Return the initial mean of each entry: shape (size,), or (1 or rows, size)."""
        return _one_row_if_equal(layout.flatten(self.point)).astype(pytensor.config.floatX)

    def rhos(self, layout: Layout, default: float = 0.0) -> np.ndarray:
        """Return the parameters whose softplus is the standard deviation; `default` where it is not set."""
        return self._of_sigmas(layout, default, rhos_of_entries)

    def sds(self, layout: Layout, default: float) -> np.ndarray:
        """Return the standard deviations; `default` where they are not set."""
        return self._of_sigmas(layout, default, sds_of_entries)

    def _of_sigmas(self, layout: Layout, default: float, convert: Callable) -> np.ndarray:
        values = {}
        for site in layout.sites:
            name = site.value.name or ""
            shape, sigma = np.shape(self.point[name]), self.sigmas.get(name)
            values[name] = (
                np.full(shape, default) if sigma is None else convert(site.name, sigma, shape)
            )
        return _one_row_if_equal(layout.flatten(values)).astype(pytensor.config.floatX)


def read_starts(model: Model, start: Mapping[Any, Any]) -> dict[str, Any]:
    """Return starts by name; those of deterministics, which `pm.find_MAP` returns too, are left out."""
    by_name = _by_name(model, "start", start, also={var.name for var in model.deterministics})
    known = _value_names(model)
    return {name: value for name, value in by_name.items() if name in known}


def read_sigmas(model: Model, start_sigma: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Return unconstrained standard deviations by the name of the value variable, such as ``"s_log__"``."""
    value_names = _value_names(model)
    sigmas: dict[str, np.ndarray] = {}
    for name, value in _by_name(model, "start_sigma", start_sigma).items():
        sigma, value_name = _check_sigma(name, value), value_names[name]
        if value_name in sigmas and not np.array_equal(sigmas[value_name], sigma):
            raise ValueError(
                f"start_sigma of pm.fit has {_short(sigma)} for {name!r} and "
                f"{_short(sigmas[value_name])} for another name of the same variable: both are on the "
                "unconstrained space. Give one of them"
            )
        sigmas[value_name] = sigma
    return sigmas


def sigmas_of_group(
    group: Any, start_sigma: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Return the standard deviations of all entries of a group's variables, for those that have some."""
    sigmas = read_sigmas(group.model, start_sigma) if start_sigma else {}
    return {
        name: sds_of_entries(name, sigmas[name], shape).ravel()
        for name, _, shape, _ in group.ordering.values()
        if name in sigmas
    }


def set_diagonal(
    group: Any, L_tril: SharedVariable, start_sigma: Mapping[str, np.ndarray] | None
) -> None:
    """Set the diagonal of a full-rank group's factor to the argument `start_sigma`."""
    if start_sigma is None:  # the group's class passes on `start` alone
        start_sigma = vars(group).get("_kwargs", {}).get("start_sigma")
    values = L_tril.get_value()
    rows, columns = group.tril_indices
    diagonal = np.flatnonzero(rows == columns)
    for name, sds in sigmas_of_group(group, start_sigma).items():
        values[diagonal[group.ordering[name][1]]] = rhos(sds)
    L_tril.set_value(values)


def rhos_of_entries(name: str, sigma: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the parameter of each entry whose softplus is its standard deviation."""
    return rhos(sds_of_entries(name, sigma, shape))


def rhos(sds: np.ndarray) -> np.ndarray:
    """Invert the softplus."""
    return sds + np.log(-np.expm1(-sds))  # expm1 of a large one would be infinite


def sds_of_entries(name: str, sigma: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Broadcast a standard deviation to a value's shape; a vector may have one for each entry in C order."""
    if sigma.ndim == 1 and sigma.size == prod(shape):
        sigma = sigma.reshape(shape)
    return _broadcast("start_sigma", name, sigma, tuple(shape))


def _value_names(model: Model) -> dict[str, str]:
    """Map both names of each free variable to that of its value variable."""
    by_rv = {rv.name: model.rvs_to_values[rv].name for rv in model.free_RVs}
    return {**{name: name for name in by_rv.values()}, **by_rv}


def _by_name(
    model: Model, argument: str, values: object, also: Collection[str] = ()
) -> dict[str, Any]:
    """Replace variables by names in the keys of `start` or `start_sigma`, and check them."""
    if not isinstance(values, Mapping):
        raise TypeError(
            f"{argument} of pm.fit is a dict by variable, such as {{'mu': 0.1}}; got {values!r}"
        )
    by_name: dict[str, Any] = {}
    for key, value in values.items():
        name = str(getattr(key, "name", key))
        if name in by_name:
            raise ValueError(
                f"{argument} of pm.fit has {name!r} twice, by its name and as a variable. Give one of them"
            )
        by_name[name] = value
    known = _value_names(model)
    unknown = [name for name in by_name if name not in known and name not in also]
    if unknown:
        names = sorted(rv.name for rv in model.free_RVs)
        raise ValueError(
            f"{argument} of pm.fit has {', '.join(map(repr, unknown))}, but the model's free "
            f"variables are {names}"
        )
    return by_name


def _one_row_if_equal(flat: np.ndarray) -> np.ndarray:
    # One row stands for all, so that a table of rows need not be written
    if flat.ndim == 2 and len(flat) > 1 and (flat == flat[:1]).all():
        return flat[:1].copy()
    return flat


def check_starts_used(
    sites: Sequence[Site], arguments: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """Raise for starts of variables of guide models and encoders, which have no parameters of their own."""
    for argument, values in arguments.items():
        for site in sites:
            if values and (site.name in values or site.value.name in values):
                raise ValueError(
                    f"{argument} of pm.fit has {site.name!r}, but a guide model or an encoder of pm.Amortized "
                    "sets its distribution, which starts where the parameters of that do. Leave "
                    f"{site.name!r} out, and set the parameters"
                )


def _without_missing_data(
    model: Model, point: Mapping[str, np.ndarray], start: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Start at 0 where a start depends on data that a loader has not read yet."""
    point = dict(point)
    for rv, axes in local_axes(model).items():
        name = model.rvs_to_values[rv].name
        if start.keys().isdisjoint((rv.name, name)) and any(a and is_stream(a) for a in axes):
            point[name] = np.where(np.isfinite(point[name]), point[name], 0)
    return point


def check_support(model: Model, point: Mapping[str, np.ndarray], start: Mapping[str, Any]) -> None:
    """Raise if a start is outside of the support, or two starts of one variable differ.

    `point` has unconstrained values by the name of the value variable, and `start` those of the user by name.
    """
    for rv in model.free_RVs:
        value = model.rvs_to_values[rv].name
        starts = {name: start[name] for name in (rv.name, value) if name in start}
        if not starts or value not in point:
            continue
        if not np.isfinite(point[value]).all():
            [start_of_rv, *_] = starts.values()
            raise ValueError(
                f"start of pm.fit has {_short(start_of_rv)} for {rv.name!r}, which is not within its support: "
                "on the unconstrained space, where the guide would start, it is not finite. Give a "
                "value that the variable can have"
            )
        _check_round_trip(model, rv, point, starts)


def _check_round_trip(
    model: Model, rv: Variable, point: Mapping[str, np.ndarray], starts: Mapping[str, Any]
) -> None:
    """Raise if the variable at `point` differs from its starts, by one name or by both."""
    value = model.rvs_to_values[rv]
    by_graph = any(isinstance(start, str | Variable) for start in starts.values())
    if rv.name not in starts or by_graph or model.rvs_to_transforms[rv] is None:
        return
    constrained = model.replace_rvs_by_values([rv])
    inputs = [var for var in explicit_graph_inputs(constrained) if var in model.value_vars]
    if any(var.name not in point for var in inputs):
        return  # its bounds depend on a variable of another group
    python = Mode(linker="py", optimizer=None)  # it is called once or twice
    backward = pytensor.function(inputs, constrained, mode=python)

    def constrain(unconstrained: ArrayLike) -> np.ndarray:
        values = {**point, value.name: unconstrained}
        return backward(*(np.asarray(values[var.name], var.type.dtype) for var in inputs))[0]

    start = starts[rv.name]
    if value.name in starts and not _about_equal(constrain(starts[value.name]), start):
        raise ValueError(
            f"start of pm.fit has {_short(start)} for {rv.name!r}, and "
            f"{_short(starts[value.name])} for {value.name!r}, which is the same variable on the "
            "unconstrained space, and another value of it. Give one of them"
        )
    initial = constrain(point[value.name])
    if not _about_equal(initial, start):
        raise ValueError(
            f"start of pm.fit has {_short(start)} for {rv.name!r}, which is not within its support: "
            f"it would start at {_short(initial)}. Give a value that the variable can have"
        )


def _about_equal(value: np.ndarray, start: ArrayLike) -> bool:
    atol = ROUNDING * float(np.max(np.abs(start), initial=0))
    return np.allclose(value, start, rtol=0, atol=atol)


def broadcast_start(model: Model, name: str, start: Any) -> Any:
    """Broadcast the start of a variable to its shape; other kinds of starts stay as they are."""
    if isinstance(start, str | Variable) or name not in model.named_vars:
        return start
    shape = as_tensor(model[name]).shape.eval(mode="FAST_COMPILE")
    return _broadcast("start", name, start, tuple(map(int, shape)))


def _check_sigma(name: str, sigma: ArrayLike) -> np.ndarray:
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


def _broadcast(argument: str, name: str, value: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.broadcast_to(value, shape)
    except ValueError:
        space = " on the unconstrained space" if argument == "start_sigma" else ""
        raise ValueError(
            f"{argument} of pm.fit for {name!r} has the shape {np.shape(value)}, which does not broadcast "
            f"to {shape}, the shape of the variable{space}. A variable with rows needs those of all data, "
            "not of a batch. Give one value for all entries, or one for each"
        ) from None


def _short(value: ArrayLike) -> str:
    return np.array2string(np.asarray(value), threshold=6)
