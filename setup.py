# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""What no configuration file can say: every package under pymc/ is installed beneath the finder's.

The overlay must not lie in site-packages/pymc, which is the release's.
"""

from setuptools import find_packages, setup

OVERLAY = "_pymc_minibatch"

setup(
    packages=[
        OVERLAY,
        *(f"{OVERLAY}.{name}" for name in find_packages(include=["pymc", "pymc.*"])),
    ],
    package_dir={OVERLAY: f"overlay/{OVERLAY}", f"{OVERLAY}.pymc": "pymc"},
)
