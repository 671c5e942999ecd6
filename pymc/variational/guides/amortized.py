# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Amortized guides: a function of a row's data returns the distribution of its variables.

.. math::

    q_\phi(z_i \mid x_i) = f_\phi(x_i)

The fit trains the weights :math:`\phi` of the function, and no parameters of each row (Kingma
and Welling 2014, "Auto-encoding variational Bayes", section 2.3). The same function gives the posterior of
a row that was not in the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self

import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.xtensor.type import XTensorVariable

from pymc.variational.guides.base import Site
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.lookups import batch_in_model, in_model
from pymc.variational.guides.model_guide import ModelGuide

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Amortized"]


class Amortized(ModelGuide):
    """A guide whose distributions are functions of the data of a row.

    Parameters
    ----------
    encoders : dict of variable or str to callable
        For each variable a function of the inputs that returns a distribution on the variable's own
        space, such as ``pm.Normal.dist(mu, sigma)``, with the axes of the variable. Row i of it is a
        function of row i of the inputs only.
    inputs : sequence of Variable
        Arguments of the functions: batches of data, data, observed variables, and other free
        variables of the model, global or of the same rows, which are replaced by their draws. Data with
        the dim are replaced by the rows of the batch.
    dim : str
        The dim of the rows. In a model that does not subsample it, the rows are those that the model
        holds: all, or a batch set by :func:`pymc.set_data`, if observed variables have a `total_size`.
        Each variable with that dim needs an encoder then.
    params : sequence of SharedVariable, optional
        The weights to train. Default: all shared variables of floats that the distributions are computed
        from, without data of the model and those that the model's own terms depend on.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind. :func:`pymc.fit` checks it against the model, before it compiles
        anything.

    Examples
    --------
    >>> import pytensor
    >>> slope = pytensor.shared(0.0, name="slope")
    >>> with pm.Model(coords={"obs": range(100)}) as model:
    ...     y = pm.Data("y", np.random.default_rng(1).normal(size=100), dims="obs")
    ...     yb = pm.Minibatch(y, batch_size=10)
    ...     z = pm.Normal("z", 0, 1, dims="obs")
    ...     rows = pm.Normal("rows", z, 1, observed=yb, dims="obs")
    >>> def encode(y):
    ...     return pm.Normal.dist(slope * y, 0.7)
    >>> guide = pm.Amortized({"z": encode}, inputs=[yb], dim="obs")
    >>> guide.distribution("z", np.array([0.5, 1.0])).shape.eval()
    array([2])
    """

    name = "amortized"
    data = ()

    def __init__(
        self,
        encoders: Mapping[Any, Callable[..., Variable]],
        inputs: Sequence[Variable],
        dim: str,
        params: Sequence[SharedVariable] | None = None,
    ) -> None:
        self.encoders = _check_encoders(encoders)
        if isinstance(inputs, Variable) or not all(isinstance(v, Variable) for v in inputs):
            raise TypeError(
                f"inputs={inputs!r} of pm.Amortized has to be a list of variables of the model, such as "
                "inputs=[Xb]"
            )
        if not isinstance(dim, str):
            raise TypeError(
                f"dim={dim!r} of pm.Amortized is the name of the dim of the rows, such as 'obs'"
            )
        if isinstance(params, SharedVariable):
            raise TypeError(f"params={params} of pm.Amortized has to be a list: write [{params}]")
        self.inputs = tuple(inputs)
        self.dim = dim
        self.params = None if params is None else tuple(params)

    @property
    def variables(self) -> tuple[str, ...]:  # type: ignore[override]
        """The variables that it is for."""
        return tuple(self.encoders)

    def distribution(self, name: str, *inputs: Any) -> Variable:
        """Return the distribution of a variable for rows of data, new ones or those of the fit.

        Parameters
        ----------
        name : str
        *inputs : array or Variable
            A value for each of `inputs`, in their order.

        Returns
        -------
        Variable
            A distribution with the current weights, for :func:`pymc.draw` and :func:`pymc.logp`.

        Raises
        ------
        ValueError
            If the variable has no encoder, or the number of inputs differs.
        """
        self._check_encoder_of(name)
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"distribution({name!r}, ...) of pm.Amortized needs {len(self.inputs)} inputs, "
                f"{list(self.inputs)}, got {len(inputs)}"
            )
        return self.encoders[name](*map(pt.as_tensor, inputs))

    def subject(self, name: str) -> str:
        return f"the encoder of {name!r} in pm.Amortized"

    def bind(self, sites: Sequence[Site], starts: InitialValues, model: Model) -> Self:
        new = copy(self)
        # The fit may be of a clone of the model, or of minibatches of it
        new.inputs = tuple(batch_in_model(var, model) for var in self.inputs)
        return super(Amortized, new).bind(sites, starts, model)

    def distribution_of(self, site: Site, model: Model) -> tuple[Variable, bool]:
        if isinstance(site.rv, XTensorVariable):
            raise NotImplementedError(
                f"pm.Amortized of pm.fit has {site.name!r} of pymc.dims, but encoders are functions of tensors, "
                "and return tensors. Write such a variable as one of pm, such as "
                f"pm.Normal({site.name!r}, dims=...), or give it 'mean_field'"
            )
        self._check_encoder_of(site.name)
        dims = [rows.dim for rows in site.plate]
        if dims != [self.dim]:
            raise ValueError(
                f"pm.Amortized for the dim {self.dim!r} has an encoder of {site.name!r}, whose rows are "
                f"those of {dims or 'no dim'}: it is for variables with rows of that dim, and no other"
            )
        dist = self.encoders[site.name](*self.inputs)
        return (in_model(dist, model) if isinstance(dist, Variable) else dist), False

    def _check_encoder_of(self, name: str) -> None:
        if name not in self.encoders:
            raise ValueError(
                f"pm.Amortized has no encoder of {name!r}, but of {list(self.encoders)}"
            )


def _check_encoders(encoders: object) -> dict[str, Callable[..., Variable]]:
    if not isinstance(encoders, Mapping) or not encoders:
        raise TypeError(
            f"encoders={encoders!r} of pm.Amortized has to be a dict from variables to functions, such "
            "as {'z': encode}"
        )
    by_name = {key if isinstance(key, str) else key.name: value for key, value in encoders.items()}
    for name, encode in by_name.items():
        if not callable(encode):
            raise TypeError(
                f"the encoder of {name!r} in pm.Amortized has to be a function of the inputs, got "
                f"{encode!r} of type {type(encode).__name__}"
            )
    return by_name
