# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""torch's DataLoader, in two forms.

- ``"rows"``: an ``IterableDataset`` of rows, torch's ``Shuffler`` and collation;
- ``"windows"``: windows of rows shuffled and cut to batches by hand, which the DataLoader passes on.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.datapipes.iter import IterableWrapper, Shuffler

from peers.stream_pyarrow import row_groups


class Rows(IterableDataset):
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __iter__(self) -> Iterator[torch.Tensor]:
        for block in row_groups(self.folder):
            yield from torch.from_numpy(block)


class Windows(IterableDataset):
    def __init__(self, folder: str, batch_size: int, buffer_size: int) -> None:
        self.folder, self.batch_size, self.buffer_size = folder, batch_size, buffer_size

    def __iter__(self) -> Iterator[torch.Tensor]:
        held: list[torch.Tensor] = []
        for block in row_groups(self.folder):
            held.append(torch.from_numpy(block))
            if sum(map(len, held)) >= self.buffer_size:
                *batches, rest = self.shuffled(held)
                yield from batches
                held = [rest]
        yield from self.shuffled(held)

    def shuffled(self, held: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        rows = torch.cat(held)
        return rows[torch.randperm(len(rows))].split(self.batch_size)


def start(settings: dict[str, Any]) -> Callable[[], Iterable[torch.Tensor]]:
    """Return what begins a pass."""
    folder, batch_size, buffer_size = (
        settings[name] for name in ("folder", "batch_size", "buffer_size")
    )

    def rows() -> DataLoader:
        # a new one for each pass: the DataLoader pickles what a pass that was left early still holds
        shuffled = Shuffler(IterableWrapper(Rows(folder), deepcopy=False), buffer_size=buffer_size)
        return DataLoader(shuffled, batch_size=batch_size, drop_last=True)

    def windows() -> DataLoader:
        return DataLoader(Windows(folder, batch_size, buffer_size), batch_size=None)

    return {"rows": rows, "windows": windows}[settings["form"]]
