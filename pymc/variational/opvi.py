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
import warnings

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

import pymc._layer as _layer

from pymc.minibatch.given_rows import given_rows
from pymc.minibatch.guards import full_data_model, is_streamed
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.plates import local_axes, model_indexes
from pymc.minibatch.provenance import Rows, indexes
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream import StreamedRows
from pymc.minibatch.total_size import Term, infer_totals
from pymc.variational.draws import draw_anew
from pymc.variational.fit_arguments import argument_names, check_known
from pymc.variational.minibatch_rv import unscaled_rv
from pymc.variational.replacements import as_replacements
from pymc.variational.results import add_fit
from pymc.variational.saved import Saved
from pymc.variational.vectorize import fits_in_memory, over_particles


def _with_one_draw(sample: Callable, node: Any) -> Any:
    """Draw each index once a step, outside of a Scan over particles, who share it and a stream's rows."""
    several = isinstance(node, list | tuple)
    nodes = list(node) if several else [node]
    # Deriving a log-probability clones an index; clones have one state, and stand for one draw. Those of
    # the rows of a stream have one placeholder
    clones: dict[Variable, list[Variable]] = {}
    for var in ancestors(nodes):
        if _is_of_the_batch(var):
            clones.setdefault(var.owner.inputs[0], []).append(var)
    if not clones:
        return sample(node)
    held = {state: alike[0].type() for state, alike in clones.items()}
    inward = {var: held[state] for state, alike in clones.items() for var in alike}
    nodes = graph_replace(nodes, inward, strict=False)
    draws = sample(nodes if several else nodes[0])
    outward = {held[state]: max(alike, key=_n_checked) for state, alike in clones.items()}
    return graph_replace(draws, outward, strict=False)


def _is_of_the_batch(var: Variable) -> bool:
    """Tell whether a variable is the index of a batch, or the rows of a stream."""
    if var.owner is None:
        return False
    is_index = isinstance(var.owner.op, MinibatchIndexRV) and var.index == 1
    return is_index or isinstance(var.owner.op, StreamedRows)


def _n_checked(var: Variable) -> int:
    """How much the number of rows depends on: one that is checked against more data is the better."""
    return len(set(ancestors(var.owner.inputs[1:])))


def _check_replacements(model: Any, replacements: Mapping[Variable, Variable]) -> None:
    """Refuse to put a minibatch in place of full data where no scale was made for it.

    Raises
    ------
    ValueError
        If an observed variable has no `total_size` for an axis that becomes one of a minibatch, or
        a Potential depends on it.
    """
    if not indexes(replacements.values()):
        return
    advice = (
        "Take pm.minibatch_model(model, batch_size=...) of a model of full data, or give the "
        "observed variables pm.Minibatch when the model is made"
    )
    for rv in model.observed_RVs:
        bare, given = unscaled_rv(rv)
        inputs = [bare, model.rvs_to_values[rv]]
        bare, value = graph_replace(inputs, replacements, strict=False)
        if _same_rows([bare, value], inputs):
            continue
        total_size = None if all(total is None for total in given) else given
        totals = infer_totals(Term(rv.name, bare, value, free=model.free_RVs), total_size)
        for k, (total, said) in enumerate(zip(totals, given)):
            if total is not None and said is None:
                raise ValueError(
                    f"more_replacements puts a minibatch on axis {k} of {rv.name!r}, which was "
                    "made without total_size, so that its log-probability would count for the batch "
                    f"instead of all rows. {advice}"
                )
    for term in model.potentials:
        [replaced] = graph_replace([term], replacements, strict=False)
        if not _same_rows([replaced], [term]):
            raise ValueError(
                f"more_replacements puts a minibatch into the Potential {term.name!r}, which is "
                f"not scaled to all rows. {advice}"
            )


def _same_rows(xs: list[Variable], ys: list[Variable]) -> bool:
    """Tell whether two lists of graphs depend on the same minibatch indexes."""
    return set(map(Rows, indexes(xs))) == set(map(Rows, indexes(ys)))


def _sample_over(
    owner: Any, node: Any, inputs: list[Variable], randoms: list[Variable], by_scan: Callable
) -> Any:
    """Compute `node` at each of the draws `randoms`, with a Scan only where it has to be."""

    def scanned(node: Any) -> Any:
        draws = by_scan(node)  # a bare variable for a list of one
        return [draws] if isinstance(node, list) and not isinstance(draws, list) else draws

    def at_once(node: Any) -> Any:
        several = isinstance(node, list | tuple)
        flat = owner.to_flat_input(list(node) if several else [node])
        try:
            draws = over_particles(flat, inputs, randoms)
        except (NotImplementedError, TypeError, ValueError):
            return scanned(node)  # an Op without a form for many values at once
        return draws if several else draws[0]

    return _with_one_draw(at_once if fits_in_memory(owner.model) else scanned, node)


def _model_of_results(model: Any) -> Any:
    """Return the model that draws are of: of all rows, or without what needs data that are not there."""
    if not is_streamed(model) or all(given_rows(model, i) for i in model_indexes(model)):
        return full_data_model(model)
    from pymc.model.transform.stream import model_without_rows  # which imports the models

    found = model_without_rows(model)
    kept = {var.name for var in found.deterministics}
    names = [var.name for var in model.deterministics if var.name not in kept]
    if names:
        warnings.warn(
            f"approx.sample leaves out {', '.join(map(repr, names))}, computed from the data of rows, which "
            "come in batches from a loader. Give the model rows by pm.set_data, and they are of these",
            stacklevel=3,
        )
    return found


def _check_group_arguments(group: Any) -> None:
    """Refuse what a group of the release's own classes would not look at.

    Raises
    ------
    TypeError
    """
    cls = type(group)
    if cls.__module__ != "pymc.variational.approximations":  # a user's own may look at any
        return
    where = f"pm.{cls.__name__.removesuffix('Group')}"
    if group._vfam is not None and released.Group.group_for_short_name(group._vfam) is not cls:
        raise TypeError(
            f"{where} got vfam={group._vfam!r}, which is another family than its own: leave it out, or "
            f"write pm.fit(method=...), or Group(None, vfam={group._vfam!r})"
        )
    check_known(where, group._kwargs, group_arguments(cls))
    given = [name for name, value in group._kwargs.items() if value is not None]
    for instead in ("params", "trace"):
        is_given = group.user_params is not None if instead == "params" else "trace" in given
        unused = [name for name in given if name != instead]
        if is_given and unused:
            raise TypeError(
                f"{where} got {', '.join(unused)} beside {instead}, which say all there is: leave "
                f"{', '.join(unused)} out, or {instead}"
            )


def group_arguments(cls: type) -> frozenset[str]:
    """Tell which arguments a class of groups takes by name, besides the variables."""
    made_of = argument_names(cls, "create_shared_params") or frozenset()
    return made_of | {"model", "random_seed", "params", "options", "vfam"}


class _Group:
    def __init_group__(self: Any, group: Any) -> None:
        """Refuse variables that have a value for each row, of which a group would hold a batch."""
        _check_group_arguments(self)
        local = [rv.name for rv in local_axes(self.model)]
        if local:
            raise ValueError(
                f"{type(self).__name__}, of pm.MeanField, pm.FullRank, pm.Empirical, Group, pm.SVGD or "
                f"pm.ASVGD, would have one value for each row of a batch, but {', '.join(map(repr, local))} "
                "has one for each row of the data: other rows would reuse it at each step. Use pm.fit, "
                "pm.ADVI or pm.FullRankADVI, which keep parameters of all rows; for another guide, "
                "pm.fit(guide=...)"
            )
        from pymc.variational.guides.fed_rows import check_no_slots  # loads all guides

        check_no_slots(self.model)
        super().__init_group__(group)  # type: ignore[misc]

    def _prepare_start(self: Any, start: Any = None) -> np.ndarray:
        """Like the release's, in the order of the group's variables, and within their supports."""
        # Loads all guides
        from pymc.variational.guides.starts import check_support, of_all_entries, read_starts

        start = read_starts(self.model, start) if start else {}
        start = {name: of_all_entries(self.model, name, x) for name, x in start.items()}
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

    def symbolic_sample_over_posterior(self: Any, node: Any) -> Any:
        by_scan = super().symbolic_sample_over_posterior  # type: ignore[misc]
        random = self.symbolic_random.astype(self.symbolic_initial.dtype)
        return _sample_over(self, node, [self.input], [random], by_scan)


class _Operator:
    def __init__(self: Any, approx: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse an approximation by guides, which has an objective of its own."""
        if isinstance(approx, Saved) and approx.guides:
            raise TypeError(
                f"{type(self).__name__} is an operator on approximations made of groups, and got {approx}, "
                "of guides: these are fitted by pm.fit(guide=..., objective=...), or pm.ADVI(model=...)"
            )
        super().__init__(approx, *args, **kwargs)  # type: ignore[call-arg]


class _Approximation(Saved):
    def symbolic_sample_over_posterior(self: Any, node: Any) -> Any:
        by_scan = super().symbolic_sample_over_posterior  # type: ignore[misc]
        return _sample_over(self, node, self.inputs, self.symbolic_randoms, by_scan)

    def sample_node(
        self: Any,
        node: Any,
        size: Any = None,
        deterministic: bool = False,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Any:
        """Sample nodes over the posterior, anew at each evaluation.

        Parameters
        ----------
        node : Variable, or list or tuple of Variable
        size : int or scalar variable, optional
            Number of draws, along a new leading axis. One draw, without that axis, if not given.
        deterministic : bool
            Whether the mean of the approximation takes the place of its draws.
        more_replacements : mapping of Variable or str to Variable or array, optional
            What to put in the place of other variables, such as a minibatch, or of variables of the
            model by name. The number of rows may be another.

        Returns
        -------
        Variable, or list of Variable

        Raises
        ------
        ValueError, TypeError
            If the model has no variable of a name in `more_replacements`.
        """
        several = isinstance(node, list | tuple)
        nodes = list(node) if several else [node]
        new = as_replacements(self.model, more_replacements)
        if new:
            # Latent variables are what is sampled: a replacement does not reach into their priors
            latent = {rv: rv for rv in self.model.free_RVs}
            nodes = rebuild(nodes, latent | new)
        sampled = super().sample_node(nodes, size, deterministic)  # type: ignore[misc]
        draw_anew(sampled, nodes)
        return sampled if several else sampled[0]

    def set_size_and_deterministic(
        self: Any, node: Any, s: Any, d: Any, more_replacements: Any = None
    ) -> Any:
        new = as_replacements(self.model, more_replacements)
        if new:
            _check_replacements(self.model, new)
        return super().set_size_and_deterministic(node, s, d, new)  # type: ignore[misc]

    def to_flat_input(self: Any, node: Any, more_replacements: Any = None) -> Any:
        new = as_replacements(self.model, more_replacements)
        return super().to_flat_input(node, more_replacements=new)  # type: ignore[misc]

    def sample(
        self: Any,
        draws: int = 500,
        *,
        rows: Any = None,
        var_names: Sequence[str] | str | None = None,
        chunk: int | None = None,
        random_seed: Any = None,
        return_inferencedata: bool = True,
        include_transformed: bool = False,
        include_data: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Draw from the approximation.

        Parameters
        ----------
        draws : int
            Number of draws.
        rows : slice, sequence of int or bool, or dict, optional
            Which rows of the data deterministics are of, where the model has minibatches: positions, or
            by dim, their coords, such as ``{"obs": ["a", "b"]}``. Default: all.
        var_names : str or sequence of str, optional
            Which variables. Default: free variables, and deterministics but for those of the rows whose
            draws take over 270 MB.
        chunk : int, optional
            How many of the `rows` to compute at a time. Default: as many as make 4 million numbers.
        random_seed : int, RandomState or Generator, optional
        return_inferencedata : bool
            Whether to return an ArviZ DataTree, or a MultiTrace.
        include_transformed : bool
            Whether variables that are transformed come on the unconstrained space too.
        include_data : bool, optional
            Whether the groups observed_data and constant_data come along. Default: if they take at most
            67 MB, or `rows` are selected.
        **kwargs
            Of :func:`pymc.to_inference_data`, for all rows.

        Returns
        -------
        DataTree or MultiTrace
            With the groups posterior, observed_data, constant_data, and fit where there was one.

        Warns
        -----
        UserWarning
            If a deterministic is left out: its draws are large, or rows are selected and it is computed
            over all rows.

        Raises
        ------
        ValueError, KeyError, IndexError, TypeError
            If there is no such row or variable.
        MemoryError
            If the draws would not fit in memory; nothing is drawn then.
        """
        asked = {
            "rows": rows,
            "var_names": var_names,
            "chunk": chunk,
            "random_seed": random_seed,
            "return_inferencedata": return_inferencedata,
            "include_transformed": include_transformed,
            "include_data": include_data,
        }
        # What results are made of is loaded when there are some, and not by `import pymc`
        from pymc.variational.posterior.groups import DrawnGroups
        from pymc.variational.posterior.results import draws_of_groups, posterior_draws

        model = released.pm.Model.get_context(error_if_none=False) or self.model
        if rows is None:
            full = _model_of_results(model)  # deterministics on a subsampled dim are of all rows
            sample = super().sample  # type: ignore[misc]
            found = draws_of_groups(self, model, full, sample, draws, **asked, **kwargs)
        else:
            if kwargs:
                raise TypeError(
                    f"approx.sample(rows={rows!r}) takes no {', '.join(kwargs)}, which are of pm.to_inference_data "
                    "and need all rows: leave them out, or leave rows out"
                )
            found = posterior_draws(DrawnGroups(self, model), draws, **asked)
        return add_fit(found, self)

    def sample_chunks(self: Any, draws: int = 500, **kwargs: Any) -> Iterator[Any]:
        """Draw from the approximation, a part of the rows at a time.

        As :meth:`~pymc.variational.approximation.GuidedApproximation.sample_chunks`, which has the
        parameters `rows`, `var_names`, `chunk` and `random_seed`. A model without minibatches has no rows,
        and comes as one part.

        Returns
        -------
        iterator of Dataset
        """
        from pymc.variational.posterior.groups import DrawnGroups
        from pymc.variational.posterior.results import posterior_chunks

        return posterior_chunks(DrawnGroups(self, self.model), draws, **kwargs)

    def sample_posterior_predictive(self: Any, draws: int = 500, **kwargs: Any) -> Any:
        """Draw new data of all rows or of some, without keeping the latent variables.

        As :meth:`~pymc.variational.approximation.GuidedApproximation.sample_posterior_predictive`,
        which has the parameters `rows`, `var_names`, `chunk`, `random_seed` and `include_data`.

        Returns
        -------
        DataTree
        """
        from pymc.variational.posterior.groups import DrawnGroups
        from pymc.variational.posterior.results import predictive_draws

        return predictive_draws(DrawnGroups(self, self.model), draws, **kwargs)


released = _layer.run_release(
    globals(), Group=_Group, Operator=_Operator, Approximation=_Approximation
)
