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
"""What functions that take a model do with one that has minibatches: use all rows, or refuse.

The model's modules import the ones that these functions are in, so they are imported when called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

from pymc.minibatch.plates import model_indexes
from pymc.minibatch.provenance import Rows
from pymc.minibatch.rebuild import FixedLengthError

__all__ = ["full_data_model", "on_all_rows", "refuse_minibatch", "shown_model"]


def full_data_model(model: Any) -> Any:
    """Return `model` on all rows: itself where it has no minibatch."""
    from pymc.model.transform.minibatch import remove_minibatch

    return remove_minibatch(model) if model_indexes(model) else model


def shown_model(model: Any) -> Any:
    """Return what to print of `model`: the model on all rows, or itself where there is none."""
    try:
        return full_data_model(model)
    except FixedLengthError:
        return model


def on_all_rows[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Give `function` the full-data model in place of a `model` with minibatches."""
    parameters = signature(function)

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from pymc.model.core import modelcontext
        from pymc.model.fgraph import sharing_data

        bound = parameters.bind(*args, **kwargs)
        model = modelcontext(bound.arguments.get("model"))
        full = full_data_model(model)
        if full is model:
            return function(*args, **kwargs)
        bound.arguments["model"] = full
        with sharing_data():
            return function(*bound.args, **bound.kwargs)

    return wrapper


def refuse_minibatch[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Make `function` refuse a `model` with minibatches: it needs one log-probability throughout.

    The function raises a ValueError that names the index and what to do.
    """
    parameters = signature(function)

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from pymc.model.core import modelcontext

        model = modelcontext(parameters.bind(*args, **kwargs).arguments.get("model"))
        found = model_indexes(model)
        if found:
            name = f"pm.{function.__name__}"
            raise ValueError(
                f"{name} compares log-probabilities at different points, but those of this model "
                f"are of other rows at each evaluation ({Rows(found[0])}), so its result would be "
                f"wrong. Fit the model by pm.fit, or use all rows: "
                f"{name}(..., model=pm.remove_minibatch(model))"
            )
        return function(*args, **kwargs)

    return wrapper
