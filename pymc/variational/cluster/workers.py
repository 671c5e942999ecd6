# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Workers`: how many processes fit a model together, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymc.argument_checks import check_flag, check_int, check_number

__all__ = ["Workers", "as_workers"]


@dataclass(frozen=True)
class Workers:
    """Processes that fit a model together, on this machine or on a Ray cluster.

    Parameters
    ----------
    n : int
        Number of worker processes. They work for one fit, and end with it.
    address : str, optional
        "auto" for the Ray cluster that this process is a job of, or its ``host:port``. Default: a Ray that
        is started on this machine for the fit, and reached from this machine alone.
    cpus : int
        Cores of each worker, for threads of its own.
    timeout : float
        Seconds without an answer after which a worker counts as lost. Another takes its place.
    insecure : bool
        Whether to join a cluster without token authentication. Whoever can reach such a cluster can run
        any code in it.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of this form.

    Notes
    -----
    Needs Ray: ``pip install "pymc-minibatch[cluster]"``. A cluster with token authentication is one whose
    nodes and jobs all have ``RAY_AUTH_MODE=token`` in their environment.

    Examples
    --------
    >>> pm.Workers(4)
    Workers(n=4, address=None, cpus=1, timeout=60.0, insecure=False)
    """

    n: int
    address: str | None = None
    cpus: int = 1
    timeout: float = 60.0
    insecure: bool = False

    def __post_init__(self) -> None:
        check_int(self.n, "n", "pm.Workers")
        check_int(self.cpus, "cpus", "pm.Workers")
        check_number(self.timeout, "timeout", "pm.Workers", above=0)
        check_flag(self.insecure, "insecure", "pm.Workers")
        if self.address is None:
            return
        if not isinstance(self.address, str) or not self.address:
            raise TypeError(
                f"address={self.address!r} of pm.Workers is the address of a Ray cluster: 'auto' in a job of "
                "that cluster, or 'host:port'. Leave it out to work on this machine"
            )
        if self.address.startswith("ray://"):
            raise ValueError(
                f"address={self.address!r} of pm.Workers is that of Ray Client, which passes each message on "
                "by a proxy. Submit the script as a job of the cluster (ray job submit), and write "
                "address='auto'"
            )


def as_workers(workers: Any, where: str) -> Workers | None:
    """Return the workers of an argument: a number, `Workers`, or None."""
    if workers is None or isinstance(workers, Workers):
        return workers
    hint = "It is a number of processes, or pm.Workers(n, address=..., cpus=...). None fits in this process"
    return Workers(check_int(workers, "workers", where, hint=hint))
