"""The value of an expression: a Fraction where it is exact, else mpmath's numbers at a given precision.

Nothing is simplified and nothing searched, so an evaluation ends. UndefinedError for what has no value (1/0), or none
that is worth its cost (9^9^9^9).
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from mpmath import mp

from gcpo_mcore.rewarding.mathematics.tree import Expression, Literal, Symbol

MAX_BITS = 200_000  # of an exact number
MAX_EXPONENT = 10**6  # of e, in what a power may be
MAX_ARGUMENT = 5_000  # of a factorial or a binomial
MAX_TERMS = 2_000  # of a sum or product over an index
MAX_STEPS = 20_000  # operations in one evaluation
GUARD_DIGITS = 30  # this near an integer a value is one, for floor and ceil

Value = Any  # Fraction, mpf or mpc; mpmath has no types


class UndefinedError(ArithmeticError):
    """The expression has no value here."""


class Evaluation:
    """evaluate = Evaluation({'x': Fraction(1, 3)}, is_real=True); evaluate(expression). At mpmath's precision of now.

    is_real: roots and logarithms of negative numbers are undefined (odd roots are real); otherwise principal values.
    """

    def __init__(self, places: Mapping[str, Fraction], is_real: bool):
        self.places, self.is_real, self.steps = dict(places), is_real, 0

    def __call__(self, expression: Expression) -> Value:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise UndefinedError("too many steps")
        if isinstance(expression, Literal):
            return expression.value
        if isinstance(expression, Symbol):
            return self.places[expression.name]
        if expression.operation in SERIES:
            return SERIES[expression.operation](self, *expression.operands)
        try:
            operation = OPERATIONS[expression.operation]
        except KeyError:
            raise UndefinedError(f"no value of {expression.operation}") from None
        try:
            return _bounded(operation(self, *(self(o) for o in expression.operands)))
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            raise UndefinedError(str(error)) from error


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise UndefinedError("too large")
        return value
    if not mp.isfinite(value):
        raise UndefinedError("not finite")
    return value.real if isinstance(value, mp.mpc) and value.imag == 0 else value


def inexact(value: Value) -> Value:
    """The value as an mpf or mpc."""
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _exact(*values: Value) -> bool:
    return all(isinstance(v, Fraction) for v in values)


def _both(exact: Callable[..., Value]) -> Callable[..., Value]:
    def operation(_: Evaluation, *values: Value) -> Value:
        return exact(*values) if _exact(*values) else exact(*(inexact(v) for v in values))

    return operation


def _whole(value: Value) -> int:
    """The integer that a value is. UndefinedError if it is none, or too large."""
    if not isinstance(value, Fraction) or value.denominator != 1 or abs(value) > 10**12:
        raise UndefinedError("not an integer")
    return value.numerator


def _sum(*values: Value) -> Value:
    return sum(values[1:], values[0])


def _power(at: Evaluation, base: Value, exponent: Value) -> Value:
    if _exact(exponent) and exponent.denominator == 1:
        if base == 0 and exponent <= 0:
            raise UndefinedError("0^0")
        if _exact(base):
            size = max(base.numerator.bit_length(), base.denominator.bit_length())
            if size * abs(exponent.numerator) > MAX_BITS:
                raise UndefinedError("too large")
            return base**exponent.numerator
    if base == 0:
        if isinstance(exponent, mp.mpc) or exponent <= 0:
            raise UndefinedError("0 to a power")
        return Fraction(0)
    if (
        at.is_real
        and not isinstance(base, mp.mpc)
        and base < 0
        and not (_exact(exponent) and exponent.denominator == 1)
    ):
        raise UndefinedError("a negative base")
    root = _exact_root(base, exponent.denominator) if _exact(base, exponent) else None
    if root is not None:
        return _power(at, root, Fraction(exponent.numerator))
    base, exponent = inexact(base), inexact(exponent)
    if abs(exponent * mp.log(base)) > MAX_EXPONENT:
        raise UndefinedError("too large")
    return mp.power(base, exponent)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The rational root of a number that is not negative; None if it is not rational."""
    if value < 0 or degree > 64:
        return None
    parts = [_integer_root(part, degree) for part in (value.numerator, value.denominator)]
    return None if None in parts else Fraction(parts[0] or 0, parts[1] or 1)


def _integer_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(value)
    else:
        root = 1 << -(-value.bit_length() // degree)  # not below the root; Newton's steps come down to it
        while value and (lower := ((degree - 1) * root + value // root ** (degree - 1)) // degree) < root:
            root = lower
        root = root if value else 0
    return root if root**degree == value else None


def _root(at: Evaluation, value: Value, degree: Value) -> Value:
    order = _whole(degree)
    if order < 2:
        raise UndefinedError("a root of that degree")
    if not isinstance(value, mp.mpc) and value < 0 and order % 2:
        return -_power(at, -value, Fraction(1, order))
    return _power(at, value, Fraction(1, order))


def _log(at: Evaluation, value: Value, base: Value = Fraction(10)) -> Value:
    if _exact(value, base) and value > 0 and base > 1 and base.denominator == 1:
        exponent = round(float(mp.log(inexact(value)) / mp.log(inexact(base))))
        if abs(exponent) < 10_000 and base**exponent == value:
            return Fraction(exponent)
    return _ln(at, value) / _ln(at, base)


def _ln(at: Evaluation, value: Value) -> Value:
    if value == 0 or (at.is_real and not isinstance(value, mp.mpc) and value < 0):
        raise UndefinedError("a logarithm")
    return Fraction(0) if value == 1 else mp.log(inexact(value))


def _exp(_: Evaluation, value: Value) -> Value:
    if abs(value) > MAX_EXPONENT:
        raise UndefinedError("too large")
    return Fraction(1) if value == 0 else mp.exp(inexact(value))


def _of(function: Callable[[Value], Value], limit: float | None = None) -> Callable[..., Value]:
    """A function of mpmath; limit: the largest argument for which it is real."""

    def operation(at: Evaluation, value: Value) -> Value:
        if abs(value) > 10**30 or (limit and at.is_real and abs(value) > limit):
            raise UndefinedError("out of its domain")
        return function(inexact(value))

    return operation


def _rounded(exact: Callable[[Fraction], int], inexactly: Callable[[Value], Value]) -> Callable[..., Value]:
    def operation(_: Evaluation, value: Value) -> Value:
        if _exact(value):
            return Fraction(exact(value))
        if isinstance(value, mp.mpc) or abs(value) > 10**15:
            raise UndefinedError("cannot be rounded")
        near = mp.nint(value)
        return Fraction(int(near if abs(value - near) < mp.mpf(10) ** -GUARD_DIGITS else inexactly(value)))

    return operation


def _factorial(_: Evaluation, value: Value) -> Value:
    if _exact(value) and value.denominator == 1:
        if not 0 <= value <= MAX_ARGUMENT:
            raise UndefinedError("a factorial")
        return Fraction(math.factorial(value.numerator))
    if isinstance(value, mp.mpc) or abs(value) > MAX_ARGUMENT:
        raise UndefinedError("a factorial")
    return mp.factorial(inexact(value))


def _binomial(_: Evaluation, total: Value, chosen: Value) -> Value:
    if abs(total) > MAX_ARGUMENT or abs(chosen) > MAX_ARGUMENT:
        raise UndefinedError("a binomial")
    if _exact(total, chosen) and total.denominator == chosen.denominator == 1 and total >= 0:
        return Fraction(math.comb(total.numerator, chosen.numerator)) if chosen >= 0 else Fraction(0)
    return mp.binomial(inexact(total), inexact(chosen))


def _over_index(join: Callable[[Value, Value], Value], start: int) -> Callable[..., Value]:
    """A sum or a product over an index: both bounds are integers."""

    def operation(at: Evaluation, index: Expression, low: Expression, high: Expression, body: Expression) -> Value:
        assert isinstance(index, Symbol)
        first, last = _whole(at(low)), _whole(at(high))
        if last - first > MAX_TERMS:
            raise UndefinedError("too many terms")
        total: Value = Fraction(start)
        for i in range(first, last + 1):
            at.places[index.name] = Fraction(i)
            value = at(body)
            exact = _exact(total, value)
            total = _bounded(join(total, value) if exact else join(inexact(total), inexact(value)))
        return total

    return operation


def _integral(at: Evaluation, index: Expression, low: Expression, high: Expression, body: Expression) -> Value:
    assert isinstance(index, Symbol)
    bounds = [inexact(at(low)), inexact(at(high))]

    def integrand(x: Value) -> Value:
        at.places[index.name] = x
        return inexact(at(body))

    return mp.quad(integrand, bounds)


def _whole_numbers(function: Callable[..., int]) -> Callable[..., Value]:
    def operation(_: Evaluation, *values: Value) -> Value:
        return Fraction(function(*(_whole(v) for v in values)))

    return operation


def _extreme(function: Callable[..., Value]) -> Callable[..., Value]:
    def operation(_: Evaluation, *values: Value) -> Value:
        if any(isinstance(v, mp.mpc) for v in values):
            raise UndefinedError("complex numbers have no order")
        return function(values, key=inexact)

    return operation


SERIES: dict[str, Callable[..., Value]] = {
    "sum": _over_index(lambda a, b: a + b, 0),
    "product over": _over_index(lambda a, b: a * b, 1),
    "integral": _integral,
}
OPERATIONS: dict[str, Callable[..., Value]] = {
    "sum of": _both(_sum),
    "product": _both(lambda a, b: a * b),
    "quotient": _both(lambda a, b: a / b),
    "negative": _both(lambda a: -a),
    "power": _power,
    "root": _root,
    "factorial": _factorial,
    "binomial": _binomial,
    "percent": _both(lambda a: a / 100),
    "degrees": lambda _, a: inexact(a) * mp.pi / 180,
    "abs": _both(abs),
    "floor": _rounded(math.floor, mp.floor),
    "ceil": _rounded(math.ceil, mp.ceil),
    "pi": lambda _: +mp.pi,
    "euler": lambda _: +mp.e,
    "imaginary": lambda _: mp.mpc(0, 1),
    "ln": _ln,
    "log": _log,
    "exp": _exp,
    "sin": _of(mp.sin),
    "cos": _of(mp.cos),
    "tan": _of(mp.tan),
    "cot": _of(mp.cot),
    "sec": _of(mp.sec),
    "csc": _of(mp.csc),
    "arcsin": _of(mp.asin, 1),
    "arccos": _of(mp.acos, 1),
    "arctan": _of(mp.atan),
    "arccot": _of(lambda x: mp.pi / 2 - mp.atan(x)),
    "sinh": _of(mp.sinh),
    "cosh": _of(mp.cosh),
    "tanh": _of(mp.tanh),
    "coth": _of(mp.coth),
    "arsinh": _of(mp.asinh),
    "arcosh": _of(mp.acosh),
    "artanh": _of(mp.atanh, 1),
    "min": _extreme(min),
    "max": _extreme(max),
    "gcd": _whole_numbers(math.gcd),
    "lcm": _whole_numbers(math.lcm),
}


def is_terminating(expression: Expression) -> bool:
    """Whether it is a fraction, or a number as written, that a decimal of finite length gives exactly."""
    try:
        value = Evaluation({}, is_real=True)(expression)
    except (UndefinedError, KeyError):
        return False
    if not isinstance(value, Fraction):
        return False
    bottom = value.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    return bottom == 1
