# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Amortized guides: a function of a row's data gives the distribution of its variables.

.. math::

    q_\phi(z_i \mid x_i) = f_\phi(x_i)

so that what is fitted are the weights :math:`\phi` of the function, and not parameters of each row (Kingma
and Welling 2014, "Auto-encoding variational Bayes", section 2.3). A row that was not seen has its posterior
from the same function.
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
from pymc.variational.guides.lookups import batch_of, in_model
from pymc.variational.guides.model_guide import ModelGuide

if TYPE_CHECKING:
    from pymc.model.core import Model


class Amortized(ModelGuide):
    """A guide whose distributions are functions of the data of a row.

    Parameters
    ----------
    encoders : dict of variable or str to callable
        For each variable a function of the inputs that returns a distribution on the variable's own
        space, such as ``pm.Normal.dist(mu, sigma)``, with the axes of the variable. Row i of it is a
        function of row i of the inputs only.
    inputs : sequence of Variable
        What the functions are called with: batches of data, data, observed variables, and other free
        variables of the model, global or of the same rows, in whose place their draw comes. Data with
        the dim are the rows of the batch.
    dim : str
        The dim of the rows. In a model that does not subsample it, the rows that are there: all, or a
        batch fed by :func:`pymc.set_data`, of `total_size` rows as the observed variables say. Each
        variable with that dim needs an encoder then.
    params : sequence of SharedVariable, optional
        What is trained: by default all shared variables of floats that the distributions are computed
        from, but for data of the model and what the model's own terms depend on.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind. What depends on the model is checked by :func:`pymc.fit`,
        before it compiles anything.

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
        """Give the distribution of a variable for rows of data, new ones or those of the fit.

        Parameters
        ----------
        name : str
        *inputs : array or Variable
            A value for each of `inputs`, in their order; of a free variable, a value of it.

        Returns
        -------
        Variable
            A distribution, with the weights as they are, for :func:`pymc.draw` and :func:`pymc.logp`.

        Raises
        ------
        ValueError
            If there is no encoder of the variable, or the inputs are not as many.
        """
        if name not in self.encoders:
            raise ValueError(
                f"pm.Amortized has no encoder of {name!r}, but of {list(self.encoders)}"
            )
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
        new.inputs = tuple(batch_of(var, model) for var in self.inputs)
        return super(Amortized, new).bind(sites, starts, model)

    def distribution_of(self, site: Site, model: Model) -> tuple[Variable, bool]:
        _check_site(site, self)
        dist = self.encoders[site.name](*self.inputs)
        return (in_model(dist, model) if isinstance(dist, Variable) else dist), False


def _check_encoders(encoders: Any) -> dict[str, Callable[..., Variable]]:
    if not isinstance(encoders, Mapping) or not encoders:
        raise TypeError(
            f"encoders={encoders!r} of pm.Amortized has to be a dict from variables to functions, such "
            "as {'z': encode}"
        )
    named = {key if isinstance(key, str) else key.name: value for key, value in encoders.items()}
    for name, encode in named.items():
        if not callable(encode):
            raise TypeError(
                f"the encoder of {name!r} in pm.Amortized has to be a function of the inputs, got "
                f"{encode!r} of type {type(encode).__name__}"
            )
    return named


def _check_site(site: Site, guide: Amortized) -> None:
    if isinstance(site.rv, XTensorVariable):
        raise NotImplementedError(
            f"pm.Amortized of pm.fit has {site.name!r} of pymc.dims, but encoders are functions of tensors, "
            "and so are what they return. Write such a variable as one of pm, such as "
            f"pm.Normal({site.name!r}, dims=...), or give it 'mean_field'"
        )
    if site.name not in guide.encoders:
        raise ValueError(
            f"pm.Amortized has no encoder of {site.name!r}, but of {list(guide.encoders)}"
        )
    dims = [rows.dim for rows in site.plate]
    if dims != [guide.dim]:
        raise ValueError(
            f"pm.Amortized for the dim {guide.dim!r} has an encoder of {site.name!r}, whose rows are "
            f"those of {dims or 'no dim'}: it is for variables with rows of that dim, and no other"
        )
