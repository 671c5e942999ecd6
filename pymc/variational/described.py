# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Objects that say by which arguments they are made again: guides, objectives and optimizers."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["Described"]


class Described:
    """Base class of what a checkpoint describes by its class and :meth:`config`."""

    def config(self) -> dict[str, Any] | None:
        """Return the arguments that make the object again, as JSON holds them; None where there are none.

        Those of a dataclass are its fields.
        """
        return {f.name: getattr(self, f.name) for f in fields(self)} if is_dataclass(self) else None
