# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Predictions of many rows on disk, a part of the rows at a time: ``approx.predict_to(path)``.

A part is a file of Parquet in a folder, or rows of a zarr store. All parts have the same draws of the global
variables, and noise of their own, so that they are one result, whatever their number is.
"""

from __future__ import annotations

import json
import math
import os

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from pymc.argument_checks import check_int, check_number
from pymc.data_loading.data_loader import DataLoader
from pymc.model.full_data import is_streamed, shape_only_model
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.local_params.table import rows_in_all
from pymc.variational.posterior.draw import (
    latent_outputs,
    observed_outputs,
    row_axes,
    with_lengths,
)
from pymc.variational.posterior.sample import SampleOptions, posterior_draws, predictive_draws
from pymc.variational.progress import with_bar

if TYPE_CHECKING:
    import pyarrow

    from pymc.variational.approximation import GuideApproximation

__all__ = ["predict_to"]

#: Draws times rows of a part.
NUMBERS_OF_A_PART = 2**24

#: The file of a folder of Parquet that says what it holds; readers of Parquet leave out names like it.
SETTINGS = "_predictions.json"


class Part(NamedTuple):
    """Rows of a part: of the model, by positions, or with data of their own."""

    n_rows: int
    rows: np.ndarray | None
    data: Mapping[str, np.ndarray] | None


def predict_to(
    approx: GuideApproximation,
    path: str | os.PathLike[str],
    draws: int = 500,
    *,
    data: Mapping[str, Any] | DataLoader | None = None,
    data_name: str = "batch",
    var_names: Sequence[str] | str | None = None,
    kind: str = "summary",
    quantiles: Sequence[float] = (0.055, 0.5, 0.945),
    rows_per_part: int | None = None,
    random_seed: RandomState = None,
    progressbar: bool = True,
) -> Path:
    """Write predictions of all rows; the arguments are those of ``Approximation.predict_to``."""
    function = "approx.predict_to"
    path = Path(path)
    if path.suffix not in (".parquet", ".zarr"):
        raise ValueError(
            f"path={str(path)!r} of {function} has to end with .parquet, for a folder of Parquet files, or .zarr"
        )
    if kind not in ("summary", "draws"):
        raise ValueError(f"kind={kind!r} of {function} has to be 'summary' or 'draws'")
    draws = check_int(draws, "draws", function, at_least=2)
    for quantile in quantiles:
        check_number(quantile, "quantiles", function, at_least=0, at_most=1)
    names = _names(approx, var_names)
    if rows_per_part is None:
        rows_per_part = max(NUMBERS_OF_A_PART // (draws * _numbers_of_a_row(approx, names)), 1)
    rows_per_part = check_int(rows_per_part, "rows_per_part", function)
    n_rows = _n_rows(approx, data, function)
    first, noise = _get_seeds_per_chain(random_seed, 2)
    parts = -(-n_rows // rows_per_part)
    store: _Store
    if path.suffix == ".zarr":
        store = _Zarr(path)
    else:
        settings = {
            "draws": draws,
            "var_names": names,
            "kind": kind,
            "quantiles": list(quantiles),
            "rows_per_part": rows_per_part,
            "n_rows": n_rows,
            "approximation": _digest(param.get_value() for param in approx.params),
            "data": _data_digest(approx, data),
        }
        store = _Parquet(path, settings)
        first, noise = store.begin([int(first), int(noise)], is_given=random_seed is not None)
    blocks = _parts(approx, data, data_name, n_rows, rows_per_part)
    for k, part in zip(with_bar(range(parts), "Predictions", progressbar), blocks, strict=True):
        if store.has(k):
            continue
        seeds = [first, int(np.random.SeedSequence([noise, k]).generate_state(1)[0])]
        found = _predicted(approx, part, draws, names, seeds)
        dim = _row_dim(found, part.n_rows, function)
        if part.rows is None and data is not None:
            start = k * rows_per_part
            found = found.assign_coords({dim: np.arange(start, start + part.n_rows)})
        store.write(k, found if kind == "draws" else _summary(found, quantiles), dim)
    return path


def _names(approx: GuideApproximation, var_names: Sequence[str] | str | None) -> list[str]:
    observed = [output.name for output in observed_outputs(approx.model)]
    if var_names is None:
        return observed
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    if 0 < len(set(names) & set(observed)) < len(names):
        raise ValueError(
            f"var_names={names} of approx.predict_to has observed variables, which are predicted anew, and others: "
            "write them to two paths"
        )
    return names


def _numbers_of_a_row(approx: GuideApproximation, names: Sequence[str]) -> int:
    """Return how many numbers a draw of a row has, of all variables."""
    known = [*observed_outputs(approx.model), *latent_outputs(approx.model)]
    outputs = [output for output in known if output.name in names]
    sizes = with_lengths(outputs, lambda: shape_only_model(approx.model))
    lengths = ((n for n, axis in zip(o.lengths, o.axes) if axis is None) for o in sizes)
    return max(sum(map(math.prod, lengths)), 1)


def _n_rows(
    approx: GuideApproximation, data: Mapping[str, Any] | DataLoader | None, function: str
) -> int:
    """Return the number of rows to predict."""
    if isinstance(data, DataLoader):
        return len(data)
    if data is not None:
        lengths = {name: len(values) for name, values in data.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"data of {function} have to be arrays with as many rows each, and have {lengths}"
            )
        return next(iter(lengths.values()))
    if is_streamed(approx.model):
        raise ValueError(
            f"{function} has no rows of this model, which come from a loader: write data=loader"
        )
    axes = row_axes(approx)
    if len(axes) != 1:
        raise ValueError(
            f"{function} goes through the rows of one dim, and this model has {len(axes)}: fit it on minibatches of "
            "rows (pm.fit(batch_size=...)), give the rows by data=, or take approx.sample_posterior_predictive"
        )
    return rows_in_all(axes)


def _parts(
    approx: GuideApproximation,
    data: Mapping[str, Any] | DataLoader | None,
    data_name: str,
    n_rows: int,
    size: int,
) -> Iterator[Part]:
    """Yield the rows of each part."""
    if isinstance(data, DataLoader):
        blocks = _blocks(data, data_name, size)
        # Rows with parameters of their own are those of the fit, in the order of the source
        has_tables = bool(approx.storage.tables)
        for k, block in enumerate(blocks):
            n = len(next(iter(block.values())))
            yield Part(n, np.arange(k * size, k * size + n) if has_tables else None, block)
        return
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        if data is None:
            yield Part(stop - start, np.arange(start, stop), None)
        else:
            taken = {name: np.asarray(values[start:stop]) for name, values in data.items()}
            yield Part(stop - start, None, taken)


def _blocks(loader: DataLoader, data_name: str, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of a loader in the order of the source, `size` at a time."""
    held: list[dict[str, np.ndarray]] = []
    n_held = 0
    for fields in loader.read_fields([field.name for field in loader.layout.fields]):
        held.append({name or data_name: np.array(array) for name, array in fields.items()})
        n_held += len(next(iter(held[-1].values())))
        while n_held >= size:
            joined = {name: np.concatenate([block[name] for block in held]) for name in held[0]}
            yield {name: array[:size] for name, array in joined.items()}
            held, n_held = [{name: array[size:] for name, array in joined.items()}], n_held - size
    if n_held:
        yield {name: np.concatenate([block[name] for block in held]) for name in held[0]}


def _predicted(
    approx: GuideApproximation, part: Part, draws: int, names: list[str], seeds: list[int]
) -> xr.Dataset:
    """Draw variables at the rows of a part, with dims (draw, ...)."""
    options = SampleOptions(part.rows, part.data, None, names, None, seeds)  # type: ignore[arg-type]
    observed = {output.name for output in observed_outputs(approx.model)}
    if observed.issuperset(names):
        tree, group = predictive_draws(approx, draws, options, False), "posterior_predictive"
    else:
        tree, group = posterior_draws(approx, draws, options, include_data=False), "posterior"
    return tree[group].to_dataset().isel(chain=0, drop=True)


def _row_dim(found: xr.Dataset, n_rows: int, function: str) -> str:
    """Return the dim of the rows, which all variables have."""
    shared = set.intersection(*(set(array.dims) for array in found.values())) - {"draw"}
    dims = [str(dim) for dim in shared if found.sizes[dim] == n_rows]
    if not dims:
        raise ValueError(
            f"var_names={list(map(str, found))} of {function} have no dim of the {n_rows} rows in common: take "
            "variables of the rows; others are in approx.sample()"
        )
    return dims[0]


def _summary(found: xr.Dataset, quantiles: Sequence[float]) -> xr.Dataset:
    """Return means, standard deviations and quantiles over the draws."""
    summary = {}
    for name, array in found.items():
        summary[f"{name}_mean"] = array.mean("draw")
        summary[f"{name}_sd"] = array.std("draw", ddof=1)
        values = np.quantile(array.values, quantiles, axis=array.get_axis_num("draw"))
        for quantile, value in zip(quantiles, values):
            summary[f"{name}_q{100 * quantile:g}"] = summary[f"{name}_mean"].copy(data=value)
    return xr.Dataset(summary)


class _Store:
    """What parts are written to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, k: int) -> bool:
        """Return whether part `k` was written before."""
        return False

    def write(self, k: int, part: xr.Dataset, dim: str) -> None:
        raise NotImplementedError


class _Zarr(_Store):
    """Rows of a zarr store."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if path.exists():
            raise FileExistsError(
                f"path={str(path)!r} of approx.predict_to is there already: remove it, or write to another one"
            )

    def write(self, k: int, part: xr.Dataset, dim: str) -> None:
        options: dict[str, Any] = {"append_dim": dim} if k else {"mode": "w-"}
        part.to_zarr(self.path, consolidated=False, **options)


class _Parquet(_Store):
    """Files of Parquet in a folder, and what they hold: parts that are there are not written again."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(path)
        self.settings = dict(settings)

    def begin(self, seeds: list[int], is_given: bool) -> list[int]:
        """Make the folder, or go on with one of the same predictions; return the seeds.

        Raises
        ------
        ValueError
            If the folder holds other predictions.
        FileExistsError
            If it holds something else.
        """
        file = self.path / SETTINGS
        if not file.is_file():
            if self.path.exists() and (self.path.is_file() or any(self.path.iterdir())):
                raise FileExistsError(
                    f"path={str(self.path)!r} of approx.predict_to is there already, and holds no predictions: write "
                    "to another one"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            _replace(file, json.dumps({**self.settings, "seeds": seeds}, indent=1).encode())
            return seeds
        before = json.loads(file.read_text())
        now = {**self.settings, "seeds": seeds if is_given else before["seeds"]}
        differing = [
            f"{name}: {before.get(name)!r} there, {now[name]!r} now"
            for name in now
            if before.get(name) != now[name]
        ]
        if differing:
            raise ValueError(
                f"path={str(self.path)!r} of approx.predict_to holds other predictions ({'; '.join(differing)}): write "
                "to another folder, or remove this one"
            )
        return before["seeds"]

    def _file(self, k: int) -> Path:
        return self.path / f"part-{k:06d}.parquet"

    def has(self, k: int) -> bool:
        return self._file(k).is_file()

    def write(self, k: int, part: xr.Dataset, dim: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {dim: np.asarray(part[dim].values)}
        for name, array in part.items():
            columns[str(name)] = _column(array.transpose(dim, ...).values)
        new = self._file(k).with_suffix(".new")
        pq.write_table(pa.table(columns), new)
        os.replace(new, self._file(k))


def _column(values: np.ndarray) -> pyarrow.Array:
    """Return a column of numbers, or of lists of equal length for rows of arrays."""
    import pyarrow as pa

    column = pa.array(values.reshape(-1))
    if values.ndim == 1:
        return column
    return pa.FixedSizeListArray.from_arrays(column, int(np.prod(values.shape[1:])))


def _replace(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, file)


def _data_digest(approx: GuideApproximation, data: Mapping[str, Any] | DataLoader | None) -> str:
    """Return a hash of the data of predictions, or of what identifies those of a loader."""
    if isinstance(data, DataLoader):
        return sha256(repr(sorted(data.identity.items())).encode()).hexdigest()[:16]
    if data is None:
        return _digest(var.get_value(borrow=True) for var in approx.model.data_vars)
    return _digest(np.asarray(data[name]) for name in sorted(data))


def _digest(arrays: Iterable[np.ndarray]) -> str:
    hashed = sha256()
    for array in arrays:
        hashed.update(f"{array.dtype}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()[:16]
