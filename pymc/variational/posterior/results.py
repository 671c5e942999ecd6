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
"""What a guided fit gives back: draws of all rows or of some, as ArviZ has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from pymc.backends.base import MultiTrace
from pymc.backends.ndarray import NDArray
from pymc.minibatch.guards import is_streamed
from pymc.sampling.deterministic import compute_deterministics
from pymc.util import RandomState
from pymc.variational.counts import check_count
from pymc.variational.posterior.functions import row_axes
from pymc.variational.posterior.groups import DrawnGroups
from pymc.variational.posterior.outputs import latent_outputs, observed_outputs
from pymc.variational.posterior.request import Request
from pymc.variational.results import add_fit

__all__ = ["draws_of_groups", "posterior_chunks", "posterior_draws", "predictive_draws"]


def posterior_draws(
    approx: Any,
    draws: int = 500,
    *,
    rows: Any = None,
    var_names: Sequence[str] | str | None = None,
    chunk: int | None = None,
    random_seed: RandomState = None,
    return_inferencedata: bool = True,
    include_transformed: bool = False,
    include_data: bool | None = None,
) -> Any:
    """Draw from an approximation; the arguments are those of :meth:`GuidedApproximation.sample`."""
    function = "approx.sample"
    draws, chunk = _checked(draws, chunk, function)
    known = latent_outputs(approx.model, include_transformed or not return_inferencedata)
    request = Request.of(approx, known, rows, var_names, function)
    if var_names is None:
        request = request.without_large(draws)
    request.check_memory(draws)
    # What is computed over all rows needs all variables
    needed = known if request.mixed else request.outputs
    arrays = request.arrays([o for o in needed if not o.mixed], draws, chunk, random_seed)
    dataset = request.dataset(arrays)
    if request.mixed:
        names = [output.name for output in request.mixed]
        more = compute_deterministics(
            dataset, var_names=names, model=request.full_model, progressbar=False
        )
        dataset = dataset.merge(more)
    dataset = dataset[[output.name for output in request.outputs]]
    if not return_inferencedata:
        return _multi_trace(request, dataset)
    groups = request.data_groups() if request.has_data(include_data) else {}
    return add_fit(xr.DataTree.from_dict({"posterior": dataset, **groups}), approx)


def draws_of_groups(
    approx: Any,
    model: Any,
    full_model: Any,
    sample: Callable,
    draws: int,
    *,
    rows: None,
    var_names: Sequence[str] | str | None,
    chunk: int | None,
    random_seed: RandomState,
    return_inferencedata: bool,
    include_transformed: bool,
    include_data: bool | None,
    **kwargs: Any,
) -> Any:
    """Draw from an approximation made of groups, all rows, by what the release draws.

    Parameters
    ----------
    approx : Approximation
    model : Model
        Whose rows there are.
    full_model : Model
        The same on all rows.
    sample : callable
        The release's, which draws for the model of the context.

    Other parameters are those of :meth:`pymc.Approximation.sample`.
    """
    function = "approx.sample"
    draws, _ = _checked(draws, chunk, function)
    known = latent_outputs(full_model, include_transformed or not return_inferencedata)
    request = Request.of(DrawnGroups(approx, full_model), known, rows, var_names, function)
    # Rows may be asked for of the model itself, but not of a stream, whose data are not at hand
    axes = () if is_streamed(model) else row_axes(DrawnGroups(approx, model))
    request = replace(request, axes=tuple(axes))
    if var_names is None:
        request = request.without_large(draws)
    request.check_memory(draws)
    with_data = return_inferencedata and request.has_data(include_data)
    names = [output.name for output in request.outputs]
    with _partly(full_model, names, with_data):
        found = sample(
            draws,
            random_seed=random_seed,
            return_inferencedata=return_inferencedata or var_names is not None,
            include_transformed=include_transformed or not return_inferencedata,
            **kwargs,
        )
    if return_inferencedata and not with_data and "observed_data" in found.children:
        found.children["observed_data"].orphan()  # the release makes an empty one
    if var_names is None:
        return found
    dataset = found.posterior.to_dataset()[names]
    if not return_inferencedata:
        return _multi_trace(request, dataset)
    found["posterior"] = xr.DataTree(dataset)
    return found


def _partly(model: Any, names: Sequence[str], with_data: bool) -> Any:
    """View a model without the deterministics that are not among `names`, and maybe without data."""
    view = object.__new__(type(model))  # a copy by PyMC would be one of all graphs
    vars(view).update(vars(model))
    view.deterministics = [var for var in model.deterministics if var.name in names]
    if not with_data:
        view.observed_RVs, view.data_vars = [], []
    return view


def posterior_chunks(
    approx: Any,
    draws: int = 500,
    *,
    rows: Any = None,
    var_names: Sequence[str] | str | None = None,
    chunk: int | None = None,
    random_seed: RandomState = None,
) -> Iterator[xr.Dataset]:
    """Draw, part by part; the arguments are those of :meth:`GuidedApproximation.sample_chunks`."""
    function = "approx.sample_chunks"
    draws, chunk = _checked(draws, chunk, function)
    request = Request.of(approx, latent_outputs(approx.model), rows, var_names, function, True)
    parts = request.parts(request.outputs, draws, chunk, random_seed)
    return (request.dataset(arrays, part) for _, part, arrays in parts)


def predictive_draws(
    approx: Any,
    draws: int = 500,
    *,
    rows: Any = None,
    var_names: Sequence[str] | str | None = None,
    chunk: int | None = None,
    random_seed: RandomState = None,
    include_data: bool | None = None,
) -> xr.DataTree:
    """Draw new data; as :meth:`GuidedApproximation.sample_posterior_predictive`."""
    function = "approx.sample_posterior_predictive"
    draws, chunk = _checked(draws, chunk, function)
    known = observed_outputs(approx.model)
    request = Request.of(approx, known, rows, var_names, function, True, predictive=True)
    request.check_memory(draws)
    arrays = request.arrays(request.outputs, draws, chunk, random_seed, predictive=True)
    groups = {"posterior_predictive": request.dataset(arrays)}
    if request.has_data(include_data):
        groups |= request.data_groups()
    return xr.DataTree.from_dict(groups)


def _checked(draws: Any, chunk: Any, function: str) -> tuple[int, int | None]:
    draws = check_count("draws", draws, function)
    return draws, None if chunk is None else check_count("chunk", chunk, function)


def _multi_trace(request: Request, dataset: xr.Dataset) -> MultiTrace:
    """Put draws into the form that PyMC had before ArviZ's."""
    arrays = {str(name): array.values[0] for name, array in dataset.items()}
    kept = [var for var in request.full_model.unobserved_value_vars if var.name in arrays]
    trace = NDArray(
        model=request.full_model,
        vars=kept,
        fn=lambda *values: values,
        var_shapes={var.name: arrays[var.name].shape[1:] for var in kept},
        var_dtypes={var.name: arrays[var.name].dtype for var in kept},
    )
    n_draws = dataset.sizes["draw"]
    trace.setup(n_draws, chain=0)
    trace.samples = {var.name: arrays[var.name] for var in kept}
    trace.draw_idx = n_draws
    trace.close()
    return MultiTrace([trace])
