# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Register the minibatch index with the backends that compile it; each loads when it is first used."""

from importlib import import_module
from typing import Any

from pytensor.compile import optdb
from pytensor.graph.basic import Apply
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import ThunkType
from pytensor.graph.rewriting.basic import GraphRewriter

from pymc.minibatch.index import COMPILED_THUNKS, MinibatchIndexRV


class LoadDispatch(GraphRewriter):
    """Import a backend's implementation of Ops when a graph is first compiled for it.

    Importing it with PyMC would import JAX and PyTensor's Numba dispatch, and double its import time.
    The rewrites under a JIT linker's name run whenever that linker compiles, in any mode.

    Parameters
    ----------
    module : str
        Full name of the module that registers the implementation.
    """

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module

    def apply(self, fgraph: FunctionGraph) -> None:
        import_module(self.module)


def _make_thunk(op: MinibatchIndexRV, node: Apply, storage_map: Any, compute_map: Any) -> ThunkType:
    # Imports Numba
    from pymc.minibatch.dispatch.numba import make_thunk

    return make_thunk(op, node, storage_map, compute_map)


COMPILED_THUNKS[MinibatchIndexRV] = _make_thunk

for backend in ("numba", "jax"):
    load = LoadDispatch(f"pymc.minibatch.dispatch.{backend}")
    optdb.register(f"load_minibatch_index_{backend}", load, backend, position=0.01)
