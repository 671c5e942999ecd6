# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What bench_stream.py measured, as values and tables, beside the bars that the project set itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from _common import as_markdown, ratio
from _results import Measured, Section, find

LOADER, PYARROW, EXTRAS = "loader", "pyarrow", "pymc-extras"
IN_MEMORY, STREAMED = "in memory", "streamed"
DTYPE = "float32"
LEAST_OF_PYARROW, LEAST_OF_EXTRAS = 0.6, 5.0
DEAR = 2.0  # a step that costs this many readings of its batch hides them
MOST_OF_MEMORY_FIT, MOST_OF_LOADER = 1.15, 1.5
BUFFERS, MOST_GROWTH = 3, 0.05  # of the peak memory


@dataclass(frozen=True)
class Memory:
    """Memory of a process that goes through all of a stream once.

    Parameters
    ----------
    what : str
        What the process does.
    input_gb : float
        Bytes of all rows, in GB.
    before, peak : float
        Resident memory before the first row, and at most, in MB.
    held : float
        A batch, a row group and the buffer of shuffled rows, together, in MB.
    seconds : float
        How long it took, with what it compiles.
    """

    what: str
    input_gb: float
    before: float
    peak: float
    held: float
    seconds: float


def reads_table(section: Section, batch_size: int, case: str, reference: str) -> str:
    """Write how many rows each peer reads, over what the reference reads."""
    base = find(section, case, DTYPE, reference)
    rows = []
    for m in (m for m in section if m.case == case):
        speed = "–" if base is None else f"{ratio(base.times, m.times):.3g}"
        rows.append([m.peer, f"{batch_size / median(m.times):.3g}", speed])
    return as_markdown([case, "million rows/s", f"{reference} = 1"], rows)


def fits_table(section: Section) -> str:
    """Write what a step costs in memory and streamed, and what its batch costs to read."""
    header = ["fit", "µs to read a batch", "µs a step in memory", "µs a step streamed"]
    header += ["step in memory / reading", "streamed / in memory", "streamed / reading"]
    rows = []
    for case in dict.fromkeys(m.case for m in section):
        read, memory, streamed = _fit(section, case)
        figures = [f"{median(m.times):.3g}" for m in (read, memory, streamed)]
        pairs = [(memory, read), (streamed, memory), (streamed, read)]
        rows.append([case, *figures, *(f"{ratio(a.times, b.times):.3g}" for a, b in pairs)])
    return as_markdown(header, rows)


def _fit(section: Section, case: str) -> tuple[Measured, Measured, Measured]:
    read, memory, streamed = (
        next(m for m in section if m.key == (case, DTYPE, peer))
        for peer in (LOADER, IN_MEMORY, STREAMED)
    )
    return read, memory, streamed


def memory_table(memory: Sequence[Memory]) -> str:
    """Write how far the memory rises above that before the first row."""
    header = ["memory of a process", "GB of rows", "MB before", "MB at most", "MB more"]
    header += [f"{BUFFERS} × held, MB", "peak / that of the least rows", "s"]
    least = {m.what: m for m in reversed(memory)}
    rows = []
    for m in memory:
        size, growth = f"{m.input_gb:.3g}", f"{m.peak / least[m.what].peak:.3f}"
        figures = [f"{x:.0f}" for x in (m.before, m.peak, m.peak - m.before, BUFFERS * m.held)]
        rows.append([m.what, size, *figures, growth, f"{m.seconds:.3g}"])
    return as_markdown(header, rows)


def bars_table(reads: Section, fits: Section, memory: Sequence[Memory]) -> str:
    """Write the ratios that the project set itself, and whether they are kept."""
    rows = [*_read_bars(reads), *_fit_bars(fits), *_memory_bars(memory)]
    return as_markdown(["ratio", "measured", "bar", "kept"], rows)


def _read_bars(reads: Section) -> list[list[str]]:
    rows = []
    bars = [(PYARROW, LEAST_OF_PYARROW), (EXTRAS, LEAST_OF_EXTRAS)]
    for case in dict.fromkeys(m.case for m in reads):
        own = find(reads, case, DTYPE, LOADER)
        for peer, least in bars:
            other = find(reads, case, DTYPE, peer)
            if own and other:
                times = ratio(other.times, own.times)
                name = f"rows/s, {case}: {LOADER} / {peer}"
                rows.append([name, f"{times:.3g}", f"≥ {least:g}", _kept(times >= least)])
    return rows


def _fit_bars(fits: Section) -> list[list[str]]:
    rows = []
    for case in dict.fromkeys(m.case for m in fits):
        read, memory, streamed = _fit(fits, case)
        dear = ratio(memory.times, read.times) >= DEAR
        base, most = (memory, MOST_OF_MEMORY_FIT) if dear else (read, MOST_OF_LOADER)
        times = ratio(streamed.times, base.times)
        name = f"time, {case}: {STREAMED} / {base.peer}"
        rows.append([name, f"{times:.3g}", f"≤ {most:g}", _kept(times <= most)])
    return rows


def _memory_bars(memory: Sequence[Memory]) -> list[list[str]]:
    rows = []
    least = {m.what: m for m in reversed(memory)}
    for m in memory:
        times = (m.peak - m.before) / m.held
        name = f"memory, {m.what}, {m.input_gb:.3g} GB: peak above the start / held"
        rows.append([name, f"{times:.2f}", f"≤ {BUFFERS}", _kept(times <= BUFFERS)])
        if m is not least[m.what]:
            growth = m.peak / least[m.what].peak
            name = f"peak memory, {m.what}: {m.input_gb:.3g} / {least[m.what].input_gb:.3g} GB"
            bar = f"< {1 + MOST_GROWTH}"
            rows.append([name, f"{growth:.3f}", bar, _kept(growth < 1 + MOST_GROWTH)])
    return rows


def _kept(kept: bool) -> str:
    return "yes" if kept else "no"
