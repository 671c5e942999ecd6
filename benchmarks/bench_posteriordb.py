# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which fits of 25 posteriors of posteriordb are right, and which of the others say so.

    python benchmarks/bench_posteriordb.py [--quick] [--data FOLDER] [--seeds 3] [--limit 600]
        [--methods auto default ...] [--models NAME ...] [--again]

A fit is right if each mean is within 0.2 sd of that of the reference draws, and each sd within 0.8 to 1.25 of
theirs, by 4,000 draws of what is fitted. It is flagged if it raises an error, warns, logs a warning, or has the
verdict that it cannot be trusted. All else is wrong in silence. ``auto`` is fitted with the seeds 1 to ``--seeds``,
the others with seed 1.

The data come from a checkout of https://github.com/stan-dev/posteriordb, or a folder of its data as JSON files:
``--data``, or the environment variable POSTERIORDB. Posteriors without data are left out; those of eight_schools
are in this repository.

The table, a picture and all fits are written to ``benchmarks/results/``. Each fit is written when it is done, and a
further run does those that are missing; ``--again`` does all that are asked for. A run with ``--quick``, of two
posteriors and three methods, writes to ``.cache/benchmarks/``.
"""

import argparse
import sys
import tempfile
import threading

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from _common import CACHE, PATCH, RELEASE, ROOT, Peer, machine, main, plain_python
from posteriordb.methods import AUTO, METHODS
from posteriordb.report import Fit, LeftOut, Results

QUICK_METHODS = (AUTO, "default", "adam")
QUICK_DATA = "eight_schools"

Wanted = list[tuple[str, int]]
"""Posteriors and seeds."""


class Pythons:
    """The Pythons that run the methods, each made when it is first asked for.

    Parameters
    ----------
    folder : Path
        For the plain one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Path | None] = {PATCH: Path(sys.executable)}

    def __getitem__(self, which: str) -> Path | None:
        from peers.environments import extras_numpyro_python  # a parent's only, as pip is

        if which not in self.made:
            plain = which == RELEASE
            self.made[which] = plain_python(self.folder) if plain else extras_numpyro_python()
        return self.made[which]


class Fitter:
    """A process that fits by one method; one that dies, or takes too long, is replaced.

    Parameters
    ----------
    name : str
    python : Path
    data : Path
        The folder of the data.
    limit : int
        Seconds that a fit may take.
    """

    def __init__(self, name: str, python: Path, data: Path, limit: int) -> None:
        self.name, self.python, self.limit = name, python, limit
        module = METHODS[name].module
        self.settings = {"dtype": "float64", "module": module, "method": name, "folder": str(data)}
        self.peer: Peer | None = None

    def fit(self, posterior: str, seed: int) -> Fit:
        """Fit, or say why there is no fit."""
        late = threading.Event()
        if self.peer is None:
            self.cache = tempfile.TemporaryDirectory()
            self.peer = Peer(__file__, self.python, self.settings, Path(self.cache.name))
        process = self.peer.process

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.limit, stop)
        timer.start()
        try:
            answer = self.peer.ask(posterior=posterior, seed=seed)
        except (RuntimeError, OSError, ValueError):
            reason = f"it took more than {self.limit} s" if late.is_set() else "its process died"
            answer = {"flag": reason}
            self.close()
        finally:
            timer.cancel()
        return Fit(posterior, self.name, seed, **answer)

    def close(self) -> None:
        """End the process, and throw away what it compiled."""
        if self.peer is not None:
            with suppress(OSError):
                self.peer.__exit__()
            self.cache.cleanup()
            self.peer = None


def run(plan: dict[str, Wanted], data: Path, limit: int, results: Results) -> None:
    """Do the fits of a plan, method by method, and add each to the results when it is done."""
    with tempfile.TemporaryDirectory() as folder:
        pythons = Pythons(Path(folder))
        for name, wanted in plan.items():
            results.left_out = [out for out in results.left_out if out.method != name]
            try:
                run_method(name, wanted, pythons, data, limit, results)
            except RuntimeError as error:
                results.left_out.append(LeftOut(name, str(error)))


def run_method(
    name: str, wanted: Wanted, pythons: Pythons, data: Path, limit: int, results: Results
) -> None:
    """Do the fits of one method.

    Raises
    ------
    RuntimeError
        If there is no Python for it, or its process does not start.
    """
    python = pythons[METHODS[name].python]
    if python is None:
        raise RuntimeError("NumPyro and pymc-extras cannot be installed here")
    fitter = Fitter(name, python, data, limit)
    try:
        for posterior, seed in wanted:
            fit = fitter.fit(posterior, seed)
            results.add(fit)
            print(f"{name}, {posterior}, seed {seed}: {fit.outcome}", file=sys.stderr)
    finally:
        fitter.close()


def chosen(names: Sequence[str], known: Sequence[str], option: str) -> list[str]:
    """Return the names that were asked for, or all of them."""
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"{option}: there is no {', '.join(unknown)}, there are {', '.join(known)}")
    return [name for name in known if name in names] if names else list(known)


def with_data(posteriors: Sequence[str], folder: Path, asked: bool) -> list[str]:
    """Return the posteriors whose data are in the folder; others that were asked for end the benchmark."""
    from posteriordb.data import HOW_TO, data_name, find_file  # imports NumPy

    found = [name for name in posteriors if find_file(folder, data_name(name))]
    if missing := [name for name in posteriors if name not in found]:
        message = f"There are no data of {', '.join(missing)} in {str(folder)!r}. {HOW_TO}."
        if asked:
            sys.exit(message)
        print(f"{message} These posteriors are left out.", file=sys.stderr)
    return found


def seeds_of(method: str, seeds: int) -> range:
    """Return the seeds of a method: several for the automatic fit alone."""
    return range(1, 1 + (seeds if method == AUTO else 1))


def benchmark(options: argparse.Namespace) -> str:
    """Do the fits that are missing, write the results, and return them as text."""
    from posteriordb.data import find_folder  # imports NumPy
    from posteriordb.scoring import references

    names = list(references())
    if options.quick:
        options.models = [name for name in names if name.startswith(QUICK_DATA)]
        options.methods, options.again = QUICK_METHODS, True
    try:
        data = find_folder(options.data)
    except FileNotFoundError as error:
        sys.exit(str(error))
    posteriors = chosen(options.models, names, "--models")
    posteriors = with_data(posteriors, data, asked=bool(options.models))
    folder = CACHE if options.quick else ROOT / "benchmarks" / "results"
    results = Results(folder, machine("numba", "jax"), names)
    results.read()
    done = set() if options.again else {fit.key for fit in results.fits}
    plan = {
        method: [
            (posterior, seed)
            for posterior in posteriors
            for seed in seeds_of(method, options.seeds)
            if (posterior, method, seed) not in done
        ]
        for method in chosen(options.methods, list(METHODS), "--methods")
    }
    run({method: wanted for method, wanted in plan.items() if wanted}, data, options.limit, results)
    return results.write()


def be_peer(settings: dict[str, Any]) -> None:
    """Be one of the processes that fit."""
    from posteriordb import peer  # imports PyMC

    peer.be_peer(settings)


if __name__ == "__main__":
    none: tuple[str, ...] = ()
    main(
        __doc__,
        benchmark,
        be_peer,
        quick=False,
        data="",
        seeds=3,
        limit=600,
        methods=none,
        models=none,
        again=False,
    )
