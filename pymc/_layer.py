# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Run the installed PyMC release underneath this folder.

A module here does not replace the release's module of the same name; it continues it. Its first
statement, ``released = _layer.run_release(globals())``, executes the release's file in the module's
own namespace, so there is one module, one set of globals and one set of registrations. Later
definitions of the module replace those of the release, also for the release's own functions, and
``released.x`` is the ``x`` of the release.

A class that the release goes on to subclass in the same file is extended with a mixin instead:
``_layer.run_release(globals(), Inference=_Inference)`` puts ``_Inference`` in front of the release's
``Inference`` as soon as it is bound, before ``class KLqp(Inference)`` is reached.

Consequences:

- Tracebacks name the file of each function, the release's or ours. ``inspect`` looks for the source of a
  *class* in ``__file__`` of its module: it raises an ``OSError`` for a class of the release.
- Instances pickle by module and name, so pickles can be loaded with and without the patch.
- The docstring of such a module, and its ``__all__``, are the release's.
"""

import sys

from collections.abc import Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.metadata import Distribution, distributions
from pathlib import Path
from types import SimpleNamespace, new_class
from typing import Any

SERIES = (6, 4)
"""The release series that this patch was written for."""

SUPPORTED = "pymc>={0}.{1},<{0}.{2}".format(*SERIES, SERIES[1] + 1)
"""The same as a requirement, which is also the one in ``pyproject.toml``."""


def _candidates() -> Iterator[Path]:
    """Yield the folders that ``import pymc`` would find, in order, except this patch's."""
    # The folders of sys.path one by one, as the patch may be in one; other finders are of editable installs
    for finder in sys.meta_path:
        for path in [[entry] for entry in sys.path] if finder is PathFinder else [None]:
            find_spec = getattr(finder, "find_spec", None)
            spec = find_spec("pymc", path) if find_spec is not None else None
            for folder in getattr(spec, "submodule_search_locations", None) or ():
                if not Path(folder, "_layer.py").is_file():
                    yield Path(folder)


def _metadata(folder: Path) -> Distribution | None:
    """Return the metadata of the PyMC in `folder`: next to it, or anywhere if it is editable."""
    for path in ([str(folder.parent)], sys.path):
        for found in distributions(name="pymc", path=path):
            return found
    return None


def _find_release() -> Path:
    """Return the folder of the installed release, or raise an ImportError if it does not fit."""
    folder = next((f for f in _candidates() if f.joinpath("__init__.py").is_file()), None)
    release = None if folder is None else _metadata(folder)
    if folder is None or release is None:
        raise ImportError(
            "pymc-minibatch is a patch over PyMC, but no PyMC with its sources and its metadata is "
            f"installed: pip install '{SUPPORTED}'"
        )
    if tuple(release.version.split(".")[:2]) != tuple(map(str, SERIES)):
        raise ImportError(
            f"this pymc-minibatch is a patch over {SUPPORTED}, but {release.version} is installed "
            f"in {folder}; what it overrides there may have changed. Either "
            f"pip install '{SUPPORTED}', or pip uninstall pymc-minibatch, which leaves plain PyMC "
            f"{release.version}"
        )
    return folder


RELEASE = _find_release()
"""The folder of the installed release."""


def run_release(namespace: dict[str, Any], /, **mixins: type) -> SimpleNamespace:
    """Execute the release's module of the same name in `namespace`.

    Parameters
    ----------
    namespace : dict
        ``globals()`` of the module that continues the release's.
    **mixins : type
        By name of a class that the release's module binds: the class to put in front of it.

    Returns
    -------
    SimpleNamespace
        The names of the module as the release defines them.

    Raises
    ------
    ImportError
        If the release has no such module, or no class of one of these names in it.
    """
    name = namespace["__spec__"].name  # __name__ is "__main__" under python -m
    file = RELEASE.joinpath(*name.split(".")[1:])
    if "__path__" in namespace:  # a package: its other modules are the release's
        if str(file) not in namespace["__path__"]:  # it is, on a reload
            namespace["__path__"].append(str(file))
        file /= "__init__.py"
    else:
        file = file.with_suffix(".py")
    try:
        code = SourceFileLoader(name, str(file)).get_code(name)  # from the release's .pyc
    except OSError as error:
        raise ImportError(f"{name} is to continue a module of PyMC, but: {error}") from error
    bindings = _Bindings(namespace, mixins)
    exec(code, namespace, bindings)  # type: ignore[arg-type]
    if bindings.mixins:
        raise ImportError(
            f"{name} extends {', '.join(bindings.mixins)}, which {file} does not define: "
            f"pymc-minibatch and this PyMC do not fit together, see {SUPPORTED}"
        )
    return SimpleNamespace(**namespace)


def register_again(registry: dict[Any, type], released: SimpleNamespace) -> None:
    """Put the classes with mixins into a registry of a decorator, which has those without."""
    for key, cls in registry.items():
        registry[key] = vars(released).get(cls.__name__, cls)


class _Bindings(dict[str, Any]):
    """Names that the release's module binds: they go to `namespace`, with mixins in front of classes.

    The dict itself stays empty, so that every look-up goes on to the module's globals.
    """

    def __init__(self, namespace: dict[str, Any], mixins: dict[str, type]):
        self.namespace, self.mixins = namespace, dict(mixins)

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.mixins and isinstance(value, type):
            body = {k: getattr(value, k) for k in ("__module__", "__qualname__", "__doc__")}
            bases = (self.mixins.pop(name), value)
            value = new_class(name, bases, exec_body=lambda ns: ns.update(body))
        self.namespace[name] = value

    def __delitem__(self, name: str) -> None:
        del self.namespace[name]
