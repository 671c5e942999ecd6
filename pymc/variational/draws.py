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
"""Nodes that are drawn anew each time they are evaluated."""

from __future__ import annotations

import warnings

from collections.abc import Sequence

from pytensor.graph.basic import Variable

from pymc.pytensorf import collect_default_updates

__all__ = ["draw_anew"]


def draw_anew(nodes: Sequence[Variable], given: Sequence[Variable]) -> None:
    """Let each evaluation of `nodes` move their generators on: without, ``eval()`` repeats one draw.

    Parameters
    ----------
    nodes : sequence of Variable
    given : sequence of Variable
        What they were made from. Its own generators belong to the model, and stay as they are.
    """
    kept = collect_default_updates(list(given))
    for rng, moved_on in collect_default_updates(list(nodes)).items():
        if rng not in kept:
            with (
                warnings.catch_warnings()
            ):  # of PyTensor's plan to ask for updates at each compilation
                warnings.simplefilter("ignore", DeprecationWarning)
                rng.default_update = moved_on
