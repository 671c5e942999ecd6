# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Sources of rows: arrays, files, iterables, and tables of other libraries."""
