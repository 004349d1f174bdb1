"""
C{attrs} for this package: records like its own, that take less memory.

attrs writes and compiles for each class anew how two instances are compared, and how
one is hashed and shown, and makes a class for the tuple of its fields. With a hundred
and fifty classes that is 1.5 MiB, which stays. What it makes differs only by the names
of the fields; so here one function for all classes does each. The rest is attrs: every
class is one of its own, also for C{evolve} and for the type checker.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Final

import attrs
from attrs import (
    NOTHING,
    Attribute,
    AttrsInstance,
    Factory,
    asdict,
    evolve,
    field,
    fields,
    validators,
)

if TYPE_CHECKING:
    from attrs import define, frozen

__all__ = [
    "NOTHING",
    "Attribute",
    "AttrsInstance",
    "Factory",
    "asdict",
    "define",
    "evolve",
    "field",
    "fields",
    "frozen",
    "validators",
]


class _Fields(tuple[Any, ...]):
    """What C{fields} gives: those of a class, also by their names."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        for each in self:
            if each.name == name:
                return each
        raise AttributeError(name)


# Records are Any here: they have no class in common. What is given back is a bool or
# NotImplemented.
def _compare(record: Any, other: Any) -> Any:
    if other.__class__ is not record.__class__:
        return NotImplemented
    compared = record.__compared__
    return compared(record) == compared(other)


def _hash(record: Any) -> int:
    return hash(record.__compared__(record))


@recursive_repr("...")
def _show(record: Any) -> str:
    shown = []
    for each in fields(record.__class__):
        if each.repr:
            show = repr if each.repr is True else each.repr
            shown.append(f"{each.name}={show(getattr(record, each.name, NOTHING))}")
    name = record.__class__.__qualname__.rpartition(">.")[2]
    return f"{name}({', '.join(shown)})"


_NOTHING: Final = staticmethod(lambda record: ())


def _make(
    decorate: Callable[..., type],
    cls: type | None = None,
    *,
    eq: bool = True,
    **options: Any,
) -> Any:
    """
    @param decorate: of attrs.
    @param cls: what is decorated; C{None}: to be given later.
    @param eq: whether instances are compared by their fields.
    @param options: for attrs.
    @return: the class; without one, what takes it.
    """
    if cls is None:
        return partial(_make, decorate, eq=eq, **options)
    written = cls.__dict__
    made = decorate(cls, repr=False, eq=False, **options)
    made.__attrs_attrs__ = _Fields(fields(made))  # type: ignore[attr-defined]
    if "__repr__" not in written:
        made.__repr__ = _show  # type: ignore[method-assign,assignment]
    if eq and "__eq__" not in written:
        names = [each.name for each in fields(made) if each.eq]
        made.__compared__ = attrgetter(*names) if names else _NOTHING  # type: ignore[attr-defined]
        made.__eq__ = _compare  # type: ignore[method-assign,assignment]
        if "__hash__" not in written:
            made.__hash__ = _hash if decorate is attrs.frozen else None  # type: ignore[method-assign,assignment]
    return made


if not TYPE_CHECKING:
    define = partial(_make, attrs.define)
    frozen = partial(_make, attrs.frozen)
