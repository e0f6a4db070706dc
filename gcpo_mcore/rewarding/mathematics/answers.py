r"""Tokens to an answer: a number, several, a point, an interval, an equation, words. Whole, or UnreadableError."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gcpo_mcore.rewarding.mathematics.expressions import GREEK, expression_of, in_base
from gcpo_mcore.rewarding.mathematics.sameness import same
from gcpo_mcore.rewarding.mathematics.signs import bare
from gcpo_mcore.rewarding.mathematics.tokens import FUNCTIONS, Token, spell, tokens_of
from gcpo_mcore.rewarding.mathematics.tree import (
    Apply,
    Expression,
    Literal,
    UnreadableError,
    negative,
    operations,
    replace,
    symbols,
)
from gcpo_mcore.rewarding.mathematics.units import BARE_LETTERS, DEGREE, Unit, unit_of
from gcpo_mcore.rewarding.mathematics.words import EMPTY, REALS, SCALES, number_in_words, plain_words


@dataclass(frozen=True)
class Scalar:
    """One number or formula, with its unit and whether a percent sign stands behind it."""

    expression: Expression
    unit: Unit | None = None
    is_percent: bool = False


@dataclass(frozen=True)
class Several:
    """Answers without an order. joint: ',' 'and' 'or' between them, or '{' for a set in braces."""

    items: tuple["Answer", ...]
    joint: str


@dataclass(frozen=True)
class Ordered:
    """A point, a vector, an interval: `left` and `right` are its brackets."""

    items: tuple["Answer", ...]
    left: str
    right: str


@dataclass(frozen=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple["Answer", ...], ...]


@dataclass(frozen=True)
class Named:
    """kind: symbol (x=), call (f(x)=), segment (AB=), words (Area=), point ((x,y)=), composite (m+n=); what it is."""

    name: str
    kind: str
    value: "Answer"


@dataclass(frozen=True)
class Related:
    """Formulas with '=', '<', '>', 'le', 'ge' or 'ne' between them."""

    sides: tuple[Expression, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    r"""x \in S."""

    name: str
    domain: "Answer"


@dataclass(frozen=True)
class NumberSet:
    """R, Z, Q, N or C."""

    name: str


@dataclass(frozen=True)
class Joined:
    """Two sets with cup, cap or setminus between them."""

    sign: str
    left: "Answer"
    right: "Answer"


@dataclass(frozen=True)
class Ratio:
    """3:4, or a time of day, 12:30, which is not divided."""

    parts: tuple[Expression, ...]
    may_be_time: bool


@dataclass(frozen=True)
class Words:
    """An answer in words."""

    text: str


Answer = Scalar | Several | Ordered | Matrix | Named | Related | Member | NumberSet | Joined | Ratio | Words

MAX_CHARS = 4000
OPEN, CLOSE = {"(", "[", "{", r"\{"}, {")", "]", "}", r"\}"}
RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "le", "ge": "ge", "ne": "ne", "approx": "="}
SEPARATORS = {",": ",", ";": ","}
JOINTS = {"and": "and", "or": "or", "land": "and", "lor": "or"}
SETS = ("cup", "cap", "setminus")
MATRICES = {"matrix", "pmatrix", "bmatrix", "Bmatrix", "array", "smallmatrix"}
LETTER = rf"(?:[A-Za-z]|\\(?:{'|'.join(sorted(GREEK))}) ?)"
SYMBOL = rf"{LETTER}(?:_(?:\{{[^{{}}]*\}}|\w|\"[^\"]*\"))?'*"
ARGUMENT = r"\([^()=]*\)"
NAMES = (  # what may stand before '=' for the value behind it, the plainest first
    ("symbol", re.compile(SYMBOL)),
    ("call", re.compile(f'(?:{SYMBOL}|[A-Za-z]+|"[^"]+"){ARGUMENT}')),
    ("segment", re.compile(r"(?:\\(?:angle|triangle|overline|widehat|measuredangle)\s?\{?)*m?[A-Z]{2,4}\}?")),
    ("segment", re.compile(r"m?\\angle [A-Z]{1,3}|\[[A-Z]{3,5}\]")),
    ("words", re.compile(r'"[^"]+"|[A-Za-z]{5,}')),
    ("point", re.compile(rf"\({SYMBOL}(?:,{SYMBOL})+\)")),
    ("composite", re.compile(rf"{LETTER}(?:[+-]?{LETTER})+")),
    ("composite", re.compile(r"\\frac\{?[a-zA-Z]\}?\{?[a-zA-Z]\}?|[a-zA-Z]/[a-zA-Z]|\|[a-zA-Z]{1,2}\|")),
    ("composite", re.compile(rf"\\(?:sin|cos|tan|cot|sec|csc) (?:{SYMBOL}|\(?\\?angle ?[A-Z]{{1,3}}\)?)")),
)
SET_BUILDER = {"|", ":", "mid"}
VARIABLE_RUN = re.compile("[abcdkmnpqrstwxyz]+")  # letters that algebra multiplies, rather than a word
TIME = re.compile(r"[0-9]{1,2}:[0-5][0-9](?::[0-5][0-9])?")
IN_BASE = re.compile(r'(?:([0-9]+)|\(([0-9]+)\))_(?:([0-9]{1,2}|"[a-z]+")|\{([0-9]{1,2}|"[a-z]+")\})')
IN_LARGE_BASE = re.compile(r"(?:([A-F]*[0-9][0-9A-F]*)|\(([A-F]*[0-9][0-9A-F]*)\))_(?:(1[1-6])|\{(1[1-6])\})")
SCALED = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(hundred|thousand|million|billion|trillion|dozen)")


def read(text: str) -> Answer:
    """`text` as an answer. UnreadableError if there is anything in it that is not read."""
    if len(text) > MAX_CHARS:
        raise UnreadableError(f"more than {MAX_CHARS} characters")
    text = bare(text)
    return _phrase(text) or _answer(_without_lead(tokens_of(_without_dollars(text))))


def is_wordy(text: str) -> bool:
    """Whether it is an answer in words alone, that is nothing to calculate with."""
    plain = bare(text)
    words = re.findall(r"[^\W\d_]+", plain)
    if max(map(len, words), default=0) < 2 or any(w in FUNCTIONS or w in ("pi", "in") for w in words):
        return False
    return re.fullmatch(r"[^\W\d_]+(?:[ '.-]+[^\W\d_]+)*", plain) is not None


def _without_dollars(text: str) -> str:
    """Dollar signs that enclose mathematics are layout; the others are money."""
    text = text.replace(r"\$", r"\dollar ")
    if text.count("$") % 2 == 0:
        return text.replace("$", " ")
    return re.sub(r"\$(?=\s?[0-9.])", r"\\dollar ", text)


def _phrase(text: str) -> Answer | None:
    """What is said in words; None if it is not words alone."""
    unwrapped = re.sub(r"\\text\{ ?(\w+) ?\}", r" \1", text).replace(r"\ ", " ").replace("  ", " ")
    if scaled := SCALED.fullmatch(unwrapped):
        return Scalar(Literal(Fraction(scaled[1]) * SCALES[scaled[2]]))
    if not is_wordy(text):
        return None
    plain = plain_words(text)
    if (number := number_in_words(plain)) is not None:
        return Scalar(Literal(number))
    if plain in EMPTY:
        return Several((), "{")
    if plain in REALS:
        return NumberSet("R")
    if plain in ("pi", "infinity"):
        return None
    if VARIABLE_RUN.fullmatch(text) and len(text) < 4:
        return None
    if re.search(r"\b(?:and|or)\b", plain):
        return None
    return Words(plain)


def _without_lead(tokens: list[Token]) -> list[Token]:
    """An '=' or an 'about' sign in front is layout."""
    if tokens and tokens[0].text in ("=", "approx"):
        return tokens[1:]
    return tokens


def _answer(tokens: Sequence[Token]) -> Answer:
    """One answer, or several."""
    parts, joints = _split(tokens, lambda t: _joint(t))
    parts, joints = _joined_commas(parts, joints)
    if len(parts) == 1:
        return _element(parts[0])
    kinds = set(joints) - {","}
    if len(kinds) > 1:
        raise UnreadableError("'and' beside 'or'")
    items: list[Answer] = []
    for part in parts:
        item = _element(part)
        if items and isinstance(item, Scalar) and isinstance(items[-1], Named) and len(kinds) == 0:
            item = Named(items[-1].name, items[-1].kind, item)  # n = 3, 5, 7
        items.append(item)
    flat = [i for item in items for i in (item.items if isinstance(item, Several) and item.joint == "pm" else (item,))]
    return Several(tuple(flat), kinds.pop() if kinds else ",")


def _joint(token: Token) -> str | None:
    if token.kind == "sign":
        return SEPARATORS.get(token.text)
    if token.kind in ("text", "letters", "macro"):
        return JOINTS.get(token.text.casefold().strip(", "))
    return None


def _joined_commas(parts: list[list[Token]], joints: list[str]) -> tuple[list[list[Token]], list[str]]:
    """Takes '1, 2, and 3' as it is meant: a comma before 'and' separates nothing."""
    kept: list[list[Token]] = []
    between: list[str] = []
    for at, part in enumerate(parts):
        if not part and 0 < at < len(parts) - 1 and joints[at - 1] == "," and joints[at] != ",":
            continue
        if kept:
            between.append(joints[at - 1])
        kept.append(part)
    if any(not part for part in kept):
        raise UnreadableError("an empty place in a list")
    return kept, between


def _split(tokens: Sequence[Token], sign: Callable[[Token], str | None]) -> tuple[list[list[Token]], list[str]]:
    """The parts between signs outside all brackets, and those signs."""
    parts: list[list[Token]] = [[]]
    signs: list[str] = []
    depth = 0
    for token in tokens:
        found = sign(token) if depth == 0 else None
        depth += _depth(token)
        if found is None:
            parts[-1].append(token)
        else:
            parts.append([])
            signs.append(found)
    return parts, signs


def _depth(token: Token) -> int:
    if token.kind == "begin" or (token.kind == "sign" and token.text in OPEN):
        return 1
    if token.kind == "end" or (token.kind == "sign" and token.text in CLOSE):
        return -1
    if token.kind == "macro" and token.text in ("langle", "lfloor", "lceil"):
        return 1
    return -1 if token.kind == "macro" and token.text in ("rangle", "rfloor", "rceil") else 0


def _element(tokens: Sequence[Token]) -> Answer:
    """A relation, or what stands without one."""
    sides, signs = _split(tokens, lambda t: RELATIONS.get(t.text) if t.kind in ("sign", "macro") else None)
    if signs:
        return _relation(sides, signs)
    parts, member = _split(tokens, lambda t: "in" if t.kind == "macro" and t.text == "in" else None)
    if len(member) == 1 and re.fullmatch(SYMBOL, spell(parts[0])):
        return Member(spell(parts[0]).strip(), _object(parts[1]))
    return _object(tokens)


def _relation(sides: list[list[Token]], signs: list[str]) -> Answer:
    if set(signs) == {"="}:
        return _equation(sides)
    if any(not side for side in sides):
        raise UnreadableError("a relation without one of its sides")
    return Related(tuple(expression_of(side) for side in sides), tuple(signs))


def _equation(sides: list[list[Token]]) -> Answer:
    """x = 3, y = 2x + 1, 6*7 = 42, 2x + y = 5."""
    if any(not side for side in sides):
        raise UnreadableError("an equation without one of its sides")
    if len(sides) == 2 and _name(sides[0]) is None and (_name(sides[1]) or ("", ""))[0] in ("symbol", "call"):
        sides = sides[::-1]  # 3 = x
    named = _name(sides[0])
    values = sides[1:] if named else sides
    if len(values) > 1:
        return _chain(named, [expression_of(v) for v in values])
    if named is None:
        raise UnreadableError("nothing is related")
    kind, name = named
    value = _object(values[0])
    if isinstance(value, Several) and value.joint == "pm":
        return Several(tuple(Named(name, kind, item) for item in value.items), "pm")
    return Named(name, kind, value)


def _chain(named: tuple[str, str] | None, values: list[Expression]) -> Answer:
    """The last of several formulas that are said to be equal, if they are; an equation if they are not numbers."""
    if all(same(values[-1], v) for v in values[:-1]):
        last = Scalar(values[-1])
        return Named(named[1], named[0], last) if named else last
    if named is None and len(values) == 2 and symbols(values[0]) | symbols(values[1]):
        return Related(tuple(values), ("=",))
    raise UnreadableError("the sides of an equation differ")


def _name(tokens: Sequence[Token]) -> tuple[str, str] | None:
    """(kind, name) if the tokens are a name for a value."""
    text = spell(tokens).strip()
    for kind, form in NAMES:
        if form.fullmatch(text) and text not in ("e", "i", "\\pi"):
            return kind, text.replace(" ", "")
    return None


def _object(tokens: Sequence[Token]) -> Answer:
    """A set, a point, a matrix, a ratio, or a number."""
    if not tokens:
        raise UnreadableError("nothing")
    parts, signs = _split(tokens, lambda t: t.text if t.kind == "macro" and t.text in SETS else None)
    if signs:
        found = _object(parts[0])
        for sign, part in zip(signs, parts[1:], strict=True):
            found = Joined(sign, found, _object(part))
        return found
    return _simple(tokens) or _enclosed(tokens) or _ratio(tokens) or _scalar(tokens)


def _simple(tokens: Sequence[Token]) -> Answer | None:
    """A named set, or one word."""
    if len(tokens) != 1:
        return None
    token = tokens[0]
    if token.kind == "macro" and token.text == "emptyset":
        return Several((), "{")
    if token.kind == "macro" and token.text.startswith("set") and token.text[3:] in "RZQNC":
        return NumberSet(token.text[3:])
    return _phrase(token.text) if token.kind in ("text", "letters") else None


def _enclosed(tokens: Sequence[Token]) -> Answer | None:
    """What stands in one pair of brackets from end to end; None if there is no such pair, or only one number in it."""
    first, last = tokens[0], tokens[-1]
    depths, depth = [], 0
    for token in tokens:
        depth += _depth(token)
        depths.append(depth)
    if len(tokens) < 2 or depths[-1] != 0 or 0 in depths[:-1] or depths[0] != 1:
        return None
    inner = tokens[1:-1]
    if first.kind == "begin":
        return _environment(first.text, inner)
    if first.text == "{" and last.text == "}":
        return None if any(t.text == "choose" for t in inner) else _answer(inner)
    if first.text in ("(", "[") and inner[0].kind == "begin":
        return _enclosed(inner)
    if first.text == r"\{" and last.text == r"\}":
        return _set(inner)
    left, right = {"langle": "("}.get(first.text, first.text), {"rangle": ")"}.get(last.text, last.text)
    parts, signs = _split(inner, lambda t: SEPARATORS.get(t.text) if t.kind == "sign" else None)
    if signs and left in "([" and right in ")]":
        return Ordered(tuple(_object(p) for p in parts), left, right)
    return None


def _set(inner: Sequence[Token]) -> Answer:
    parts, bars = _split(inner, lambda t: t.text if t.text in SET_BUILDER else None)
    if len(bars) == 1 and bars[0] in SET_BUILDER:
        name = spell(parts[0]).strip()
        domain, member = _split(parts[0], lambda t: "in" if t.kind == "macro" and t.text == "in" else None)
        if len(member) == 1 and spell(domain[1]).strip() == r"\setR":
            name = spell(domain[0]).strip()
        if re.fullmatch(SYMBOL, name):
            return Member(name, _answer(parts[1]))
        raise UnreadableError("a set that is described")
    if not inner:
        return Several((), "{")
    found = _answer(inner)
    if isinstance(found, Several):
        return Several(found.items, "{")
    return Several((found,), "{")


def _environment(name: str, inner: Sequence[Token]) -> Answer:
    if name not in MATRICES:
        raise UnreadableError(f"the environment {name}")
    rows, _ = _split(inner, lambda t: "row" if t.kind == "macro" and t.text == "row" else None)
    if rows and not rows[-1]:
        rows.pop()
    cells = [_split(row, lambda t: "&" if t.text == "&" else None)[0] for row in rows]
    if not cells or len({len(row) for row in cells}) != 1:
        raise UnreadableError("a matrix with rows of different lengths")
    return Matrix(tuple(tuple(_object(cell) for cell in row) for row in cells))


def _ratio(tokens: Sequence[Token]) -> Answer | None:
    parts, signs = _split(tokens, lambda t: ":" if t.kind == "sign" and t.text == ":" else None)
    if not signs:
        return None
    return Ratio(tuple(expression_of(p) for p in parts), TIME.fullmatch(spell(tokens)) is not None)


def _scalar(tokens: Sequence[Token]) -> Answer:
    if found := IN_BASE.fullmatch(spell(tokens)) or IN_LARGE_BASE.fullmatch(spell(tokens)):
        return Scalar(in_base(found[1] or found[2], found[3] or found[4]))
    expression, unit = _with_unit(tokens)
    expression, unit, is_percent = _peeled(expression, unit)
    signs = operations(expression) & {"pm", "mp"}
    if not signs:
        return Scalar(expression, unit, is_percent)
    if spell(tokens).count(r"\pm") > 1:
        raise UnreadableError("several signs that may be plus or minus")
    both = [("same", "negative"), ("negative", "same")]
    forms = [replace(replace(expression, "pm", plus), "mp", minus) for plus, minus in both]
    return Several(tuple(Scalar(form, unit, is_percent) for form in forms), "pm")


def _with_unit(tokens: Sequence[Token]) -> tuple[Expression, Unit | None]:
    """A formula and the unit behind it (or the currency before it)."""
    tokens = list(tokens)
    for at in (0, 1):
        if tokens[at:] and _is_currency(tokens[at]) and (at == 0 or tokens[0].text in ("-", "+")):
            sign = tokens.pop(at)
            expression = expression_of([t for t in tokens if not (t.kind == "text" and t.text == "dollars")])
            return expression, unit_of([sign])
    for at in range(1, len(tokens)):
        if not _may_be_unit(tokens, at):
            continue
        unit = _temperature(tokens, at) or unit_of(_behind(tokens[at:]), is_one=spell(tokens[:at]) == "1")
        if unit is not None:
            return expression_of(tokens[:at]), unit
        percent = spell(tokens[at:]).strip('"').casefold()
        if percent in ("percent", "per cent"):
            return Apply("percent", (expression_of(tokens[:at]),)), None
    return expression_of(tokens), None


def _behind(tokens: Sequence[Token]) -> Sequence[Token]:
    """A unit in braces of its own, or with a multiplication sign before it, is the same unit."""
    if len(tokens) > 1 and tokens[0].text == "*":
        return tokens[1:]
    return tokens


def _is_currency(token: Token) -> bool:
    return token.text in ("€", "£", "¥", "₹") or (token.kind == "macro" and token.text == "dollar")


def _may_be_unit(tokens: Sequence[Token], at: int) -> bool:
    """Whether a unit may begin here: upright words, plain words behind a number, or a currency sign."""
    token, before = tokens[at], tokens[at - 1]
    if token.kind == "text" or _is_currency(token) or _temperature(tokens, at):
        return True
    if token.kind == "sign" and token.text == "*" and at + 1 < len(tokens):
        return tokens[at + 1].kind == "text"
    if token.kind == "macro" and token.text == "frac":
        return [t.kind for t in tokens[at + 1 : at + 3]] == ["sign", "text"]
    if token.kind != "letters" or before.text in ("^", "_", "/", "*", "+", "-"):
        return False
    behind_number = all(t.kind in ("number", "sign") or t.text in ("frac", "sqrt", "pi") for t in tokens[:at])
    if len(token.text) == 1:
        return behind_number and token.spaced and token.text in BARE_LETTERS
    return behind_number


def _temperature(tokens: Sequence[Token], at: int) -> Unit | None:
    r"""The C or F of ^\circ C, ^{\circ}\text{F} at the end."""
    behind_degrees = any(t.text in ("circ", "degree") for t in tokens[max(0, at - 2) : at])
    quantity = {"C": "celsius", "F": "fahrenheit"}.get(tokens[at].text)
    return Unit(Fraction(1), ((quantity, 1),)) if behind_degrees and quantity and at + 1 == len(tokens) else None


def _peeled(expression: Expression, unit: Unit | None) -> tuple[Expression, Unit | None, bool]:
    """Takes a degree or percent sign from outside a formula."""
    if isinstance(expression, Apply) and expression.operation == "negative":
        inner, unit, is_percent = _peeled(expression.operands[0], unit)
        return negative(inner), unit, is_percent
    if isinstance(expression, Apply) and expression.operation == "degrees":
        return expression.operands[0], unit or DEGREE, False
    if isinstance(expression, Apply) and expression.operation == "percent" and unit is None:
        return expression.operands[0], None, True
    return expression, unit, False
