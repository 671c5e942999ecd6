# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is there whole, or not at all: whatever fails, the one before it is read."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numpy.random import MT19937, PCG64, PCG64DXSM, SFC64, Generator, Philox, RandomState
from safetensors.numpy import load_file

from pymc.variational.checkpoints import store
from pymc.variational.checkpoints.store import (
    Checkpoint,
    CheckpointMismatchError,
    CheckpointSaveError,
    DamagedCheckpointError,
    list_checkpoints,
    read,
    read_newest,
    step_folder,
    write,
)
from pymc.variational.local_params.parts import Parts
from tests.variational.checkpoints.faults import (
    FAULTS,
    SOAK,
    contents,
    faulty_disk,
    same,
    write_and_keep,
)

FILES = ("state.safetensors", "meta.json")


def save(folder: Path, k: int, keep: int | None = None) -> Path:
    return write_and_keep(step_folder(folder, k), contents(k), keep)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with checkpoints of steps 1 and 2."""
    save(tmp_path, 1)
    save(tmp_path, 2)
    return tmp_path


@pytest.mark.parametrize(
    "array",
    [
        np.array(2.5, dtype="float32"),
        np.zeros((0, 3)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.array([np.nan, -0.0, np.inf], dtype="float16"),
        np.arange(12.0)[::-2],
        np.frombuffer(b"\x01\x00\xf8\x7f\x00\x00\xf0\x7f" * 2, dtype="float64"),  # odd nans
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_come_back_bit_for_bit(tmp_path, array):
    path = write(tmp_path / "step-000000001", Checkpoint({}, {"x": array, "y": np.arange(3)}))
    found = read(path).values["x"]
    native = array.astype(array.dtype.newbyteorder("="))
    assert (found.dtype, found.shape) == (native.dtype, native.shape)
    assert found.tobytes() == native.tobytes()
    [library] = [load_file(path / "state.safetensors")["x"]]
    assert library.tobytes() == native.tobytes()


def test_arrays_are_written_without_a_copy(tmp_path):
    big = np.zeros((1000, 1000))
    tracemalloc.start()
    write(tmp_path / "step-000000001", Checkpoint({}, {"big": big}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < big.nbytes / 2


def test_the_last_are_kept(tmp_path):
    for k in range(1, 8):
        save(tmp_path, k, keep=3)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step-000000005",
        "step-000000006",
        "step-000000007",
    ]
    save(tmp_path, 10**10, keep=1)  # a longer number is no smaller one
    assert [path.name for path in tmp_path.iterdir()] == ["step-10000000000"]


def test_a_checkpoint_is_replaced(folder):
    write(step_folder(folder, 2), contents(7))
    assert read_newest(folder)[1].contents["k"] == 7
    assert sorted(path.name for path in folder.iterdir()) == ["step-000000001", "step-000000002"]


def test_what_a_killed_save_left_is_no_checkpoint_and_goes(folder):
    for name in (".step-000000003.partial", ".step-000000001.old", ".step-000000002.replaced"):
        folder.joinpath(name).mkdir()
        folder.joinpath(name, "state.safetensors").write_bytes(b"half")
    assert same(read_newest(folder)[1], contents(2))
    save(folder, 4)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"step-00000000{k}" for k in (1, 2, 4)
    ]


def test_what_another_is_writing_beside_stays(folder):
    folder.joinpath(".approx.partial").mkdir()
    save(folder, 3)
    assert [path.name for path in folder.glob(".*")] == [".approx.partial"]


def test_a_moved_checkpoint_counts_until_the_next_is_there(folder):
    step_folder(folder, 2).rename(folder / ".step-000000002.replaced")
    assert same(read_newest(folder)[1], contents(2))
    save(folder, 3)
    assert same(read(step_folder(folder, 2)), contents(2))


def test_a_leftover_that_is_a_link_leads_nowhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    elsewhere.joinpath("mine").write_text("not to be removed")
    folder.joinpath(".step-000000003.partial").symlink_to(elsewhere)
    save(folder, 3)
    assert elsewhere.joinpath("mine").exists()
    assert len(list_checkpoints(folder)) == 3


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "damage", ["short", "long", "flipped", "missing", "link", "folder", "other"]
)
def test_a_damaged_file_is_named_and_the_one_before_offered(folder, file, damage, tmp_path_factory):
    path = step_folder(folder, 2) / file
    data = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(data[:-1])
    elif damage == "long":
        path.write_bytes(data + b"\n")
    elif damage == "flipped":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "link":
        outside = tmp_path_factory.mktemp("outside") / file
        outside.write_bytes(data)
        path.symlink_to(outside)
    elif damage == "folder":
        path.mkdir()
    elif damage == "other":
        shutil.copy(step_folder(folder, 1) / file, path)
    with pytest.raises(DamagedCheckpointError, match=r"damaged.*Nothing of it was used") as caught:
        read_newest(folder)
    if damage != "other":  # which of two is the other's, nobody can tell
        assert caught.value.file == path
    assert caught.value.before == step_folder(folder, 1)
    assert str(step_folder(folder, 1)) in str(caught.value)


def test_only_one_that_is_whole_is_offered(folder):
    save(folder, 3)
    for k in (2, 3):
        step_folder(folder, k).joinpath("meta.json").unlink()
    with pytest.raises(DamagedCheckpointError, match="cannot be read") as caught:
        read_newest(step_folder(folder, 3))
    assert caught.value.before == step_folder(folder, 1)
    with pytest.raises(DamagedCheckpointError, match="cannot be read") as caught:
        read_newest(step_folder(folder, 2))
    assert caught.value.before == step_folder(folder, 1)
    step_folder(folder, 1).joinpath("meta.json").unlink()
    with pytest.raises(DamagedCheckpointError, match=r"Nothing of it was used\.$"):
        read_newest(folder)


def test_a_checkpoint_that_is_a_link_is_refused(folder):
    step_folder(folder, 3).symlink_to(step_folder(folder, 1))
    with pytest.raises(DamagedCheckpointError, match="it is a link"):
        read_newest(folder)


def test_an_entry_of_another_type_is_named(folder):
    path = step_folder(folder, 2) / "meta.json"
    values = json.loads(path.read_text())
    del values["sha256"]
    values["tensors_sha256"] = 5
    path.write_bytes(store._signed(values))
    with pytest.raises(
        DamagedCheckpointError, match=r"Expected `str`, got `int` - at `\$\.tensors_sha"
    ):
        read_newest(folder)


@pytest.mark.parametrize(
    "text",
    [
        b'{"format": NaN, "sha256": "x"}',
        b"[1]",
        b'{"format": 1e999, "sha256": "x"}',
        b'{"format": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
    ids=["nan", "list", "large", "deep"],
)
def test_texts_that_were_not_written(folder, text):
    save(folder, 3)
    for k in (2, 3):
        step_folder(folder, k).joinpath("meta.json").write_bytes(text)
    with pytest.raises(DamagedCheckpointError, match=r"meta\.json of a checkpoint") as caught:
        read_newest(folder)
    assert caught.value.before == step_folder(folder, 1)


def test_one_in_the_form_of_another_version_is_not_offered(folder):
    other = store._signed({"format": "PyMC checkpoint 0", "more": []})
    save(folder, 3)
    step_folder(folder, 2).joinpath("meta.json").write_bytes(other)
    step_folder(folder, 3).joinpath("meta.json").unlink()
    with pytest.raises(DamagedCheckpointError, match="cannot be read") as caught:
        read_newest(folder)
    assert caught.value.before == step_folder(folder, 1)


def test_a_folder_of_checkpoints_may_be_called_as_one_of_them(tmp_path):
    folder = step_folder(tmp_path, 123)
    save(folder, 1)
    save(folder, 2)
    save(tmp_path, 3, keep=1)
    found, newest = read_newest(folder)
    assert (found.name, newest.contents["k"]) == ("step-000000002", 2)
    assert read_newest(tmp_path)[0] == step_folder(tmp_path, 3)
    assert list_checkpoints(folder) == [step_folder(folder, 1), step_folder(folder, 2)]


def test_the_form_of_another_version(folder):
    path = step_folder(folder, 2) / "meta.json"
    path.write_bytes(store._signed({"format": "PyMC checkpoint 0", "more": []}))
    with pytest.raises(
        CheckpointMismatchError, match="'PyMC checkpoint 0' in the checkpoint, 'PyMC"
    ):
        read_newest(folder)


def test_an_earlier_format(folder):
    """Format 2 had a manifest beside two other files."""
    step_folder(folder, 2).joinpath("meta.json").rename(step_folder(folder, 2) / "manifest.json")
    with pytest.raises(CheckpointMismatchError, match="an earlier one in the checkpoint, 'PyMC"):
        read_newest(folder)


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a folder"):
        read_newest(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no folder with a name like step-000000001"):
        read_newest(tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", [2, 3])
def test_a_disk_that_is_full_at_any_call(tmp_path, step, fault):
    """Step 2 replaces a checkpoint, and step 3 makes one and removes that of step 1."""
    failed = 0
    for k in range(1000):
        folder = tmp_path / str(k)
        save(folder, 1)
        save(folder, 2)
        with faulty_disk(k, FAULTS[fault]) as disk:
            try:
                write_and_keep(step_folder(folder, step), contents(9), keep=2)
            except CheckpointSaveError as error:
                failed += 1
                assert errno.errorcode[error.errno] == fault
                assert "could not be written" in str(error)
        newest = read_newest(folder)[1]
        assert same(newest, contents(2)) or same(newest, contents(9))
        if same(newest, contents(2)):  # nothing old goes before the new one is there
            assert same(read(step_folder(folder, 1)), contents(1))
        if disk.n <= k:  # there was no such call
            assert failed > 15
            return
        save(folder, 4, keep=2)  # there is room again
        assert {path.name for path in folder.iterdir()} >= {"step-000000004"}
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_disk_on_which_no_array_fits(folder):
    """What the library of the arrays raises is an error of the disk."""
    limit = 10_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(CheckpointSaveError, match="File too large"):
            write(step_folder(folder, 3), Checkpoint({}, {"x": np.zeros(limit)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(list(folder.iterdir())) == 2


KILLED = """
import sys
from pathlib import Path
from pymc.variational.checkpoints.store import step_folder, write
from pymc.variational.local_params.parts import Parts
from tests.variational.checkpoints.faults import contents, killed_saves

folder = Path(sys.argv[1])
for name, step in (("next", 3), ("replaced", 2)):
    for k in (1, 2):
        write(step_folder(folder / name, k), contents(k))
    print(*killed_saves(folder / name, 2, step_folder(folder / name, step), 2))
"""


def test_a_save_that_is_killed_at_any_call(tmp_path):
    """A process of its own forks the saves: each is killed, by SIGKILL, a call later than the last."""
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        newest = [int(word) for word in line.split()]
        assert newest == sorted(newest)
        assert newest[0] == 2
        assert newest[-1] == 3
        assert len(newest) > 15


def mutated(path: Path, rng: np.random.Generator) -> None:
    """Change something in the files of a checkpoint."""
    file = path / str(rng.choice(FILES))
    data = bytearray(file.read_bytes())
    kind = rng.integers(7)
    place = int(rng.integers(len(data)))
    if kind == 0:
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place:place] = rng.bytes(int(rng.integers(1, 40)))
    elif kind == 3:
        del data[place : place + int(rng.integers(1, 40))]
    elif kind == 4:
        data[place : place + 8] = rng.bytes(8)
    elif kind == 5:
        data[:] = rng.bytes(len(data))
    else:
        other = path / str(rng.choice([name for name in FILES if name != file.name]))
        data[:] = other.read_bytes()
    file.write_bytes(data)


def test_a_changed_checkpoint_is_never_read(tmp_path):
    original, path = save(tmp_path / "original", 1), tmp_path / "step-000000001"
    for seed in range(2000 if SOAK else 200):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(original, path)
        mutated(path, np.random.default_rng(seed))
        with pytest.raises(DamagedCheckpointError, match="damaged"):
            read(path)


def stored(values: dict[str, Any], folder: Path) -> Mapping[str, Any]:
    """Pass values through files."""
    return read(write(folder / "step-000000001", Checkpoint({}, values))).values


@pytest.mark.parametrize("kind", [PCG64, PCG64DXSM, MT19937, Philox, SFC64])
def test_generators(tmp_path, kind):
    rng = Generator(kind(3))
    rng.random(7)
    rng.integers(5, size=3, dtype="uint32")  # half a word is kept for the next
    rng.spawn(2)
    again = stored({"rng": rng}, tmp_path)["rng"]
    children = [one.spawn(1)[0].random(3) for one in (rng, again)]
    np.testing.assert_array_equal(*children)
    for draw in ("random", "standard_normal"):
        np.testing.assert_array_equal(getattr(rng, draw)(700), getattr(again, draw)(700))
    np.testing.assert_array_equal(
        *[one.integers(9, size=5, dtype="uint32") for one in (rng, again)]
    )


@pytest.mark.parametrize("kind", [MT19937, PCG64])
def test_random_states(tmp_path, kind):
    state = RandomState(kind(4))
    state.normal(size=3)  # one more normal is kept for the next call
    again = stored({"state": state}, tmp_path)["state"]
    np.testing.assert_array_equal(state.normal(size=700), again.normal(size=700))
    np.testing.assert_array_equal(state.randint(9, size=5), again.randint(9, size=5))


def test_plain_contents(tmp_path):
    tree = {
        "none": None,
        "yes": True,
        "large": 2**130,
        "tenth": 0.1,
        "zero": -0.0,
        "text": "µ/$",
        "list": [1, {"a": [2.5]}],
        "nan": float("nan"),
        "inf": -float("inf"),
        "empty": {},
    }
    again = read(write(tmp_path / "step-000000001", Checkpoint(tree, {}))).contents
    assert np.isnan(again.pop("nan"))
    tree.pop("nan")
    assert again == tree
    assert str(again["zero"]) == "-0.0"


@pytest.mark.parametrize(
    "value, what",
    [
        (np.array(["a"]), "dtype <U1"),
        (np.array([object()]), "dtype object"),
        (np.zeros(2, dtype="complex128"), "dtype complex128"),
        (np.zeros(2, dtype="longdouble"), "dtype float128|dtype longdouble"),
        (object(), "type object"),
        (print, "type builtin_function_or_method"),
    ],
)
def test_what_is_no_value_of_a_fit(tmp_path, value, what):
    with pytest.raises(TypeError, match=f"A checkpoint cannot hold 'a'.*({what})"):
        write(tmp_path / "one", Checkpoint({}, {"a": value}))
    with pytest.raises(TypeError, match="A checkpoint cannot hold <object"):
        write(tmp_path / "one", Checkpoint({"a": object()}, {}))
    assert list(tmp_path.iterdir()) == []


def test_a_bit_generator_of_somebody_else(tmp_path):
    class Own(PCG64): ...

    with pytest.raises(TypeError, match="cannot hold the generator 'rng' of a Own"):
        write(tmp_path / "one", Checkpoint({}, {"rng": Generator(Own(1))}))


def test_arrays_in_parts(tmp_path: Path) -> None:
    """One part of two arrays is in memory at a time, and each file is checked."""
    whole = np.arange(35.0).reshape(7, 5)
    in_use: list[int] = []

    def part(k: int) -> np.ndarray:
        in_use.append(k)
        return whole[[0, 3, 5][k] : [3, 5, 7][k]].copy()

    parts = Parts([3, 2, 2], (5,), whole.dtype, part)
    short = Parts([1], (), np.dtype("int64"), lambda k: np.array([9]))
    path = write(tmp_path / "step-000000001", Checkpoint({}, {"rows": parts, "n": short}))
    assert in_use == [0, 1, 2]
    values = read(path).values
    found, n = values["rows"], values["n"]
    assert isinstance(found, Parts) and isinstance(n, Parts)
    assert (found.shape, found.dtype, n.shape, n.dtype) == ((7, 5), "float64", (1,), "int64")
    np.testing.assert_array_equal(np.concatenate([found.part(k) for k in range(3)]), whole)
    np.testing.assert_array_equal(n.part(0), [9])
    for name in ("part-000.safetensors", "part-002.safetensors"):
        file = path / name
        before = file.read_bytes()
        file.write_bytes(before[:-1] + b"?")
        with pytest.raises(DamagedCheckpointError, match=name):
            read(path)
        file.unlink()
        with pytest.raises(DamagedCheckpointError, match=name):
            read(path)
        file.write_bytes(before)
    assert read(path).contents == {}


def test_a_part_that_cannot_be_made(tmp_path: Path) -> None:
    def part(k: int) -> np.ndarray:
        if k == 1:
            raise RuntimeError("a worker is gone")
        return np.zeros(2)

    parts = Parts([2, 2], (), np.dtype("float64"), part)
    with pytest.raises(RuntimeError, match="a worker is gone"):
        write(tmp_path / "step-000000001", Checkpoint({}, {"rows": parts}))
    assert list(tmp_path.iterdir()) == []
