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
from collections.abc import Mapping
from functools import wraps
from typing import Any

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

import pymc._layer as _layer

from pymc.minibatch.provenance import indexes

released = _layer.run_release(globals())


@wraps(released.do)
def do(model: Any, vars_to_interventions: Mapping[Any, Any], **kwargs: Any) -> Any:
    old = {model[var] if isinstance(var, str) else var for var in vars_to_interventions}
    for var, new in vars_to_interventions.items():
        if isinstance(new, Variable) and indexes([new]) and not old.isdisjoint(ancestors([new])):
            raise ValueError(
                f"pm.do replaces {var} by {new.name or new}, a minibatch of data that it replaces as "
                "well. Use pm.minibatch_model(model, batch_size=...) to have a model take rows of its "
                "own data, or give pm.do a minibatch of other data"
            )
    return released.do(model, vars_to_interventions, **kwargs)
