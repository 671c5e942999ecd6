# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Loaders in the manner of torch: whether their rows are those of their data set, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pymc.data_loading.sources.protocols import Indexable, name_of

__all__ = ["check_torch_loader", "is_torch_loader", "shuffles", "tensors_of"]

#: Samplers of torch that give all rows of a data set; the last one goes with its iterable data sets
SAMPLERS = {"SequentialSampler", "RandomSampler", "_InfiniteConstantSampler"}
BATCH_SAMPLER = "BatchSampler"
#: What torch makes batches with, unless users say otherwise: it changes no value
COLLATES = {"default_collate", "default_convert"}


def is_torch_loader(data: Any) -> bool:
    """Return whether data are a loader in the manner of torch, whose rows are those of ``.dataset``.

    A data set may have a `dataset` too, as a ``Subset`` has, and so may an iterable of users'. What these
    give themselves are their rows.
    """
    if not (hasattr(data, "dataset") and hasattr(data, "batch_size")):
        return False
    return hasattr(data, "collate_fn") or not isinstance(data, Iterable | Indexable)


def tensors_of(dataset: Any) -> tuple[Any, ...] | None:
    """Return the tensors of a ``TensorDataset``, which need not be read sample by sample.

    None for what has samples of its own, such as tensors that are transformed on the way.
    """
    tensors = _part(dataset, "tensors")
    if not (isinstance(tensors, tuple) and tensors):
        return None
    sample = _part(type(dataset), "__getitem__")
    of_torch = str(_part(sample, "__module__")).partition(".")[0] == "torch"
    return tensors if sample is None or of_torch else None


def shuffles(loader: Any) -> bool:
    """Return whether a loader shuffles. A sampler of torch says it by its class."""
    return _name(_part(loader, "sampler")) == "RandomSampler"


def check_torch_loader(loader: Any) -> None:
    """Check that a loader gives all rows of its ``.dataset``, as they are there.

    Only the data set is read. What the loader itself does to rows would be lost in silence.

    Parameters
    ----------
    loader : object with the attribute ``dataset``
        Its ``sampler``, ``batch_sampler`` and ``collate_fn`` are looked at where it has them.

    Raises
    ------
    TypeError
        If it has a sampler that may choose among rows, or a function of its own that makes batches.
    """
    batch_sampler = _part(loader, "batch_sampler")
    if batch_sampler is not None and _name(batch_sampler) != BATCH_SAMPLER:
        _refuse_sampler(loader, "batch_sampler", batch_sampler)
    for owner in (loader, batch_sampler):
        sampler = _part(owner, "sampler")
        if sampler is not None and _name(sampler) not in SAMPLERS:
            _refuse_sampler(loader, "sampler", sampler)
    collate = _part(loader, "collate_fn")
    if collate is not None and name_of(collate) not in COLLATES:
        raise TypeError(
            f"the loader, a {_name(loader)}, makes its batches by collate_fn={collate!r}, which would not "
            f"be called: rows are read from loader.dataset. Give the samples their form in the data set's "
            f"__getitem__, or give the batches themselves, as a function that opens them: "
            f"pm.DataLoader(lambda: iter(loader), batch_size=...)"
        )


def _refuse_sampler(loader: Any, kind: str, sampler: Any) -> None:
    raise TypeError(
        f"the loader, a {_name(loader)}, has the {kind} {_name(sampler)}, which would not be asked: all "
        f"rows of loader.dataset are read, with those that it leaves out. Give the rows that are meant: "
        f"pm.DataLoader(torch.utils.data.Subset(loader.dataset, indices), batch_size=...)"
    )


def _part(loader: Any, name: str) -> Any:
    """Return what something of another library has by that name, None if nothing."""
    return getattr(loader, name, None)


def _name(value: Any) -> str:
    return type(value).__name__
