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
"""What the graph knows of a loader: that it is one, and which."""

from __future__ import annotations

from typing import Any

__all__ = ["LoaderRef", "is_loader", "refuse_loader"]


def is_loader(value: Any) -> bool:
    """Tell whether `value` is a loader: it gives batches, and says what they are like."""
    if hasattr(value, "__array__"):  # a frame, whose columns may have such names
        return False
    return all(hasattr(value, name) for name in ("layout", "batch_size", "total_size"))


def refuse_loader(value: Any, what: str) -> None:
    """Raise where a loader stands in the place of data.

    Raises
    ------
    TypeError
        The message says what to write.
    """
    if is_loader(value):
        raise TypeError(
            f"{what} is a loader, which gives batches, and no data of the model. Write "
            'batch = pm.Data("batch", loader, dims=("obs", "column")) first, and use what it returns, such as '
            "observed=batch[:, 2]"
        )


class LoaderRef:
    """Which loader a stream is of: it stays with the graph, and not with copies in other processes."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __deepcopy__(self, memo: dict[int, Any]) -> LoaderRef:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return LoaderRef, (None,)
