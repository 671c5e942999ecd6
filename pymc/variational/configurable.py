# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Base class of guides, objectives and optimizers that a checkpoint rebuilds from their arguments."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["Configurable"]


class Configurable:
    """Base class of objects that a checkpoint holds by class name and :meth:`config`."""

    def config(self) -> dict[str, Any] | None:
        """Return the arguments that rebuild the object, as JSON values; None if only the user has them.

        For a dataclass these are its fields.
        """
        return {f.name: getattr(self, f.name) for f in fields(self)} if is_dataclass(self) else None
