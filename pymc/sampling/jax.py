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
from functools import partial, wraps

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.batch_logp import check_one_function
from pymc.minibatch.guards import refuse_minibatch

released = _layer.run_release(globals())

sample_jax_nuts = refuse_minibatch(released.sample_jax_nuts, "pm.sampling.jax.sample_jax_nuts")
sample_numpyro_nuts = partial(sample_jax_nuts, nuts_sampler="numpyro")
sample_blackjax_nuts = partial(sample_jax_nuts, nuts_sampler="blackjax")


@wraps(released._replace_shared_variables)
def _replace_shared_variables(graph: list[Variable]) -> list[Variable]:
    # What is made a JAX function; pymc-extras calls this too, for gradients of JAX
    check_one_function(graph)
    return released._replace_shared_variables(graph)
