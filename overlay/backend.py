# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""The build backend: setuptools', with the ``.pth`` file added to each wheel, editable or not.

setuptools has no setting that puts a file beside the packages, and none of its editable forms runs
our code before site-packages is searched.
"""

import os

from base64 import urlsafe_b64encode
from hashlib import sha256
from zipfile import ZIP_DEFLATED, ZipFile

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  (the hooks that need nothing of ours)
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

PTH = "_pymc_minibatch.pth"
CONTENT = b"import _pymc_minibatch\n"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return _with_pth(wheel_directory, name)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return _with_pth(wheel_directory, name)


def _with_pth(folder: str, name: str) -> str:
    """Add the file, and its line in the wheel's RECORD, to the wheel `name` in `folder`."""
    wheel = os.path.join(folder, name)
    digest = urlsafe_b64encode(sha256(CONTENT).digest()).rstrip(b"=").decode()
    with ZipFile(wheel) as old, ZipFile(f"{wheel}.new", "w", ZIP_DEFLATED) as new:
        new.writestr(PTH, CONTENT)
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                data += f"{PTH},sha256={digest},{len(CONTENT)}\n".encode()
            new.writestr(item, data)
    os.replace(f"{wheel}.new", wheel)
    return name
