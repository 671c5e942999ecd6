# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from functools import partial, wraps

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.scaling import check_one_function
from pymc.model.full_data import refuse_minibatch

released = _layer.run_release(globals())

sample_jax_nuts = refuse_minibatch("pm.sampling.jax.sample_jax_nuts")(released.sample_jax_nuts)
sample_numpyro_nuts = partial(sample_jax_nuts, nuts_sampler="numpyro")
sample_blackjax_nuts = partial(sample_jax_nuts, nuts_sampler="blackjax")


@wraps(released._replace_shared_variables)
def _replace_shared_variables(graph: list[Variable]) -> list[Variable]:
    # What is made a JAX function; pymc-extras calls this too, for gradients of JAX
    check_one_function(graph)
    return released._replace_shared_variables(graph)
