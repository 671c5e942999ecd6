# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Map a task over shards of the rows, on workers that may be slow, get lost, or join later.

A task is a function of its item, such as the number of a shard: its result does not depend on the worker that
computes it, nor on how many there are. What a lost worker had not answered, others compute again.
"""

from __future__ import annotations

import logging
import time

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np

from pytensor import config

from pymc.variational.cluster.ray_session import ray_session
from pymc.variational.cluster.worker import About, Program, Task, Worker, package_versions
from pymc.variational.cluster.workers import Workers
from pymc.variational.report import Setting

__all__ = ["Lost", "Pool", "WorkersLostError", "open_pool"]

_log = logging.getLogger("pymc.variational.inference")

#: Seconds of work in a message, about: a lost worker loses no more, and a fit can stop between two
SECONDS_AT_ONCE = 1.0

#: Seconds between two looks at workers that have not answered
LOOK = 0.1

#: Bytes of a program that are reported, since rows in memory are sent to each worker; and of a task that a node gets once
LARGE, LARGE_MESSAGE = 100 * 2**20, 100_000

#: Losses of workers in a row, without a result between them, as a multiple of their number
MOST_LOSSES = 3


class WorkersLostError(RuntimeError):
    """All workers of a fit were lost, again and again."""


@dataclass(frozen=True)
class Lost:
    """A worker that was lost."""

    node: str
    pid: int
    reason: str
    seconds: float  # into the fit

    def __str__(self) -> str:
        return f"process {self.pid} on {self.node} after {self.seconds:.0f} s: {self.reason}"


@dataclass(eq=False)
class _Place:
    """One of the workers, or the one that takes its place."""

    number: int
    actor: Any
    pending: Any  # the message that it works on
    about: About | None = None  # None until it has built the program
    where: tuple[str, int] = ("a node", 0)
    todo: tuple[int, ...] = ()  # items of the message, by number
    is_late: bool = False  # the message is of a task that was given up
    sent: float = 0.0
    look: Any = None  # the last question whether it is there
    looked: float = 0.0


@dataclass(eq=False)
class Pool:
    """Workers that have a program.

    Attributes
    ----------
    lost : list of Lost
    n_bytes : int
        Bytes of tasks and results so far, those of the program not counted.
    """

    ray: Any
    workers: Workers
    program: Any  # the reference of its pickle, of which each node gets a copy
    data: Mapping[str, Any]
    #: Whether an item is for one worker only, which has what no other has
    keeps_state: bool = False
    lost: list[Lost] = field(default_factory=list)
    n_bytes: int = 0
    _places: list[_Place] = field(default_factory=list)
    _n_at_once: int = 1
    _n_in_a_row: int = 0
    _started: float = field(default_factory=time.perf_counter)

    def start(self) -> None:
        """Start all workers, and wait for the first; the others join when they are ready.

        Raises
        ------
        RuntimeError
            If workers have other packages or data.
        """
        self._places = [self._start(number) for number in range(self.workers.n)]
        warn_at = time.perf_counter() + self.workers.timeout
        while not any(place.about for place in self._places):
            deque(self._wait(lambda: None), maxlen=0)
            if time.perf_counter() > warn_at and not any(place.where[1] for place in self._places):
                _log.warning(
                    "The Ray cluster has had no room for a worker of %d cores for %g s: the fit waits for it",
                    self.workers.cpus,
                    self.workers.timeout,
                )
                warn_at = float("inf")

    def rebuild(self, program: Program) -> None:
        """Give all workers another program, which takes over what the one before has, and wait for them."""
        self.program = self.ray.put(cloudpickle.dumps(program))
        for place in self._places:
            place.pending = place.actor.build.remote(self.program, flags_of_workers())
        while any(place.pending is not None for place in self._places):
            deque(self._wait(lambda: None), maxlen=0)

    def close(self) -> None:
        """End all workers."""
        for place in self._places:
            self._kill(place)
        self._places = []

    def _kill(self, place: _Place) -> None:
        # At the end of Python, Ray may have ended first, and would start anew to be asked
        if self.ray.is_initialized():
            self.ray.kill(place.actor)

    @property
    def processes(self) -> list[tuple[str, int]]:
        """The node and the process of each worker that has joined."""
        return [place.where for place in self._places if place.about]

    @property
    def settings(self) -> dict[str, Setting]:
        """What a report says of the workers."""
        nodes = sorted({node for node, _ in self.processes})
        found: dict[str, Setting] = {"workers": len(self._places), "nodes": ", ".join(nodes)}
        found["bytes_sent"] = self.n_bytes
        if self.lost:
            found["lost_workers"] = "; ".join(map(str, self.lost))
        return found

    def map(
        self, task: Task, items: Sequence[Any], check: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """Compute a task for each item.

        Parameters
        ----------
        task : callable (program, item) -> result
        items : sequence
        check : callable
            Called several times a second; it may raise to stop.

        Returns
        -------
        list
            The results, in the order of the items.
        """
        if not self._places:
            raise RuntimeError(
                "The workers of a fit end with each call of it: write trainer.fit() to go on"
            )
        for place in self._places:
            place.is_late = place.pending is not None and place.about is not None
        blob = cloudpickle.dumps(task)
        # One copy for each node, of what is large
        message = self.ray.put(blob) if len(blob) > LARGE_MESSAGE else blob
        results: list[Any] = [None] * len(items)
        n_left, n = len(items), len(self._places)
        # Each worker has the same items in every pass, and takes those of others when it has done its own
        queues = [deque(range(k * n_left // n, (k + 1) * n_left // n)) for k in range(n)]
        while n_left:
            for place in self._places:
                if place.pending is None and (numbers := self._take(place, queues)):
                    place.todo, place.sent = numbers, time.perf_counter()
                    some = [items[i] for i in numbers]
                    place.pending = place.actor.run.remote(message, some)
                    self.n_bytes += len(blob) + size_of(some)
            for place, numbers, values in self._wait(check):
                if values is None:
                    queues[place.number].extendleft(reversed(numbers))
                    continue
                n_left -= len(numbers)
                for i, value in zip(numbers, values):
                    results[i] = value
        return results

    def _take(self, place: _Place, queues: Sequence[deque[int]]) -> tuple[int, ...]:
        """Take the next items for a worker."""
        own = queues[place.number]
        if own or self.keeps_state:
            return tuple(own.popleft() for _ in range(min(self._n_at_once, len(own))))
        # From the far end of the longest one: its worker goes on with the near one
        queue = max(queues, key=len)
        return tuple(queue.pop() for _ in range(min(self._n_at_once, -(-len(queue) // 2))))

    def _wait(
        self, check: Callable[[], None]
    ) -> Iterator[tuple[_Place, tuple[int, ...], list[Any] | None]]:
        """Wait for answers, and yield their results; None in place of those of a worker that was lost."""
        check()
        pending = {place.pending: place for place in self._places if place.pending is not None}
        ready, _ = self.ray.wait(list(pending), num_returns=1, timeout=LOOK)
        for message in ready:
            yield from self._answer(pending[message])
        for place in self._places:
            if place.pending is not None and (reason := self._silence(place)):
                numbers, place.todo = () if place.is_late else place.todo, ()
                self._replace(place, reason)
                yield place, numbers, None

    def _answer(self, place: _Place) -> Iterator[tuple[_Place, tuple[int, ...], list[Any] | None]]:
        message, place.pending = place.pending, None
        is_late, place.is_late = place.is_late, False
        numbers, place.todo = () if is_late else place.todo, ()
        try:
            answer = self.ray.get(message)
        except self.ray.exceptions.RayTaskError as error:
            if is_late:
                return
            raise error.cause from None  # as it was raised there
        except self.ray.exceptions.RayError as error:
            self._replace(place, first_line(error))
            yield place, numbers, None
            return
        if is_late:
            return
        if isinstance(answer, About):
            self._join(place, answer)
            return
        seconds = (time.perf_counter() - place.sent) / len(numbers)
        self._n_at_once = max(1, min(2 * self._n_at_once, int(SECONDS_AT_ONCE / seconds)))
        self._n_in_a_row = 0
        self.n_bytes += size_of(answer)
        yield place, numbers, answer

    def _silence(self, place: _Place) -> str:
        """Return why a worker counts as lost: it is asked, beside its work, whether it is there."""
        now = time.perf_counter()
        if place.look is None:
            # One that has no node yet waits for room in the cluster
            place.look, place.looked = place.actor.where.remote(), now
            return ""
        ready, _ = self.ray.wait([place.look], timeout=0)
        if not ready:
            is_placed = place.where[1] != 0
            return (
                f"gave no answer for {self.workers.timeout:g} s"
                if is_placed and now - place.looked > self.workers.timeout
                else ""
            )
        try:
            place.where = self.ray.get(place.look)
        except self.ray.exceptions.RayError as error:
            return first_line(error)
        if now - place.looked > self.workers.timeout / 4:
            place.look = None
        return ""

    def _start(self, number: int) -> _Place:
        actor = (
            self.ray.remote(Worker)
            .options(
                num_cpus=self.workers.cpus,
                max_restarts=0,
                # Answers whether it is there beside its work
                max_concurrency=2,
            )
            .remote()
        )
        building = actor.build.remote(self.program, flags_of_workers())
        return _Place(number, actor, building, sent=time.perf_counter())

    def _join(self, place: _Place, about: About) -> None:
        """Take a worker in, if it has the packages and the data of this process."""
        place.about, place.where = about, (about.node, about.pid)
        own = package_versions()
        found = [
            f"{name} {about.versions.get(name)}, and {version} here"
            for name, version in own.items()
            if about.versions.get(name) != version
        ]
        found += [
            f"data with {key} = {about.data.get(key)!r}, and {value!r} here"
            for key, value in self.data.items()
            if about.data.get(key) != value
        ]
        if found:
            raise RuntimeError(
                f"a worker on node {about.node} has "
                + "; ".join(found)
                + ". Workers have to compute the "
                "same from the same rows: install the same versions on all nodes, and put the files where all see them"
            )

    def _replace(self, place: _Place, reason: str) -> None:
        """Note that a worker was lost, and start another."""
        node, pid = place.where
        self.lost.append(Lost(node, pid, reason, time.perf_counter() - self._started))
        self._n_in_a_row += 1
        self._kill(place)
        if self.keeps_state and place.about is not None:
            raise WorkersLostError(
                f"Worker {place.number} on {node} was lost, and with it the parameters of its rows: {reason}. Go on from the "
                "last checkpoint, by pm.Trainer.load: fit(n, checkpoint=..., checkpoint_every=...) writes them"
            )
        _log.warning(
            "Lost worker %d on %s: %s. Another takes its place", place.number, node, reason
        )
        if self._n_in_a_row > MOST_LOSSES * len(self._places):
            reasons = "; ".join(dict.fromkeys(lost.reason for lost in self.lost[-5:]))
            raise WorkersLostError(
                f"{self._n_in_a_row} workers were lost one after the other, without a result between them: {reasons}. "
                "Workers that run out of memory need smaller blocks of rows, or more memory for each"
            )
        new = self._start(place.number)
        place.actor, place.pending, place.about = new.actor, new.pending, None
        place.where, place.look, place.is_late = ("a node", 0), None, False


def size_of(answer: Any) -> int:
    """Return the bytes of numbers and arrays."""
    if isinstance(answer, np.ndarray):
        return answer.nbytes
    return sum(map(size_of, answer)) if isinstance(answer, list | tuple) else 8


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def flags_of_workers() -> dict[str, Any]:
    """Return the flags of PyTensor that workers need, to compute what this process would.

    Without fast math, which gives other last bits where it was compiled than where it was loaded from the cache.
    """
    return {"floatX": config.floatX, "mode": config.mode, "numba__fastmath": False}


@contextmanager
def open_pool(workers: Workers, program: Program) -> Iterator[Pool]:
    """Start workers for a program. They end with the context."""
    blob, data, keeps_state = cloudpickle.dumps(program), program.data, program.keeps_state
    del program  # which may have what ends the workers when nobody needs it any more
    if len(blob) > LARGE:
        _log.warning(
            "The model and its data are %.0f MB, which are sent to each worker: write the rows to Parquet files, and "
            "read these by pm.parquet_source",
            len(blob) / 2**20,
        )
    with ray_session(workers) as ray:
        pool = Pool(ray, workers, ray.put(blob), data, keeps_state)
        del blob
        try:
            pool.start()
            yield pool
        finally:
            pool.close()
