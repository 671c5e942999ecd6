# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits by several processes, on this machine or on a Ray cluster."""
