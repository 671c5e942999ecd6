# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Workers` and `pm.Rounds`: how many processes fit a model together, where, and what they exchange."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pymc.argument_checks import check_flag, check_int, check_number
from pymc.variational.configurable import Configurable

__all__ = ["Rounds", "Workers", "as_rounds", "as_workers"]


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


@dataclass(frozen=True)
class Rounds(Configurable):
    r"""Exchange of factors between workers after many steps, in the place of gradients after each.

    The guide is a product of factors, one for each part of the rows. In a round, each worker takes steps on the
    rows of its factor, while the other factors stay as they are; then the changes of all factors are added
    (partitioned variational inference). The fixed point is the optimum of a fit in one process, also where parts of the
    rows differ, as those of sorted data. It is for steps that take less time than a message.

    Parameters
    ----------
    steps : int
        Steps of a round.
    factors : int, optional
        Into how many parts of consecutive rows the data are cut. Default: one for each worker. A checkpoint
        keeps it, so that a fit goes on with any number of workers.
    damping : float, optional
        The part of the changes that is added, in (0, 1]. Default: 0.5, or 2 / factors if that is
        less. It is halved in a round whose sum is no distribution.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number of its range.

    References
    ----------
    Thang D. Bui et al. (2018), Partitioned Variational Inference, algorithm 1 with synchronous updates.
    arXiv:1811.11206

    Examples
    --------
    >>> pm.Rounds(500)
    Rounds(steps=500, factors=None, damping=None)
    """

    steps: int = 250
    factors: int | None = None
    damping: float | None = None

    def __post_init__(self) -> None:
        check_int(self.steps, "steps", "pm.Rounds")
        if self.factors is not None:
            check_int(self.factors, "factors", "pm.Rounds")
        if self.damping is not None:
            check_number(self.damping, "damping", "pm.Rounds", above=0, at_most=1)


def as_rounds(exchange: Any, workers: Workers | None, where: str) -> Rounds | None:
    """Return the rounds of an argument, with the number of their factors; None for None."""
    if exchange is None:
        return None
    if not isinstance(exchange, Rounds):
        raise TypeError(
            f"exchange={exchange!r} of {where} has to be pm.Rounds(steps), such as pm.Rounds(250). None lets workers "
            "send the gradient of each step"
        )
    if workers is None:
        raise TypeError(
            f"exchange={exchange!r} of {where} is between workers, and there are none: write workers=2 too, or leave "
            "exchange out to fit in this process"
        )
    return replace(exchange, factors=exchange.factors or workers.n)


def as_workers(workers: Any, where: str) -> Workers | None:
    """Return the workers of an argument: a number, `Workers`, or None."""
    if workers is None or isinstance(workers, Workers):
        return workers
    hint = "It is a number of processes, or pm.Workers(n, address=..., cpus=...). None fits in this process"
    return Workers(check_int(workers, "workers", where, hint=hint))
