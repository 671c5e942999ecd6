# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Where rows come from: arrays, files, iterables, other libraries."""
