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
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.provenance import same_draw
from pymc.minibatch.rebuild import all_rows

released = _layer.run_release(globals())

if TYPE_CHECKING:
    # What our modules use of the release's
    def convert_data(data: Any) -> Any: ...
    def resolve_shapes(shapes: Any) -> Any: ...


compile_pymc = released.compile


def equal_computations(xs: list[Variable], ys: list[Variable], *args: Any, **kwargs: Any) -> bool:
    """Also true of the next states of two clones of one minibatch index.

    Deriving a log-probability clones the index and rewrites its inputs. `collect_default_updates`
    would see two different updates of one state, return none, and the batch would never move.
    """
    if len(xs) == len(ys) and all(map(same_draw, xs, ys)):
        return True
    return released.equal_computations(xs, ys, *args, **kwargs)


def extract_obs_data(x: Variable) -> np.ndarray:
    """Extract data from observed variables; all rows of what is minibatched."""
    return released.extract_obs_data(all_rows([x])[0])
