r"""Whether two expressions are the same, without simplifying either.

Numbers: exact if both are rational; else both are evaluated to 60 and to 120 digits. A value that agrees between the
two is known, and known values are the same if they agree to 1e-40 of their size, however small they are. A value that
shrinks with the precision is zero: it was only rounding.

With variables: at points drawn from their names, in real arithmetic. A point at which one of the two is undefined is
passed over ((x^2-1)/(x-1) is x+1); one at which they differ decides.

A decimal may stand for a number that no decimal gives exactly (1/3, \pi): correctly rounded, with six digits or more.
"""

import random
from collections.abc import Iterator
from fractions import Fraction

from mpmath import mp

from gcpo_mcore.rewarding.mathematics.evaluation import Evaluation, UndefinedError, Value, inexact, is_terminating
from gcpo_mcore.rewarding.mathematics.tree import Apply, Expression, Literal, operations, symbols

DIGITS = (60, 120)
KNOWN = mp.mpf(10) ** -30  # relative change between the two precisions
ZERO = mp.mpf(10) ** -40  # what is left of a value that is only rounding
SAME = mp.mpf(10) ** -40
LEAST_DIGITS = 6  # of a decimal that stands for another number
POINTS = 14
LEAST_POINTS = 4
COUNTED = ("n", "k", "m", "N", "K", "M")  # names of whole numbers, where nothing else is defined


def same(left: Expression, right: Expression) -> bool:
    """Whether they are equal in value, wherever both have one. Infinite ones by their sign."""
    if left == right:
        return True
    if "infinity" in operations(left) | operations(right):
        return infinite(left) is not None and infinite(left) == infinite(right)
    names = symbols(left) | symbols(right)
    if not names:
        return _rounds(left, right) or _rounds(right, left) or bool(same_at(left, right, {}, is_real=False))
    return _same_function(left, right, names)


def infinite(expression: Expression) -> int | None:
    """1 or -1 for an infinity, None for anything else."""
    if not isinstance(expression, Apply):
        return None
    if expression.operation == "infinity":
        return 1
    inner = infinite(expression.operands[0]) if expression.operation == "negative" else None
    return None if inner is None else -inner


def same_at(left: Expression, right: Expression, places: dict[str, Fraction], is_real: bool) -> bool | None:
    """Whether the two agree at these places; None if one has no value there."""
    try:
        first, second = known(left, places, is_real), known(right, places, is_real)
    except UndefinedError:
        return None
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first == second
    with mp.workdps(DIGITS[1]):
        first, second = inexact(first), inexact(second)
        return bool(abs(first - second) <= SAME * max(abs(first), abs(second)))


def known(expression: Expression, places: dict[str, Fraction], is_real: bool) -> Value:
    """The value to many digits. UndefinedError if there is none, or if it depends on the precision."""
    found = []
    for digits in DIGITS:
        with mp.workdps(digits):
            found.append(Evaluation(places, is_real)(expression))
        if isinstance(found[-1], Fraction):
            return found[-1]
    rough, fine = found
    with mp.workdps(DIGITS[1]):
        if abs(fine - rough) <= KNOWN * abs(fine):
            return _without_dust(rough, fine)
        if abs(fine) <= ZERO * abs(rough):
            return Fraction(0)
    raise UndefinedError("it depends on the precision")


def _without_dust(rough: Value, fine: Value) -> Value:
    """A complex value without the part that is only rounding."""
    if not isinstance(fine, mp.mpc):
        return fine
    if abs(fine.imag) <= ZERO * max(abs(fine), abs(rough.imag)):
        return fine.real
    if abs(fine.real) <= ZERO * max(abs(fine), abs(rough.real)):
        return mp.mpc(0, fine.imag)
    return fine


def real_value(expression: Expression) -> Value:
    """The value of a real number to 120 digits, infinities as mpmath's. UndefinedError for anything else."""
    sign = infinite(expression)
    if sign is not None:
        return mp.inf * sign
    if symbols(expression):
        raise UndefinedError("a variable")
    value = known(expression, {}, is_real=False)
    if isinstance(value, mp.mpc):
        raise UndefinedError("a complex number")
    with mp.workdps(DIGITS[1]):
        return inexact(value)


def points(names: set[str], whole: bool = False) -> Iterator[dict[str, Fraction]]:
    """Places to compare at, always the same for the same names: positive, then of both signs, large and small."""
    for number in range(POINTS):
        draw = {name: random.Random(f"{name} {number}") for name in names}
        if whole:
            yield {name: Fraction(d.randint(1, 5) + number) for name, d in draw.items()}
        elif number < POINTS // 2:
            yield {name: Fraction(d.randint(1, 400), 97) for name, d in draw.items()}
        else:
            yield {name: Fraction(d.randint(-900, 900) or 1, 89) for name, d in draw.items()}


def _same_function(left: Expression, right: Expression, names: set[str]) -> bool:
    is_real = "imaginary" not in operations(left) | operations(right)
    verdicts = [same_at(left, right, p, is_real) for p in points(names)]
    if False in verdicts:
        return False
    if verdicts.count(True) >= LEAST_POINTS:
        return True
    if not all(name.partition("_")[0] in COUNTED for name in names):
        return False
    counted = [same_at(left, right, p, is_real) for p in points(names, whole=True)]
    return False not in counted and counted.count(True) >= LEAST_POINTS


def _rounds(decimal: Expression, exact: Expression) -> bool:
    """Whether `decimal`, as written, is `exact` rounded."""
    if isinstance(decimal, Apply) and decimal.operation == "negative" and isinstance(decimal.operands[0], Literal):
        inner = decimal.operands[0]
        decimal = Literal(-inner.value, inner.places, inner.digits)
    if not isinstance(decimal, Literal) or decimal.places is None or decimal.digits < LEAST_DIGITS:
        return False
    if (isinstance(exact, Literal) and exact.places is not None) or is_terminating(exact):
        return False
    try:
        value = real_value(exact)
    except UndefinedError:
        return False
    half = Fraction(1, 2) * Fraction(10) ** -decimal.places
    with mp.workdps(DIGITS[1]):
        return bool(abs(value - inexact(decimal.value)) <= inexact(half))
