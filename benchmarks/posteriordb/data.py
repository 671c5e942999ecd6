# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Where the data of posteriordb are, and the reading of them."""

import json
import os
import zipfile

from collections.abc import Mapping
from pathlib import Path

import numpy as np

Data = Mapping[str, np.ndarray]
"""The data of a posterior, by name: numbers are arrays without axes, integers are floats."""

HERE = Path(__file__).resolve().parent
BESIDE = HERE.parents[2] / "shared" / "data" / "posteriordb"  # beside the clone
WITHIN = Path("posterior_database", "data", "data")  # of a checkout
VARIABLE = "POSTERIORDB"
HOW_TO = (
    f"Give a checkout of https://github.com/stan-dev/posteriordb, or a folder of its data as NAME.json, by --data or "
    f"the environment variable {VARIABLE}"
)


def data_name(posterior: str) -> str:
    """Return the name of the data in that of a posterior: the part before the hyphen."""
    return posterior.partition("-")[0]


def find_folder(given: str = "") -> Path:
    """Return the folder that is given, or that of the environment, or the one beside the clone.

    Parameters
    ----------
    given : str
        Empty if none is.

    Raises
    ------
    FileNotFoundError
        If it is given, and not there. Where none is given, the folder may be none.
    """
    named = given or os.environ.get(VARIABLE, "")
    folder = Path(named or BESIDE).resolve()
    if named and not folder.is_dir():
        raise FileNotFoundError(f"{named!r} is not a folder. {HOW_TO}")
    return folder


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file with some data, or None: JSON, or JSON in a zip file as posteriordb has it."""
    candidates = (
        folder / f"{name}.json",
        folder / f"{name}.json.zip",
        folder / WITHIN / f"{name}.json.zip",
        HERE / f"{name}.json",
    )
    return next((file for file in candidates if file.is_file()), None)


def read_data(folder: Path, name: str) -> Data:
    """Read some data.

    Raises
    ------
    FileNotFoundError
        If they are not in the folder.
    """
    file = find_file(folder, name)
    if file is None:
        raise FileNotFoundError(f"there is no {name}.json in {str(folder)!r}. {HOW_TO}")
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            text = archive.read(f"{name}.json").decode()
    else:
        text = file.read_text(encoding="utf-8")
    return {key: np.asarray(value, "float64") for key, value in json.loads(text).items()}
