# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Workers on two nodes of a Ray cluster, both on this machine: a node is lost, and another joins."""

from __future__ import annotations

import os
import time

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

import pymc as pm

from pymc.variational.cluster.pool import Pool, open_pool
from pymc.variational.cluster.ray_session import OWN
from tests.variational.cluster.programs import Square, Squares

# Not by importorskip: Ray reads its environment when it is imported
if find_spec("ray") is None:
    pytest.skip("needs Ray", allow_module_level=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """The first node of a cluster, with one core."""
    os.environ.update({k: v for k, v in OWN.items() if k not in os.environ})
    os.environ.setdefault("RAY_AUTH_TOKEN", "a" * 64)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


def wait_until(pool: Pool, found: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not found():
        assert time.monotonic() < end
        list(pool._wait(lambda: None))


def test_nodes_come_and_go(cluster: Any) -> None:
    other = cluster.add_node(num_cpus=1)
    workers = pm.Workers(2, address=cluster.address, timeout=10)
    with open_pool(workers, Squares(1, {})) as pool:
        wait_until(pool, lambda: all(place.about for place in pool._places))
        right = [1 + i**2 for i in range(20)]
        assert [value for value, _ in pool.map(Square(0.05), range(20))] == right
        cluster.remove_node(other, allow_graceful=False)
        # The other node does what is left, and a new worker waits for room
        end = time.monotonic() + 60
        while not pool.lost:
            assert time.monotonic() < end
            found = pool.map(Square(0.05), range(20))
            assert [value for value, _ in found] == right
        assert len(pool.lost) == 1 and sum(bool(place.about) for place in pool._places) == 1
        cluster.add_node(num_cpus=1)
        wait_until(pool, lambda: all(place.about for place in pool._places))
        found = pool.map(Square(0.1), range(20))
        assert [value for value, _ in found] == right and len({pid for _, pid in found}) == 2


def test_what_ray_changes_is_restored(cluster: Any) -> None:
    import builtins
    import signal

    from ray.experimental import tqdm_ray

    plain, handler = builtins.print, signal.getsignal(signal.SIGTERM)
    with open_pool(pm.Workers(1, address=cluster.address), Squares(1, {})):
        tqdm_ray.instance()  # as the first line of a worker's log does
    assert builtins.print is plain
    assert signal.getsignal(signal.SIGTERM) is handler


def test_too_few_cores(cluster: Any) -> None:
    with pytest.raises(ValueError, match=r"takes cpus=64 cores, and .* have \d in total"):
        with open_pool(pm.Workers(1, address=cluster.address, cpus=64), Squares(1, {})):
            pass


def test_no_cluster_at_the_address() -> None:
    with pytest.raises(ConnectionError, match=r"'127\.0\.0\.1:9' of pm.Workers does not answer"):
        with open_pool(pm.Workers(1, address="127.0.0.1:9", insecure=True), Squares(1, {})):
            pass
