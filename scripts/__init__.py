# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
