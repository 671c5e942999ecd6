# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
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
