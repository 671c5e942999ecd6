# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A variational autoencoder of digits by the importance-weighted bound, beside NumPyro's.

    python benchmarks/bench_vae.py [--quick] [--no-numpyro] [--rounds 5] [--seeds 3] [--steps 6000]

The patch fits it by ``pm.Amortized`` and ``objective="iwae"``, on Numba and JAX, NumPyro by
``RenyiELBO(alpha=0)`` in one plate, all on the same network, from the same weights, in float32. Every
peer is a process of one thread, and all of them take turns in the same rounds; a figure is the median.

Then log p(x) of digits that no fit has seen, estimated by 5,000 particles, has to rise with the
particles K of the bound, as in Burda, Grosse and Salakhutdinov (2016), table 1: fits from several
seeds for each K, by the patch on JAX and by NumPyro. The patch's own ``log_evidence`` gives the same
estimate as the one that judges all.

The table and all figures are written to ``benchmarks/results/``; a run with ``--quick``, which leaves
out NumPyro and most of the steps, to ``.cache/benchmarks/``.
"""

import sys

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from _common import CACHE, PATCH, ROOT, Peer, as_markdown, machine, main, send, serve, take_turns
from _digits import write_digits
from _results import Measured, Section, compared, find, write_json

NUMPYRO, JAX = "NumPyro", f"{PATCH}, JAX"
PARTICLES = [1, 5, 50]
N_PARTICLES = 5_000  # of the estimate
NETWORK = {"n_latent": 5, "n_hidden": 64, "batch_size": 64, "dtype": "float32"}
DTYPE = "float32"

Settings = dict[str, Any]
Who = dict[str, tuple[Path | str, Settings]]


def measure_steps(who: Who, file: Path, rounds: int, seconds: float) -> Section:
    """Measure a step of each peer for each K."""
    section = []
    for k in PARTICLES:
        with ExitStack() as stack:
            peers = {
                name: stack.enter_context(Peer(__file__, python, _settings(own, file, k) | timed))
                for name, (python, own) in who.items()
                for timed in [{"seconds": seconds}]
            }
            times = take_turns(peers, rounds, what="time")
            hello = {name: peer.hello for name, peer in peers.items()}
        for name, figures in times.items():
            first = {"first": hello[name]["first"]}
            section.append(
                Measured(_case(k), DTYPE, name, figures, hello[name]["n_steps"], 0, first)
            )
    return section


def _settings(own: Settings, file: Path, k: int, seed: int = 0) -> Settings:
    return {**NETWORK, **own, "file": str(file), "n_particles": k, "seed": seed, "seconds": 0}


def _case(k: int) -> str:
    return f"K = {k}"


def measure_fits(who: Who, file: Path, seeds: int, n_steps: int) -> Section:
    """Fit for each K and seed; the accuracy is the mean log p(x) of a row that was not seen."""
    section = []
    for k in PARTICLES:
        fits: dict[str, list[dict[str, float]]] = {name: [] for name in who}
        for seed in range(seeds):
            for name, (python, own) in who.items():
                with Peer(__file__, python, _settings(own, file, k, seed)) as peer:
                    fits[name].append(peer.ask(what="fit", n_steps=n_steps))
        for name, found in fits.items():
            accuracy = {f"seed {s}": fit["log_evidence"] for s, fit in enumerate(found)}
            if "own" in found[0]:
                accuracy["own"] = max(abs(fit["own"] - fit["log_evidence"]) for fit in found)
            times = [fit["seconds"] for fit in found]
            section.append(Measured(_case(k), DTYPE, name, times, n_steps, 0, accuracy))
    return section


def steps_table(section: Section) -> str:
    """Write the time of a step and of the first one."""
    header = ["particles", "peer", "µs a step", "patch = 1", "s to the first step, warm caches"]
    rows = [
        [m.case, m.peer, f"{median(m.times):,.3g}", compared(m, section), f"{first:.3g}"]
        for m in section
        for first in [m.accuracy["first"]]
    ]
    return as_markdown(header, rows)


def fits_table(section: Section) -> str:
    """Write log p(x) of rows that were not seen, and whether it rises with K at each seed."""
    header = ["nats a row", "steps", *map(_case, PARTICLES), "rises with K at", "s, K = 50"]
    rows = []
    for name in dict.fromkeys(m.peer for m in section):
        own = [found for k in PARTICLES if (found := find(section, _case(k), DTYPE, name))]
        by_k = [_of_seeds(m) for m in own]
        rising = sum(list(ordered) == sorted(ordered) for ordered in zip(*by_k, strict=True))
        figures = [_mean_and_sd(values) for values in by_k]
        seeds = f"{rising} of {len(by_k[0])} seeds"
        rows.append([name, f"{own[0].n_steps:,}", *figures, seeds, f"{median(own[-1].times):.3g}"])
    return as_markdown(header, rows)


def _of_seeds(m: Measured) -> list[float]:
    return [value for name, value in m.accuracy.items() if name.startswith("seed")]


def _mean_and_sd(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"


def benchmark(options: Any) -> str:
    """Measure all, write the results, and return them as text."""
    quick = options.quick
    folder = CACHE if quick else ROOT / "benchmarks" / "results"
    file = CACHE / "digits.npz"
    write_digits(file)
    who: Who = {
        PATCH: (sys.executable, {"peer": "vae_fit"}),
        JAX: (sys.executable, {"peer": "vae_fit", "backend": "jax"}),
    }
    where = machine("numba", "jax")
    if not (quick or options.no_numpyro):
        where += _add_numpyro(who)
    rounds, seconds = (3, 0.1) if quick else (options.rounds, 1.0)
    steps = measure_steps(who, file, rounds, seconds)
    write_results(folder, where, {"steps": steps, "fits": []})  # should a later peer die
    fitted = {name: who[name] for name in (JAX, NUMPYRO) if name in who}
    seeds, n_steps = (1, 500) if quick else (options.seeds, options.steps)
    fits = measure_fits(fitted, file, seeds, n_steps)
    return write_results(folder, where, {"steps": steps, "fits": fits})


def _add_numpyro(who: Who) -> str:
    from peers.environments import numpyro_python, package_version  # a parent's only, as pip is

    python = numpyro_python()
    if python is None:
        return ""
    who[NUMPYRO] = (python, {"peer": "numpyro_vae"})
    return f", numpyro {package_version(python, 'numpyro')}"


def write_results(folder: Path, where: str, sections: Mapping[str, Section]) -> str:
    """Write ``vae.json`` and ``vae.md``, and return the text."""
    parts = [f"One thread for each process. {where}.", steps_table(sections["steps"])]
    fits = sections["fits"]
    if fits:
        parts.append(
            f"log p(x) of 360 digits that no fit has seen, by {N_PARTICLES:,} particles; mean and sd "
            "over seeds."
        )
        parts.append(fits_table(fits))
        off = max(m.accuracy.get("own", 0.0) for m in fits)
        parts.append(f"`pm.variational.log_evidence` differs by {off:.3f} nats a row at most.")
    text = "\n\n".join(parts)
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("vae.md").write_text(text + "\n", encoding="utf-8")
    write_json(folder / "vae.json", where, sections)
    return text


def be_peer(settings: Settings) -> None:
    """Take steps, and say how long they take; or fit, and say what log p(x) is."""
    import importlib  # what only a peer needs
    import time

    from _digits import Digits, log_evidence
    from peers import seconds, seconds_of_call, steps_per_round

    data = Digits.read(settings["file"], settings["dtype"])
    begun = time.perf_counter()
    fit = importlib.import_module(f"peers.{settings['peer']}").start(data, settings)
    seconds_of_call(fit, 1)
    first = time.perf_counter() - begun
    timed = settings["seconds"] > 0
    n_steps = steps_per_round(fit, settings["seconds"], block=100) if timed else 0
    send({"n_steps": n_steps, "first": first})

    def answer(what: str, n_steps: int = n_steps) -> dict[str, float]:
        took = seconds(fit, n_steps)
        if what == "time":
            return {"time": took / n_steps * 1e6}
        estimate = log_evidence(fit.weights(), data.test, N_PARTICLES)
        answer = {"seconds": took, "log_evidence": float(estimate.mean())}
        if hasattr(fit, "log_evidence"):
            answer["own"] = fit.log_evidence(data.test, N_PARTICLES)
        return answer

    serve(answer)


if __name__ == "__main__":
    main(__doc__, benchmark, be_peer, rounds=5, seeds=3, steps=6_000, quick=False, no_numpyro=False)
