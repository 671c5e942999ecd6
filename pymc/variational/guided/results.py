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

from collections.abc import Iterator, Sequence
from typing import Any

import xarray as xr

from pymc.backends.base import MultiTrace
from pymc.backends.ndarray import NDArray
from pymc.sampling.deterministic import compute_deterministics
from pymc.util import RandomState
from pymc.variational.counts import check_count
from pymc.variational.results import add_fit
from pymc.variational.sampling.outputs import latent_outputs, observed_outputs
from pymc.variational.sampling.request import Request

__all__ = ["posterior_chunks", "posterior_draws", "predictive_draws"]


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
) -> Any:
    """Draw from an approximation; the arguments are those of :meth:`GuidedApproximation.sample`."""
    function = "approx.sample"
    draws, chunk = _checked(draws, chunk, function)
    known = latent_outputs(approx.model, include_transformed or not return_inferencedata)
    request = Request.of(approx, known, rows, var_names, function)
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
    tree = xr.DataTree.from_dict({"posterior": dataset, **request.data_groups()})
    return add_fit(tree, approx)


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
) -> xr.DataTree:
    """Draw new data; as :meth:`GuidedApproximation.sample_posterior_predictive`."""
    function = "approx.sample_posterior_predictive"
    draws, chunk = _checked(draws, chunk, function)
    known = observed_outputs(approx.model)
    request = Request.of(approx, known, rows, var_names, function, True, predictive=True)
    arrays = request.arrays(request.outputs, draws, chunk, random_seed, predictive=True)
    groups = {"posterior_predictive": request.dataset(arrays), **request.data_groups()}
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
