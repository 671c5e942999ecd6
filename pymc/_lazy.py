# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Names of a package that are imported when they are first used."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any


def load_late(namespace: dict[str, Any], /, modules: Mapping[str, Iterable[str]]) -> None:
    """Load names of a package from their modules when they are first used.

    So modules that only some models need do not add to the time of ``import pymc``. `namespace` is
    ``globals()`` of the package, and `modules` has the names that it takes from each module.
    """
    sources = {name: module for module, names in modules.items() for name in names}
    get_other = namespace.get("__getattr__")

    def get(name: str) -> Any:
        if name not in sources:
            if get_other is not None:
                return get_other(name)
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
        namespace[name] = getattr(import_module(sources[name]), name)
        return namespace[name]

    namespace["__getattr__"] = get
    namespace["__dir__"] = lambda: sorted(namespace.keys() | sources.keys())
