#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
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
