"""Expressions as trees."""

from dataclasses import dataclass
from fractions import Fraction


class UnreadableError(ValueError):
    """A text, or a part of it, that is not read: nothing may be concluded from the rest."""


@dataclass(frozen=True)
class Literal:
    """A number as written. places: its digits after the point, None if it has no point; digits: all but leading 0s."""

    value: Fraction
    places: int | None = None
    digits: int = 0


@dataclass(frozen=True)
class Symbol:
    """A variable, with its subscript if it has one."""

    name: str


@dataclass(frozen=True)
class Apply:
    """An operation (see evaluation.OPERATIONS) on its operands."""

    operation: str
    operands: tuple["Expression", ...] = ()


Expression = Literal | Symbol | Apply

PI, EULER, IMAGINARY, INFINITY = Apply("pi"), Apply("euler"), Apply("imaginary"), Apply("infinity")


def words(text: str) -> frozenset[str]:
    """The words of a text: a set of names, in fewer signs."""
    return frozenset(text.split())


def integer(expression: Expression) -> int | None:
    """The value of an integer as written without a point; None for anything else."""
    whole = isinstance(expression, Literal) and expression.places is None and expression.value.denominator == 1
    return expression.value.numerator if whole and isinstance(expression, Literal) else None


def negative(expression: Expression) -> Expression:
    """The expression with its sign turned."""
    if isinstance(expression, Literal):
        return Literal(-expression.value, expression.places, expression.digits)
    if isinstance(expression, Apply) and expression.operation == "negative":
        return expression.operands[0]
    return Apply("negative", (expression,))


def operations(expression: Expression) -> set[str]:
    """The names of all operations in it."""
    if not isinstance(expression, Apply):
        return set()
    return {expression.operation}.union(*(operations(o) for o in expression.operands))


def symbols(expression: Expression) -> set[str]:
    """The names of the free variables in it."""
    if isinstance(expression, Symbol):
        return {expression.name}
    if isinstance(expression, Literal):
        return set()
    found: set[str] = set().union(*(symbols(o) for o in expression.operands))
    if expression.operation in ("sum", "product over", "integral"):
        index, low, high, body = expression.operands
        return symbols(low) | symbols(high) | (symbols(body) - symbols(index))
    return found


def replace(expression: Expression, old: str, new: str) -> Expression:
    """The expression with the operation `old` called `new`; 'same' leaves its operand, 'negative' turns its sign."""
    if not isinstance(expression, Apply):
        return expression
    operands = tuple(replace(o, old, new) for o in expression.operands)
    if expression.operation != old:
        return Apply(expression.operation, operands)
    if new == "same":
        return operands[0]
    return negative(operands[0]) if new == "negative" else Apply(new, operands)
