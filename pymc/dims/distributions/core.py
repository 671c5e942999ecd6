# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from typing import Any

from pytensor.graph.basic import Variable
from pytensor.tensor.shape import shape_i

import pymc._layer as _layer

from pymc.minibatch.axis_tracking import indexes
from pymc.minibatch.plates import note_index, subsampled_dims


class _DimDistribution:
    def __new__(
        cls, name: str, *args: object, observed: Any = None, model: object = None, **kwargs: object
    ) -> Any:
        if isinstance(observed, Variable):
            for index in indexes([observed]):
                note_index(released.modelcontext(model), index)
        return super().__new__(cls, name, *args, observed=observed, model=model, **kwargs)  # type: ignore[call-arg]

    @classmethod
    def dist(
        cls, dist_params: object, *, dim_lengths: dict[str, Any] | None = None, **kwargs: object
    ) -> Variable:
        # A subsampled dim has the length of the batch
        from pymc.model.core import Model

        model = Model.get_context(error_if_none=False)  # type: ignore[attr-defined]
        if dim_lengths and model is not None:
            plates = subsampled_dims(model)
            dim_lengths = {
                dim: shape_i(plates[dim], 0)
                if dim in plates and length is model.dim_lengths.get(dim)
                else length
                for dim, length in dim_lengths.items()
            }
        return super().dist(  # type: ignore[misc]
            dist_params, dim_lengths=dim_lengths, **kwargs
        )


released = _layer.run_release(globals(), DimDistribution=_DimDistribution)
