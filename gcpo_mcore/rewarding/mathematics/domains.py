r"""Sets of real numbers as pieces: [1,2), x > 3, \mathbb{R} \setminus \{0\}, \{1, 2\}, -1 < x \le 5."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key

from gcpo_mcore.rewarding.mathematics.answers import (
    Answer,
    Joined,
    Member,
    Named,
    NumberSet,
    Ordered,
    Related,
    Scalar,
    Several,
)
from gcpo_mcore.rewarding.mathematics.evaluation import UndefinedError
from gcpo_mcore.rewarding.mathematics.sameness import real_value, same, same_at
from gcpo_mcore.rewarding.mathematics.tree import (
    INFINITY,
    Expression,
    Symbol,
    negative,
    symbols,
)

MINUS_INFINITY = negative(INFINITY)
TURNED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "ne": "ne", "=": "="}


@dataclass(frozen=True)
class Piece:
    """All numbers from `low` to `high`, with or without these two."""

    low: Expression
    has_low: bool
    high: Expression
    has_high: bool


ALL = Piece(MINUS_INFINITY, False, INFINITY, False)
Pieces = tuple[Piece, ...]


@dataclass(frozen=True)
class Domain:
    """Pieces in their order, none touching the next; name: the variable that is restricted, '' if none is named."""

    pieces: Pieces
    name: str = ""


def domain_of(answer: Answer) -> Domain | None:
    """The answer as a set of real numbers; None if it is none, or one that is not understood."""
    try:
        return _domain(answer)
    except (UndefinedError, LookupError):
        return None


def same_domain(left: Domain, right: Domain) -> bool:
    """Whether the two are the same set, of the same variable if both name one."""
    if left.name and right.name and left.name != right.name:
        return False
    pairs = list(zip(left.pieces, right.pieces, strict=False))
    return len(left.pieces) == len(right.pieces) and all(
        (a.has_low, a.has_high) == (b.has_low, b.has_high) and same(a.low, b.low) and same(a.high, b.high)
        for a, b in pairs
    )


def _domain(answer: Answer) -> Domain | None:
    if isinstance(answer, NumberSet):
        return Domain((ALL,)) if answer.name == "R" else None
    if isinstance(answer, Ordered):
        return _interval(answer)
    if isinstance(answer, Related):
        return _solved(answer)
    if isinstance(answer, Member):
        inner = _domain(answer.domain)
        if inner is None or inner.name not in ("", answer.name):
            return None
        return Domain(inner.pieces, answer.name)
    if isinstance(answer, Named):
        inner = domain_of(answer.value) if answer.kind in ("symbol", "words") else None
        if isinstance(answer.value, Scalar) and answer.kind == "symbol":
            return Domain(_points([answer.value]), answer.name)
        return inner
    if isinstance(answer, Joined):
        return _joined(answer)
    return _several(answer) if isinstance(answer, Several) else None


def _interval(answer: Ordered) -> Domain | None:
    if len(answer.items) != 2:
        return None
    low, high = (item.expression if isinstance(item, Scalar) and not item.unit else None for item in answer.items)
    if low is None or high is None or not real_value(low) < real_value(high):
        return None
    return Domain((Piece(low, answer.left == "[", high, answer.right == "]"),))


def _points(items: Sequence[Answer]) -> Pieces:
    found = []
    for item in items:
        if not isinstance(item, Scalar) or item.unit or item.is_percent:
            raise UndefinedError("no number")
        real_value(item.expression)
        found.append(Piece(item.expression, True, item.expression, True))
    return _tidy(found)


def _several(answer: Several) -> Domain | None:
    """Numbers, or conditions: 'or' joins them, 'and' and a comma have all of them hold."""
    if all(isinstance(item, Scalar) for item in answer.items):
        return Domain(_points(answer.items)) if answer.joint == "{" else None
    if answer.joint in ("{", "pm"):
        return None
    found = [_domain(item) for item in answer.items]
    names = {d.name for d in found if d is not None and d.name}
    if None in found or len(names) > 1 or not any(isinstance(i, Related | Member) for i in answer.items):
        return None
    domains = [d for d in found if d is not None]
    pieces = domains[0].pieces
    for domain in domains[1:]:
        pieces = _union(pieces, domain.pieces) if answer.joint == "or" else _common(pieces, domain.pieces)
    return Domain(pieces, names.pop() if names else "")


def _joined(answer: Joined) -> Domain | None:
    left, right = _domain(answer.left), _domain(answer.right)
    if left is None or right is None:
        return None
    name = left.name or right.name
    if answer.sign == "cup":
        return Domain(_union(left.pieces, right.pieces), name)
    if answer.sign == "cap":
        return Domain(_common(left.pieces, right.pieces), name)
    return Domain(_common(left.pieces, _rest(right.pieces)), name)


# inequalities


def _solved(answer: Related) -> Domain | None:
    """A chain of inequalities in one variable, each of them solved for it."""
    names = set().union(*(symbols(side) for side in answer.sides))
    if len(names) != 1:
        return None
    (name,) = names
    pieces: Pieces = (ALL,)
    for left, sign, right in zip(answer.sides, answer.signs, answer.sides[1:], strict=False):
        solved = _bound(left, sign, right, name)
        if solved is None:
            return None
        pieces = _common(pieces, solved)
    return Domain(pieces, name)


def _bound(left: Expression, sign: str, right: Expression, name: str) -> Pieces | None:
    """Where x > 3 or 3 < x holds; None if x does not stand by itself: 2x > 6 is not solved."""
    if left == Symbol(name) and not symbols(right):
        return _half(sign, right)
    if right == Symbol(name) and not symbols(left):
        return _half(TURNED[sign], left)
    return None


def _half(sign: str, at: Expression) -> Pieces | None:
    real_value(at)
    if sign == "ne":
        return _rest((Piece(at, True, at, True),))
    if sign in ("<", "le"):
        return (Piece(MINUS_INFINITY, False, at, sign == "le"),)
    if sign in (">", "ge"):
        return (Piece(at, sign == "ge", INFINITY, False),)
    return (Piece(at, True, at, True),)


# pieces


def _order(left: Expression, right: Expression) -> int:
    """-1, 0 or 1."""
    if same_at(left, right, {}, is_real=False) or left == right:
        return 0
    return -1 if real_value(left) < real_value(right) else 1


def _by_low(left: Piece, right: Piece) -> int:
    return _order(left.low, right.low) or int(right.has_low) - int(left.has_low)


def _tidy(pieces: Sequence[Piece]) -> Pieces:
    """Pieces in their order, those that touch made one."""
    made: list[Piece] = []
    for piece in sorted(pieces, key=cmp_to_key(_by_low)):
        if made:
            last = made[-1]
            order = _order(piece.low, last.high)
            if order < 0 or (order == 0 and (piece.has_low or last.has_high)):
                further = _order(piece.high, last.high)
                high = piece.high if further > 0 else last.high
                has_high = (
                    (last.has_high or piece.has_high) if further == 0 else (piece if further > 0 else last).has_high
                )
                made[-1] = Piece(last.low, last.has_low, high, has_high)
                continue
        made.append(piece)
    return tuple(made)


def _union(left: Pieces, right: Pieces) -> Pieces:
    return _tidy([*left, *right])


def _common(left: Pieces, right: Pieces) -> Pieces:
    found = []
    for a in left:
        for b in right:
            low, high = (a if _by_low(a, b) >= 0 else b), (a if _order(a.high, b.high) < 0 else b)
            has_high = (a.has_high and b.has_high) if _order(a.high, b.high) == 0 else high.has_high
            order = _order(low.low, high.high)
            if order < 0 or (order == 0 and low.has_low and has_high):
                found.append(Piece(low.low, low.has_low, high.high, has_high))
    return _tidy(found)


def _rest(pieces: Pieces) -> Pieces:
    """Everything that is not in them."""
    found, low, has_low = [], MINUS_INFINITY, False
    for piece in pieces:
        order = _order(low, piece.low)
        if order < 0 or (order == 0 and has_low and not piece.has_low and low != MINUS_INFINITY):
            found.append(Piece(low, has_low, piece.low, not piece.has_low))
        low, has_low = piece.high, not piece.has_high
    if low != INFINITY:
        found.append(Piece(low, has_low, INFINITY, False))
    return tuple(found)
