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
from typing import Any

from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace

import pymc._layer as _layer

from pymc.minibatch.provenance import Lost, Rows, indexes, trace


class _Distribution:
    def __new__(
        cls, name: str, *args: Any, observed: Any = None, dims: Any = None, **kwargs: Any
    ) -> Any:
        if (
            dims is not None
            and isinstance(observed, Variable)
            and kwargs.get("shape") is None
            and kwargs.get("size") is None
            and indexes([observed])
        ):
            kwargs["shape"] = _batch_shape(observed, released.convert_dims(dims))
        make: Any = super().__new__
        return make(cls, name, *args, observed=observed, dims=dims, **kwargs)


released = _layer.run_release(globals(), Distribution=_Distribution)


def _batch_shape(observed: Any, dims: Any) -> tuple[Variable, ...]:
    """The shape that `dims` say, but for the rows of a minibatch, whose dims keep their length."""
    from pymc.model.core import modelcontext

    shape = list(released.shape_from_dims(dims, modelcontext(None)))
    axes = trace(observed)
    for k in range(min(len(shape), observed.type.ndim)):
        if isinstance(axes, Lost) or isinstance(axes[k], Rows):
            shape[k] = observed.shape[k]
    return tuple(shape)


def create_partial_observed_rv(rv: Any, mask: Any) -> tuple:
    """Separate observed and imputed components; a scale is one of the observed component.

    The prior of imputed values is not scaled: given the parameters it integrates to one.
    """
    from pymc.variational.minibatch_rv import imputed_totals, scaled_rv, unscaled_rv

    bare, totals = unscaled_rv(rv)
    if bare is rv:
        return released.create_partial_observed_rv(rv, mask)
    (observed_rv, antimask), unobserved, joined_rv = released.create_partial_observed_rv(bare, mask)
    if isinstance(observed_rv.owner.op, released.PartialObservedRV):
        raise NotImplementedError(
            f"total_size of {rv.name!r}, which has missing values: the observed part of "
            f"{bare.owner.op} cannot be scaled apart from the imputed one. Use a univariate "
            "distribution, leave out the rows with missing values, or leave out total_size"
        )
    scaled = scaled_rv(observed_rv, imputed_totals(totals, mask, bare.owner.op.ndim_supp))
    joined_rv = graph_replace(joined_rv, {observed_rv: scaled})
    return (scaled, antimask), unobserved, joined_rv
