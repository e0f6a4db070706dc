"""Whether two answers that were read are the same. The first is the reference.

What is not said to be the same here is not: a point is no list, a list of two is no number, five metres are no seconds.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from mpmath import mp

from gcpo_mcore.rewarding.mathematics.answers import (
    Answer,
    Joined,
    Matrix,
    Member,
    Named,
    NumberSet,
    Ordered,
    Ratio,
    Related,
    Scalar,
    Several,
    Words,
)
from gcpo_mcore.rewarding.mathematics.domains import domain_of, same_domain
from gcpo_mcore.rewarding.mathematics.evaluation import UndefinedError, inexact
from gcpo_mcore.rewarding.mathematics.sameness import DIGITS, SAME, known, points, real_value, same
from gcpo_mcore.rewarding.mathematics.tree import (
    Apply,
    Expression,
    Literal,
    Symbol,
    negative,
    operations,
    symbols,
)
from gcpo_mcore.rewarding.mathematics.units import DEGREE, RADIAN, Unit

MAX_ITEMS = 40  # compared each with each
HUNDRED = Literal(Fraction(100))
SETS = Several | Ordered | Related | Member | NumberSet | Joined


def equal(reference: Answer, given: Answer) -> bool:
    """Whether `given` says the same as `reference`."""
    if isinstance(reference, Named) or isinstance(given, Named):
        return _named(reference, given)
    if isinstance(reference, Scalar) and isinstance(given, Scalar):
        return _scalars(reference, given)
    if isinstance(reference, Related) and isinstance(given, Related) and _relations(reference, given):
        return True
    if isinstance(reference, Ordered) and isinstance(given, Ordered):
        return _ordered(reference, given)
    if isinstance(reference, Matrix) or isinstance(given, Matrix):
        return _matrices(_matrix(reference, given), _matrix(given, reference))
    if isinstance(reference, Several) and isinstance(given, Several) and _unordered(reference, given):
        return True
    if isinstance(reference, Ratio) or isinstance(given, Ratio):
        return _ratios(reference, given)
    if isinstance(reference, Words) or isinstance(given, Words):
        return reference == given
    if isinstance(reference, Several) != isinstance(given, Several) and _point_by_names(reference, given):
        return True
    if single := _single(reference, given):
        return equal(*single)
    if isinstance(reference, Joined | NumberSet | Member) and reference == given:
        return True
    if isinstance(reference, Member) and isinstance(reference.domain, Several) and isinstance(given, Several):
        return equal(reference.domain, given)
    if isinstance(given, Member) and isinstance(given.domain, Several) and isinstance(reference, Several):
        return equal(reference, given.domain)
    return _domains(reference, given)


# numbers and formulas


def _scalars(reference: Scalar, given: Scalar) -> bool:
    return any(same(a, b) for a, b in _readings(reference, given))


def _readings(reference: Scalar, given: Scalar) -> list[tuple[Expression, Expression]]:
    """The pairs of values of which one has to agree."""
    left, right = reference.expression, given.expression
    if reference.is_percent != given.is_percent:  # a unit (10 for 10%) or a factor (0.1 for 10%)
        if reference.unit or given.unit:
            return []
        if reference.is_percent:
            return [(left, right), (_share(left), right)]
        return [(left, _share(right)), *([(left, right)] if _is_above_one(right) else [])]
    if reference.unit is None or given.unit is None:
        pairs = [(left, right)]
        if DEGREE in (reference.unit, given.unit) and "pi" in operations(left) | operations(right):
            pairs += [(_radians(left), right)] if reference.unit == DEGREE else [(left, _radians(right))]
        return pairs
    if {reference.unit, given.unit} == {DEGREE, RADIAN}:
        return [(_radians(left), right) if reference.unit == DEGREE else (left, _radians(right))]
    if not reference.unit.quantities or not given.unit.quantities:
        return [(left, right)]
    if reference.unit.quantities != given.unit.quantities:
        return []
    return [(_sized(left, reference.unit), _sized(right, given.unit))]


def _is_above_one(expression: Expression) -> bool:
    """Whether it may be a number of percents whose sign was not asked for: 0.05 is not answered by 0.05%."""
    try:
        return abs(real_value(expression)) > 1
    except UndefinedError:
        return False


def _share(expression: Expression) -> Expression:
    return Apply("quotient", (expression, HUNDRED))


def _radians(expression: Expression) -> Expression:
    return Apply("degrees", (expression,))


def _sized(expression: Expression, unit: Unit) -> Expression:
    return expression if unit.size == 1 else Apply("product", (Literal(unit.size), expression))


# names and relations


def _named(reference: Answer, given: Answer) -> bool:
    if isinstance(reference, Named) and isinstance(given, Named):
        if _same_names(reference, given) and equal(reference.value, given.value):
            return True
        return reference.kind in ("symbol", "call") and _functions(reference, given)
    if isinstance(reference, Named):
        if isinstance(given, Related):
            return not _is_solved(reference) and _functions(reference, given)
        if isinstance(given, Several) and reference.kind == "point":
            return _point_by_names(reference.value, given, reference.name.strip("()").split(","))
        if isinstance(given, Several) and len(given.items) == 1 and not isinstance(reference.value, Several):
            return equal(reference, given.items[0])
        return reference.kind != "composite" and equal(reference.value, given)
    assert isinstance(given, Named)
    if isinstance(reference, Related):
        return (not _is_solved(given)) and _functions(reference, given)
    if isinstance(reference, Several) and given.kind == "point":
        return _point_by_names(given.value, reference, given.name.strip("()").split(","))
    if isinstance(reference, Several) and len(reference.items) == 1 and not isinstance(given.value, Several):
        return equal(reference.items[0], given)
    if given.kind == "symbol" and given.name in _free(given.value):
        return False
    return equal(reference, given.value)


def _same_names(reference: Named, given: Named) -> bool:
    """Two letters have to be the same one; what is said in words may be called as one likes."""
    if "words" in (reference.kind, given.kind):
        return True
    if "composite" in (reference.kind, given.kind) or reference.kind == given.kind:
        return reference.name == given.name
    return {reference.kind, given.kind} == {"symbol", "call"} and not (_is_solved(reference) or _is_solved(given))


def _is_solved(named: Named) -> bool:
    """x = 3, rather than y = 2x + 1."""
    return not (isinstance(named.value, Scalar) and symbols(named.value.expression))


def _free(answer: Answer) -> set[str]:
    return symbols(answer.expression) if isinstance(answer, Scalar) else set()


def _functions(reference: Named | Related, given: Named | Related) -> bool:
    """Whether two equations say the same: the difference of the sides of one is a multiple of the other's."""
    left, right = _difference(reference), _difference(given)
    return left is not None and right is not None and _proportional(left, right) is not None


def _difference(equation: Named | Related) -> Expression | None:
    if isinstance(equation, Related):
        one = equation.signs == ("=",)
        return Apply("sum of", (equation.sides[0], negative(equation.sides[1]))) if one else None
    if equation.kind != "symbol" or not isinstance(equation.value, Scalar) or equation.value.unit:
        return None
    return Apply("sum of", (Symbol(equation.name), negative(equation.value.expression)))


def _proportional(left: Expression, right: Expression) -> int | None:
    """The sign of left / right if that is one number; None if it is not."""
    names = symbols(left)
    if names != symbols(right) or not names:
        return None
    ratio = Apply("quotient", (left, right))
    values = []
    for place in points(names):
        try:
            values.append(known(ratio, place, is_real=True))
        except UndefinedError:
            continue
    if len(values) < 4 or any(v == 0 for v in values):
        return None
    if all(isinstance(v, Fraction) for v in values):
        constant = values[0] if len(set(values)) == 1 else None
    else:
        with mp.workdps(DIGITS[1]):
            floats = [inexact(v) for v in values]
            near = all(abs(v - floats[0]) <= SAME * abs(floats[0]) for v in floats)
        constant = floats[0] if near else None
    return None if constant is None else 1 if constant > 0 else -1


def _relations(reference: Related, given: Related) -> bool:
    """Equations and inequalities of several variables, one sign each; or the same sides in the same order."""
    if len(reference.signs) == len(given.signs) == 1 and domain_of(reference) is None:
        first, second = reference.signs[0], given.signs[0]
        left, right = (Apply("sum of", (r.sides[0], negative(r.sides[1]))) for r in (reference, given))
        sign = _proportional(left, right)
        if sign is None:
            return False
        turned = {"<": ">", ">": "<", "le": "ge", "ge": "le"}
        return first == (second if sign > 0 else turned.get(second, second))
    if reference.signs != given.signs:
        return False
    return all(same(a, b) for a, b in zip(reference.sides, given.sides, strict=True))


# several, in order or not


def _unordered(reference: Several, given: Several) -> bool:
    """Every one of the reference's among the given, and the other way round."""
    if len(reference.items) > MAX_ITEMS or len(given.items) > MAX_ITEMS:
        return reference.items == given.items
    if (reference.joint == "or") != (given.joint == "or") and not all(map(_is_value, reference.items)):
        return False  # conditions, names or words of which one or all are meant
    if _has_several_names(reference) != _has_several_names(given):
        return False  # 3, 2 does not say which is m
    left, right = _distinct(reference), _distinct(given)
    if len(left) != len(right):
        return False
    rest = list(right)
    for item in left:
        match = next((i for i, other in enumerate(rest) if equal(item, other)), None)
        if match is None:
            return False
        rest.pop(match)
    return True


def _is_value(answer: Answer) -> bool:
    """Whether it is a value, rather than a condition, a word, or the letter of a choice."""
    if isinstance(answer, Named):
        return _is_value(answer.value)
    is_letter = (
        isinstance(answer, Scalar) and isinstance(answer.expression, Symbol) and answer.expression.name.isupper()
    )
    return not (isinstance(answer, Related | Member | Words) or is_letter)


def _has_several_names(several: Several) -> bool:
    return len({_base_name(i) for i in several.items if isinstance(i, Named)}) > 1


def _base_name(named: Named) -> str:
    """x of x_1 and x_2."""
    return named.name.partition("_")[0] if named.kind == "symbol" else named.name


def _distinct(several: Several) -> list[Answer]:
    """A set has each element once; x = 1 or x = 2 says two numbers; names that differ stay with their values."""
    items = list(several.items)
    named = [i for i in items if isinstance(i, Named) and _is_solved(i)]
    if len(named) == len(items) and not _has_several_names(several):
        items = [i.value for i in named]
    if several.joint != "{":
        return items
    kept: list[Answer] = []
    for item in items:
        if not any(equal(item, other) for other in kept):
            kept.append(item)
    return kept


def _single(reference: Answer, given: Answer) -> tuple[Answer, Answer] | None:
    """A set of one element beside its element."""
    if isinstance(reference, Several) and len(reference.items) == 1 and not isinstance(given, Several):
        return reference.items[0], given
    if isinstance(given, Several) and len(given.items) == 1 and not isinstance(reference, Several):
        return reference, given.items[0]
    return None


def _ordered(reference: Ordered, given: Ordered) -> bool:
    brackets = (reference.left, reference.right) == (given.left, given.right)
    return brackets and _in_order(reference.items, given.items)


def _in_order(left: Sequence[Answer], right: Sequence[Answer]) -> bool:
    return len(left) == len(right) and all(equal(a, b) for a, b in zip(left, right, strict=True))


def _point_by_names(point: Answer, several: Answer, names: Sequence[str] | None = None) -> bool:
    """(1,2) and x = 1, y = 2, in the names' own order if none is given."""
    if isinstance(point, Several):
        point, several = several, point
    if not isinstance(point, Ordered) or not isinstance(several, Several) or (point.left, point.right) != ("(", ")"):
        return False
    values = {i.name: i.value for i in several.items if isinstance(i, Named) and i.kind == "symbol"}
    if len(values) != len(several.items) or several.joint == "or":
        return False
    order = list(names) if names else sorted(values)
    return sorted(order) == sorted(values) and _in_order(point.items, [values[name] for name in order])


def _matrix(answer: Answer, other: Answer) -> Matrix | None:
    """The answer as a matrix; a point beside a row or a column is one of these."""
    if isinstance(answer, Matrix):
        return answer
    if isinstance(answer, Ordered) and (answer.left, answer.right) == ("(", ")") and isinstance(other, Matrix):
        if len(other.rows) == 1:
            return Matrix((answer.items,))
        return Matrix(tuple((item,) for item in answer.items))
    return None


def _matrices(left: Matrix | None, right: Matrix | None) -> bool:
    if left is None or right is None or len(left.rows) != len(right.rows):
        return False
    return all(_in_order(a, b) for a, b in zip(left.rows, right.rows, strict=True))


def _ratios(reference: Answer, given: Answer) -> bool:
    """3:4 is 6:8 and 3/4; what may be a time of day is only itself, or the same two numbers as a fraction."""
    if isinstance(reference, Ratio) and isinstance(given, Ratio):
        left, right = reference.parts, given.parts
        if len(left) != len(right):
            return False
        if reference.may_be_time or given.may_be_time:
            return all(same(a, b) for a, b in zip(left, right, strict=True))
        return all(
            same(Apply("product", (a, d)), Apply("product", (b, c)))
            for (a, b), (c, d) in zip(pairwise(left), pairwise(right), strict=True)
        )
    ratio, other = (reference, given) if isinstance(reference, Ratio) else (given, reference)
    if not isinstance(ratio, Ratio) or len(ratio.parts) != 2 or not isinstance(other, Scalar) or other.unit:
        return False
    quotient = Apply("quotient", ratio.parts)
    return other.expression == quotient if ratio.may_be_time else same(quotient, other.expression)


def _domains(reference: Answer, given: Answer) -> bool:
    """As sets of numbers. A list is no interval, and a single number no set."""
    if not isinstance(reference, SETS) or not isinstance(given, SETS):
        return False
    if any(isinstance(a, Ordered) for a in (reference, given)) and any(
        isinstance(a, Several) and all(isinstance(i, Scalar) for i in a.items) for a in (reference, given)
    ):
        return False
    left, right = domain_of(reference), domain_of(given)
    return left is not None and right is not None and same_domain(left, right)
