# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Connect to Ray, or start one on this machine that nobody else can reach.

Ray runs what it is sent: who reaches it runs any code. So a cluster is joined only if it asks for a token, and
a Ray on this machine listens on the loopback address, asks for a token of its own, and has no dashboard.
"""

from __future__ import annotations

import builtins
import logging
import os
import secrets
import signal
import socket
import sys
import threading

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymc.variational.cluster.workers import Workers

__all__ = ["ray_session"]

_log = logging.getLogger("pymc.variational.inference")

#: Environment of a Ray that is started here. Ray reads it when it is imported. The last one is Ray's switch for all
#: of its ports: off, they listen on the loopback address, on any system
OWN = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


#: Cores that a Ray of ours counts with, so that workers of one fit do not wait for those of another to end
OWN_CORES = 1024

_PRINT = builtins.print


@dataclass
class _Sessions:
    """The fits that use Ray now. The last one ends it, unless the user has started it."""

    n: int = 0
    is_ours: bool = False


# A collection of garbage may end a fit that nobody needs, also while another one begins
_sessions, _lock = _Sessions(), threading.RLock()


@contextmanager
def ray_session(workers: Workers) -> Iterator[Any]:
    """Return the module of Ray, connected. One that is started here ends with the last context.

    Raises
    ------
    ImportError
        If Ray is not installed.
    ValueError
        If the cluster has no token authentication, or too few cores.
    ConnectionError
        If there is no cluster at the address.
    """
    was_imported = "ray" in sys.modules
    if workers.address is None:
        if not was_imported:
            os.environ.update({k: v for k, v in OWN.items() if k not in os.environ})
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            # Or Ray writes one into the home folder
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray = import_ray()
    is_ours, handler = not ray.is_initialized(), signal.getsignal(signal.SIGTERM)
    if is_ours and workers.address is None:
        if was_imported and any(os.environ.get(name) != value for name, value in OWN.items()):
            _log.warning(
                "Ray was imported before the fit, so that it listens on all addresses of this machine, and not on the "
                "loopback address alone. Import it after, or set %s before",
                " ".join(f"{name}={value}" for name, value in OWN.items()),
            )
        ray.init(
            address="local",
            num_cpus=max(OWN_CORES, workers.n * workers.cpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    elif is_ours:
        _check_secure(workers)
        _check_address(workers)
        ray.init(address=workers.address, log_to_driver=False, logging_level=logging.WARNING)
    elif workers.address is not None:
        _check_secure(workers)
    with _lock:
        _sessions.n += 1
        _sessions.is_ours |= is_ours
    if is_ours and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray sets one of its own, which stays
    try:
        _check_cores(ray, workers)
        yield ray
    finally:
        with _lock:
            _sessions.n -= 1
            if _sessions.n == 0 and _sessions.is_ours:
                _sessions.is_ours = False
                ray.shutdown()
                builtins.print = _PRINT  # Ray has one of its own, which Numba does not know


def import_ray() -> Any:
    """Return the module of Ray."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "workers= of pm.Trainer starts its processes by Ray, which is not installed: "
            'pip install "pymc-minibatch[cluster]"'
        ) from error
    return ray


def _check_secure(workers: Workers) -> None:
    if workers.insecure or os.environ.get("RAY_AUTH_MODE") == "token":
        return
    raise ValueError(
        f"address={workers.address!r} of pm.Workers is a cluster without token authentication, where whoever "
        "reaches it can run any code: set RAY_AUTH_MODE=token and a token in the environment of all nodes and "
        "of this job, before Ray is imported. insecure=True joins it as it is"
    )


def _check_address(workers: Workers) -> None:
    """Raise if nothing listens at an address: Ray would try for minutes."""
    host, _, port = str(workers.address).rpartition(":")
    if not port.isdigit():
        return  # "auto", which Ray looks up
    try:
        socket.create_connection((host, int(port)), workers.timeout).close()
    except OSError as error:
        raise ConnectionError(
            f"address={workers.address!r} of pm.Workers does not answer: {error}. It is the address that "
            "ray start --head prints on the first node, or 'auto' in a job of the cluster"
        ) from error


def _check_cores(ray: Any, workers: Workers) -> None:
    n_cores = int(ray.cluster_resources().get("CPU", 0))
    if n_cores < workers.cpus:
        raise ValueError(
            f"a worker of pm.Workers takes cpus={workers.cpus} cores, and all nodes of the Ray cluster have "
            f"{n_cores} in total: write fewer cores for each, or add nodes"
        )
