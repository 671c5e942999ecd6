# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""One override as a change of the function that it overrides.

An override names the old function once, in a statement of its own: what comes before it, a guard or another
value of an argument, goes to the top of the old body, and what comes after it to the end. An override that
only hands on its arguments leaves its decorators. One that does not name the old function replaces it.
"""

import ast
import re

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from textwrap import dedent, indent

from pymc._docstrings import merge_docstrings
from scripts.upstream.source import (
    SELF,
    Edit,
    Function,
    Source,
    bound,
    has_docstring,
    parameters,
    read,
    read_first,
    scope,
    without_docstring,
)

#: Decorators that only the overlay needs, as the old function is another one there.
ONLY_OVERLAY = ("wraps(released.", "extends_docstring(released.")

_COMMENTS = re.compile(
    r"  # (type: ignore\[[\w, -]+\]|noqa: E402)(?=  #|\n|$)(  # (of the release|the release's)$)?",
    re.MULTILINE,
)


class NotMergeableError(Exception):
    """An override in a form that is no change of the old function."""


def as_in_tree(text: str) -> str:
    """Remove the comments that only the overlay needs."""
    return _COMMENTS.sub("", text.replace("noqa: E402, F401", "noqa: F401"))


def overlay_edits(source: Source, node: ast.AST) -> list[Edit]:
    """Return the changes from a text of the overlay to one of the tree: no `released`, no types of mixins."""
    edits = []
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "released":
            edits.append(Edit(*source.span(part), part.attr))
        elif isinstance(part, ast.arg) and part.arg in SELF and part.annotation:
            edits.append(Edit(*source.span(part), part.arg))
    return edits


@dataclass
class Override:
    """A function or method of the overlay, and the one of the release that it overrides."""

    name: str
    old: Function
    new: Function
    theirs: Source
    ours: Source
    is_old: Callable[[ast.expr], bool]
    before: list[ast.stmt] = field(default_factory=list)
    after: list[ast.stmt] = field(default_factory=list)
    arguments: list[tuple[str, str, ast.expr]] = field(default_factory=list)  # that change

    def merge(self) -> tuple[str, str]:
        """Return the form of the override, and the text of the merged function.

        Raises
        ------
        NotMergeableError
            If the override has another form; says why, and what to write.
        """
        body = without_docstring(self.new)
        nodes = [n for statement in body for n in ast.walk(statement)]
        uses = [n for n in nodes if isinstance(n, ast.expr) and self.is_old(n)]
        if not uses:
            same = [a.arg for a in parameters(self.old)] == [a.arg for a in parameters(self.new)]
            signature = self.signature() if same else self.own_signature()
            return "replaced", self.head(signature) + self.text_of(body)
        if len(uses) > 1:
            raise self.refusal(f"names the old one {len(uses)} times. Write a decorator for it")
        [at] = [k for k, statement in enumerate(body) if uses[0] in ast.walk(statement)]
        statement, call = body[at], getattr(body[at], "value", None)
        is_plain = isinstance(statement, ast.Return | ast.Expr | ast.Assign)
        if not is_plain or not isinstance(call, ast.Call) or call.func is not uses[0]:
            raise self.refusal(
                "calls the old one in a branch or an expression. Write a guard that returns, and "
                "the call as a statement"
            )
        self.before, self.after = body[:at], body[at + 1 :]
        self.arguments = self.changed_arguments(call)
        self.check_names(statement)
        last = self.result(statement)
        text = self.head(self.signature()) + self.text_of(self.before)
        pad = " " * self.old.body[0].col_offset
        text += "".join(f"{pad}{name} = {value}\n" for name, value, _ in self.arguments)
        return self.form, text + last + self.text_of(self.after)

    @property
    def form(self) -> str:
        has_guard = bool(self.before or self.arguments)
        if not has_guard and not self.after:
            return "decorator"
        if has_guard and self.after:
            return "guard and more"
        return "guard" if has_guard else "more"

    def refusal(self, why: str) -> NotMergeableError:
        return NotMergeableError(f"{self.name} {why}.")

    # Arguments of the old function

    def changed_arguments(self, call: ast.Call) -> list[tuple[str, str, ast.expr]]:
        """Return the name, the text and the value of each argument that is not handed on as it is."""
        old, new = parameters(self.old), {a.arg for a in parameters(self.new)}
        args = call.args[1:] if self.name.endswith("__new__") else call.args
        positional = [a for a in old if a not in self.old.args.kwonlyargs]
        values = [a for a in args if not isinstance(a, ast.Starred)]
        given = {a.arg: value for a, value in zip(positional, values)}
        given |= {word.arg: word.value for word in call.keywords if word.arg is not None}
        if unknown := given.keys() - {a.arg for a in old}:
            if not new.issuperset(unknown) or not self.old.args.kwarg:
                raise self.refusal(f"passes {', '.join(sorted(unknown))}, which the old one lacks")
            given = {name: value for name, value in given.items() if name not in unknown}
        hands_on = len(values) < len(args) or any(word.arg is None for word in call.keywords)
        changed = []
        for parameter in old:
            name = parameter.arg
            if name in given:
                value = given[name]
                if ast.unparse(value) != name:
                    changed.append((name, self.expression(value), value))
            elif not hands_on or name in new:
                default = self.defaults.get(name)
                if default is None:
                    raise self.refusal(f"does not pass {name}")
                changed.append((name, ast.unparse(default), default))
        for k, (_, _, value) in enumerate(changed):
            if read([value]) & {name for name, _, _ in changed[:k]}:
                raise self.refusal("lets arguments of the old one change places")
        return changed

    @cached_property
    def defaults(self) -> dict[str, ast.expr]:
        args = self.old.args
        names = [a.arg for a in (*args.posonlyargs, *args.args)]
        found = dict(zip(names[::-1], args.defaults[::-1]))
        return found | {
            a.arg: d for a, d in zip(args.kwonlyargs, args.kw_defaults) if d is not None
        }

    # Names

    @property
    def old_body(self) -> list[ast.stmt]:
        return without_docstring(self.old)

    @property
    def returns(self) -> list[ast.Return]:
        return [n for n in scope(self.old_body) if isinstance(n, ast.Return)]

    def check_names(self, statement: ast.stmt) -> None:
        """Raise an error where a name of one part would be another one in the merged function."""
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        result = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        changed = {name for name, _, _ in self.arguments}
        if clash := (changed | bound(self.old_body)) & read_first(self.after, result):
            raise self.refusal(
                f"reads {', '.join(sorted(clash))} after the old one, whose body binds them: take what "
                "you need before, under another name"
            )
        given = [*parameters(self.new), self.new.args.vararg, self.new.args.kwarg]
        mine = bound(self.before) - {a.arg for a in given if a is not None}
        free = read(self.old_body) - bound(self.old_body) - {a.arg for a in parameters(self.old)}
        if clash := mine & free:
            raise self.refusal(
                f"binds {', '.join(sorted(clash))}, global names of the old body: name yours otherwise"
            )

    # Text

    def result(self, statement: ast.stmt) -> str:
        """Return the old body; if more follows, its result is bound and not returned."""
        body = self.old_body
        body = body[self.n_same :]  # what both begin with, such as a look-up of the model
        start, end = self.theirs.block(body[0])[0], self.theirs.end(self.old)
        edits = self.without_dead_branches()
        is_bare = all(node.value is None for node in self.returns)
        if not self.after and (isinstance(statement, ast.Return) or is_bare):
            return self.theirs.get((start, end), edits)
        if self.returns and self.returns != body[-1:]:
            raise self.refusal("goes on after the old one, which returns early. Write a decorator")
        pad = " " * self.old.body[0].col_offset
        value = "None"
        if self.returns:
            [returned] = self.returns
            end = self.theirs.block(returned)[0]
            value = self.theirs.get(self.theirs.span(returned.value)) if returned.value else "None"
        text = self.theirs.get((start, end), edits)
        if isinstance(statement, ast.Assign):
            target = ast.unparse(statement.targets[0])
            same = self.returns and ast.unparse(self.returns[0].value or statement) == target
            text += "" if same else f"{pad}{target} = {value}\n"
        return text

    @property
    def n_same(self) -> int:
        """The number of statements at the top of the old body that are among ours before it."""
        mine = {ast.unparse(s).replace("released.", "") for s in self.before}
        return next(
            (k for k, s in enumerate(self.old_body) if ast.unparse(s) not in mine),
            len(self.old_body),
        )

    def without_dead_branches(self) -> list[Edit]:
        """Remove the branches for an argument that is None now, if nothing else uses it."""
        edits = []
        for name, text, value in list(self.arguments):
            tests = (name, f"{name} is not None")
            dead = [
                node
                for node in scope(self.old_body)
                if isinstance(node, ast.If) and ast.unparse(node.test) in tests and not node.orelse
            ]
            inside = {id(n) for node in dead for n in ast.walk(node)}
            nodes = [n for top in self.old_body for n in ast.walk(top)]
            uses = [n for n in nodes if isinstance(n, ast.Name) and n.id == name]
            if text == "None" and all(id(n) in inside for n in uses):
                edits += [Edit(*self.theirs.block(node), "") for node in dead]
                self.arguments.remove((name, text, value))
        return edits

    def head(self, signature: str) -> str:
        """Return decorators, signature and docstring."""
        pad = " " * self.old.col_offset
        old = [self.theirs.get(self.theirs.span(d)) for d in self.old.decorator_list]
        new = [self.expression(d) for d in self.new.decorator_list if not _of_overlay(d)]
        decorators = [*(d for d in new if d not in old), *old]
        return "".join(f"{pad}@{d}\n" for d in decorators) + signature + self.docstring()

    def own_signature(self) -> str:
        first = self.ours.block(self.new.body[0])[0]
        place = self.ours.offset(self.new.lineno, 0), first
        return as_in_tree(self.ours.get(place, overlay_edits(self.ours, self.new)))

    def signature(self) -> str:
        """Return the old signature, with the parameters and defaults that ours has besides."""
        old, new = {a.arg for a in parameters(self.old)}, parameters(self.new)
        more = [a for a in new if a.arg not in old]
        args, defaults = deepcopy(self.old.args), self.default_changes()
        if not more and not defaults:
            first = self.theirs.block(self.old.body[0])[0]
            return self.theirs.get((self.theirs.offset(self.old.lineno, 0), first))
        if defaults:
            args.defaults = [*defaults, *args.defaults]
        for parameter in more:
            default = self.default_of(parameter)
            if parameter in self.new.args.kwonlyargs:
                args.kwonlyargs.append(parameter)
                args.kw_defaults.append(default)
            else:
                args.args.append(parameter)
                args.defaults.extend([] if default is None else [default])
        returns = f" -> {ast.unparse(self.old.returns)}" if self.old.returns else ""
        pad = " " * self.old.col_offset
        return f"{pad}def {self.old.name}({ast.unparse(args)}){returns}:\n"

    def default_changes(self) -> list[ast.expr]:
        """Return the defaults of the last parameters that have none in the old function."""
        mine = {a.arg: self.default_of(a) for a in parameters(self.new)}
        for name, default in self.defaults.items():
            value = mine.get(name)
            constants = isinstance(value, ast.Constant) and isinstance(default, ast.Constant)
            if constants and ast.unparse(value) != ast.unparse(default):  # type: ignore[arg-type]
                raise self.refusal(f"has another default for {name} than the old one")
        args = [*self.old.args.posonlyargs, *self.old.args.args]
        without = args[: len(args) - len(self.old.args.defaults)]
        return [value for a in without if (value := mine.get(a.arg)) is not None]

    def default_of(self, parameter: ast.arg) -> ast.expr | None:
        args = self.new.args
        if parameter in args.kwonlyargs:
            return args.kw_defaults[args.kwonlyargs.index(parameter)]
        place = args.args.index(parameter) - len(args.args) + len(args.defaults)
        return args.defaults[place] if place >= 0 else None

    def docstring(self) -> str:
        if not has_docstring(self.new):
            if not has_docstring(self.old):
                return ""
            return self.theirs.get(self.theirs.block(self.old.body[0]))
        if not any(_extends(d) for d in self.new.decorator_list):
            return self.ours.get(self.ours.block(self.new.body[0]))
        return merged_docstring(self.old, self.new)

    def expression(self, node: ast.expr) -> str:
        return as_in_tree(self.ours.get(self.ours.span(node), self.edits([node])))

    def edits(self, nodes: Iterable[ast.AST]) -> list[Edit]:
        """Return the changes of our text; an argument in ``kwargs`` has a name in the old signature."""
        names = {a.arg for a in parameters(self.old)}
        found = []
        for node in nodes:
            found += overlay_edits(self.ours, node)
            for part in ast.walk(node):
                key = None
                if isinstance(part, ast.Subscript) and ast.unparse(part.value) == "kwargs":
                    key = part.slice
                elif isinstance(part, ast.Call) and ast.unparse(part.func) == "kwargs.get":
                    key = part.args[0] if len(part.args) == 1 else None
                if isinstance(key, ast.Constant) and key.value in names:
                    assert isinstance(part, ast.expr)
                    found.append(Edit(*self.ours.span(part), str(key.value)))
        return found

    def text_of(self, statements: list[ast.stmt]) -> str:
        pad = " " * self.old.body[0].col_offset
        edits = self.edits(statements)
        texts = [self.ours.get(self.ours.block(s), edits) for s in statements]
        return "".join(indent(dedent(as_in_tree(text)), pad) for text in texts)


def _of_overlay(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).startswith(ONLY_OVERLAY)


def _extends(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).startswith(ONLY_OVERLAY[1])


def merged_docstring(old: Function | ast.ClassDef, new: Function | ast.ClassDef) -> str:
    """Return the docstring of `old` with what that of `new` adds, as a statement."""
    theirs = ast.get_docstring(old, clean=False) or ""
    text = merge_docstrings(theirs, ast.get_docstring(new)) or ""
    pad = " " * old.body[0].col_offset
    raw = "r" if "\\" in text else ""
    opening = "\n" if theirs.startswith("\n") else ""
    body = indent(opening + text, pad)
    return f'{pad}{raw}"""{body if opening else body.lstrip()}{pad}"""\n'
