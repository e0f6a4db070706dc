r"""Tokens to one expression. Everything is read, or UnreadableError: nothing is dropped, nothing is guessed.

Where two readings are usual there is none here: 1/2x, \sin x/2, x^ab, 2^3^2, \frac123.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from gcpo_mcore.rewarding.mathematics.tokens import FUNCTIONS, Token, closing, literal, spell
from gcpo_mcore.rewarding.mathematics.tree import (
    EULER,
    IMAGINARY,
    INFINITY,
    PI,
    Apply,
    Expression,
    Literal,
    Symbol,
    UnreadableError,
    integer,
    negative,
    symbols,
    words,
)

MAX_DEPTH = 60
MAX_LETTERS = 4  # a longer run of letters is a word
GREEK = words(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell"
)
CONSTANTS = {"pi": PI, "infty": INFINITY, "infinity": INFINITY, "inf": INFINITY}
WORDS = words(
    "and or if is not for the to of mod in on at as by so no yes then when else with than about only all any none odd "
    "even true false are was be it we"
)
TRIGONOMETRIC = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth"}
INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
INVERSE |= {"sinh": "arsinh", "cosh": "arcosh", "tanh": "artanh"}
SEVERAL = {"min", "max", "gcd", "lcm"}  # functions of several operands
BRACKETS = {"(": ")", "[": "]"}
ROUNDING = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
BASES |= {"twelve": 12, "sixteen": 16}


def expression_of(tokens: Sequence[Token]) -> Expression:
    """The one expression that `tokens` are. UnreadableError."""
    return _Reader(tokens).whole()


def in_base(digits: str, base: str) -> Literal:
    """1010 and 2: ten. UnreadableError if it is no base, or a digit does not belong to it."""
    number = BASES.get(base.strip('"{}')) or int(base if re.fullmatch("[0-9]{1,2}", base) else 0)
    try:
        if not 2 <= number <= 36:
            raise ValueError("no base")
        return Literal(Fraction(int(digits, number)))
    except ValueError as error:
        raise UnreadableError(f"{digits} in base {base}") from error


class _Reader:
    """Recursive descent over a list of tokens; `at` is the next one."""

    def __init__(self, tokens: Sequence[Token], depth: int = 0):
        self.tokens, self.at, self.depth = list(tokens), 0, depth

    def whole(self) -> Expression:
        found = self._sum()
        if self.at < len(self.tokens):
            raise UnreadableError(f"what is left over: {spell(self.tokens[self.at :])}")
        return found

    # what comes next

    def _sees(self, *texts: str, kind: str = "sign") -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at].kind == kind and self.tokens[self.at].text in texts

    def _takes(self, text: str, kind: str = "sign") -> bool:
        if self._sees(text, kind=kind):
            self.at += 1
            return True
        return False

    def _next(self) -> Token:
        if self.at >= len(self.tokens):
            raise UnreadableError("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _part(self, tokens: Sequence[Token]) -> Expression:
        if self.depth >= MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        return _Reader(tokens, self.depth + 1).whole()

    def _braces(self) -> list[Token]:
        """The tokens between the braces that open here."""
        end = closing(self.tokens, self.at)
        inner = self.tokens[self.at + 1 : end]
        self.at = end + 1
        return inner

    # sums, products, powers

    def _sum(self) -> Expression:
        terms = [self._signed()]
        while self._sees("+", "-") or self._sees("pm", "mp", kind="macro"):
            terms.append(self._signed())
        return terms[0] if len(terms) == 1 else Apply("sum of", tuple(terms))

    def _signed(self) -> Expression:
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "macro" and token.text in ("pm", "mp"):
                self.at += 1
                return Apply(token.text, (self._product(),))
            if self._takes("-"):
                return negative(self._product())
            self._takes("+")
        return self._product()

    def _product(self) -> Expression:
        found, divided = self._power(), False
        while self.at < len(self.tokens):
            if self._sees("*", "/"):
                divided = self._next().text == "/"
                turned = self._takes("-")
                right = self._power()
                right = negative(right) if turned else right
                found = Apply("quotient" if divided else "product", (found, right))
            elif self._starts_factor():
                if divided:
                    raise UnreadableError("a/bc may be (a/b)c or a/(bc)")
                found = Apply("product", (found, self._power()))
            else:
                break
        return found

    def _starts_factor(self) -> bool:
        """Whether what comes next is multiplied without a sign between."""
        token, before = self.tokens[self.at], self.tokens[self.at - 1]
        if token.kind == "number":  # 'x 2' and '\pi 2', but neither '4 2' nor 'x2'
            loose = token.spaced or before.kind == "macro"
            if before.kind == "number" or before.text in (")", "]", "}", "!", "|") or not loose:
                raise UnreadableError(f"a number behind {before.text}")
            return True
        if token.kind in ("letters", "text"):
            return True
        if token.kind == "macro":
            return token.text in GREEK | FUNCTIONS | set(CONSTANTS) | set(ROUNDING) | {"frac", "binom"}
        if token.text == "{" and self.tokens[self.at + 1 : self.at + 2] and self.tokens[self.at + 1].kind == "number":
            raise UnreadableError("a number in braces behind a factor")
        return token.kind == "sign" and token.text in ("(", "[", "{")

    def _power(self) -> Expression:
        found, token = self._mixed() or self._atom(), self.tokens[self.at - 1]
        raised = False
        while self.at < len(self.tokens):
            if self._takes("!"):
                if isinstance(found, Apply) and found.operation == "factorial":
                    raise UnreadableError("!!")
                found = Apply("factorial", (found,))
            elif self._takes("%"):
                if isinstance(found, Apply) and found.operation == "percent":
                    raise UnreadableError("%%")
                found = Apply("percent", (found,))
            elif self._takes("degree", kind="macro"):
                found = Apply("degrees", (found,))
            elif self._takes("^"):
                found, raised = self._raised(found, raised, token)
            else:
                break
        return found

    def _raised(self, base: Expression, raised: bool, token: Token) -> tuple[Expression, bool]:
        if [t.text for t in self.tokens[self.at : self.at + 3]] in (["{", "circ", "}"], ["{", "degree", "}"]):
            self.at += 3
            return Apply("degrees", (base,)), raised
        if self._takes("circ", kind="macro"):
            return Apply("degrees", (base,)), raised
        if raised:
            raise UnreadableError("a^b^c")
        return Apply("power", (base, self._exponent())), True

    def _exponent(self) -> Expression:
        if self._sees("{"):
            return self._part(self._braces())
        if self._takes("-"):
            return negative(self._exponent())
        self._takes("+")
        if self.at < len(self.tokens) and self.tokens[self.at].kind == "letters":
            return self._letters(single=True)
        return self._atom()

    # numbers

    def _mixed(self) -> Expression | None:
        r"""2\frac{1}{2} and 2 1/2; None if it is something else."""
        tokens = self.tokens[self.at :]
        if len(tokens) < 2 or tokens[0].kind != "number" or (whole := integer(literal(tokens[0].text))) is None:
            return None
        if tokens[1].kind == "macro" and tokens[1].text == "frac":
            start = self.at
            self.at += 1
            fraction = self._atom()
            assert isinstance(fraction, Apply)
            top, bottom = integer(fraction.operands[0]), integer(fraction.operands[1])
            if top is None or bottom is None:
                self.at = start
                return None
        elif [t.kind for t in tokens[1:4]] == ["number", "sign", "number"] and tokens[2].text == "/":
            top, bottom = integer(literal(tokens[1].text)), integer(literal(tokens[3].text))
            self.at += 4
        else:
            return None
        if top is None or bottom is None or not 0 < top < bottom:
            raise UnreadableError("a number before a fraction that is no proper one")
        return Literal(whole + Fraction(top, bottom))

    def _number(self, token: Token) -> Expression:
        if self._sees("_"):
            self.at += 1
            base = self._next() if not self._sees("{") else None
            return in_base(token.text, spell([base] if base else self._braces()))
        if self._sees("overline", "dot", "bar", kind="macro"):
            return self._repeating(token.text)
        return literal(token.text)

    def _repeating(self, start: str) -> Expression:
        r"""0.1\overline{6}: one sixth."""
        over = self._next().text
        digits = spell(self._braces()) if self._sees("{") else self._next().text
        if "." not in start or not re.fullmatch("[0-9]{1,100}" if over != "dot" else "[0-9]", digits):
            raise UnreadableError(f"{start} and {digits} repeating")
        places = len(start.partition(".")[2])
        return Literal(Fraction(start + "0") + Fraction(int(digits), (10 ** len(digits) - 1) * 10**places))

    # what stands by itself

    def _atom(self) -> Expression:
        token = self._next()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "letters":
            self.at -= 1
            return self._letters()
        if token.kind == "text":
            return self._upright(token)
        if token.kind == "sign":
            return self._bracketed(token)
        if token.kind == "macro":
            return self._macro(token.text)
        raise UnreadableError(f"{token.text} is not part of an expression")

    def _bracketed(self, token: Token) -> Expression:
        if token.text in BRACKETS:
            inner = self._until(token.text, BRACKETS[token.text])
            return self._part(inner)
        if token.text == "{":
            self.at -= 1
            inner = self._braces()
            if choose := [i for i, t in enumerate(inner) if t.kind == "macro" and t.text == "choose"]:
                return Apply("binomial", (self._part(inner[: choose[0]]), self._part(inner[choose[0] + 1 :])))
            return self._part(inner)
        if token.text == "|":
            end = next((i for i in range(self.at, len(self.tokens)) if self.tokens[i].text == "|"), None)
            if end is None or any(t.text in "([{" and t.kind == "sign" for t in self._unclosed(self.at, end)):
                raise UnreadableError("a bar that does not close")
            inner, self.at = self.tokens[self.at : end], end + 1
            return Apply("abs", (self._part(inner),))
        raise UnreadableError(f"{token.text} where an expression should begin")

    def _unclosed(self, start: int, end: int) -> list[Token]:
        opened: list[Token] = []
        for token in self.tokens[start:end]:
            if token.kind == "sign" and token.text in "([{":
                opened.append(token)
            elif token.kind == "sign" and token.text in ")]}" and opened:
                opened.pop()
        return opened

    def _until(self, left: str, right: str, kind: str = "sign") -> list[Token]:
        """The tokens up to the bracket that closes the one just taken."""
        depth = 1
        for end in range(self.at, len(self.tokens)):
            if self.tokens[end].kind == kind:
                depth += {left: 1, right: -1}.get(self.tokens[end].text, 0)
            if depth == 0:
                inner, self.at = self.tokens[self.at : end], end + 1
                return inner
        raise UnreadableError(f"{left} does not close")

    def _letters(self, single: bool = False) -> Expression:
        """A function in plain text (sqrt(2)), a constant (pi), or variables side by side, of which one is read here."""
        token = self._next()
        if token.text in FUNCTIONS:
            return self._function(token.text)
        if token.text in CONSTANTS:
            return CONSTANTS[token.text]
        if len(token.text) > (1 if single else MAX_LETTERS) or token.text in WORDS:
            raise UnreadableError(f"the word {token.text}")
        self.at -= 1
        self.tokens[self.at : self.at + 1] = [Token("letters", letter) for letter in token.text]
        return self._symbol(self._next().text)

    def _symbol(self, name: str) -> Expression:
        """A variable with its subscript and primes; e and i without any are numbers."""
        plain = name
        if self._takes("_"):
            subscript = self._braces() if self._sees("{") else [self._next()]
            name = f"{name}_{spell(subscript)}".replace('"', "").replace(" ", "")
        while self._takes("'"):
            name += "'"
        if name == plain and self._sees("(") and name in ("f", "g"):
            raise UnreadableError(f"the function {name}")
        return {"e": EULER, "i": IMAGINARY}.get(name) or Symbol(name)

    def _upright(self, token: Token) -> Expression:
        r"""\mathrm{C}_5^2 counts combinations; any other single letter is a variable."""
        following = [t.text for t in self.tokens[self.at : self.at + 8]]
        if token.text == "C" and following[:1] == ["_"]:
            self.at += 1
            total = self._part(self._braces() if self._sees("{") else [self._next()])
            if not self._takes("^"):
                raise UnreadableError("C with one index")
            return Apply("binomial", (total, self._part(self._braces() if self._sees("{") else [self._next()])))
        if len(token.text) != 1 or not token.text.isalpha():
            raise UnreadableError(f"the words {token.text!r}")
        return self._symbol(token.text)

    # macros

    def _macro(self, name: str) -> Expression:
        if name in GREEK:
            return self._symbol(f"\\{name}")
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in ("frac", "binom"):
            return self._fraction(name)
        if name in FUNCTIONS:
            return self._function(name)
        if name in ROUNDING:
            right, operation = ROUNDING[name]
            return Apply(operation, (self._part(self._until(name, right, "macro")),))
        if name in ("sum", "prod"):
            return self._series("sum" if name == "sum" else "product over")
        if name == "int":
            return self._integral()
        raise UnreadableError(f"\\{name} is not known")

    def _fraction(self, name: str) -> Expression:
        first, second = self._argument_tokens(), self._argument_tokens()
        if spell(first)[:1] == "d" and re.fullmatch("d[a-z].*", spell(second)):
            raise UnreadableError("a derivative")
        return Apply("quotient" if name == "frac" else "binomial", (self._part(first), self._part(second)))

    def _argument_tokens(self) -> list[Token]:
        r"""A macro's argument: {...} or one sign; of 12 in \frac12 the 1."""
        if self._sees("{"):
            return self._braces()
        token = self._next()
        if token.kind in ("number", "letters") and len(token.text) > 1:
            if len(token.text) > 2 or "." in token.text:
                raise UnreadableError(f"{token.text} without braces")
            self.at -= 1
            self.tokens[self.at : self.at + 1] = [Token(token.kind, sign) for sign in token.text]
            return [self._next()]
        return [token]

    def _function(self, name: str) -> Expression:
        if name == "sqrt":
            return self._root()
        power = base = None
        while self._sees("^", "_"):
            if self._takes("_"):
                base = self._part(self._braces()) if self._sees("{") else self._part([self._next()])
            else:
                self.at += 1
                power = self._exponent()
        if name in SEVERAL:
            return self._of_several(name)
        if (base is not None and name != "log") or (power is not None and name not in TRIGONOMETRIC | {"ln", "log"}):
            raise UnreadableError(f"an index of {name}")
        operand = self._operand()
        if power is not None and integer(power) == -1:
            if name not in INVERSE:
                raise UnreadableError(f"{name}^-1")
            return Apply(INVERSE[name], (operand,))
        applied = Apply(name, (operand,) if base is None else (operand, base))
        return applied if power is None else Apply("power", (applied, power))

    def _of_several(self, name: str) -> Expression:
        if not self._takes("("):
            raise UnreadableError(f"{name} without brackets")
        inner, parts, depth = self._until("(", ")"), [[]], 0
        for token in inner:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth == 0 and token.text == ",":
                parts.append([])
            else:
                parts[-1].append(token)
        return Apply(name, tuple(self._part(p) for p in parts))

    def _root(self) -> Expression:
        degree: Expression = Literal(Fraction(2))
        if self._takes("["):
            degree = self._part(self._until("[", "]"))
        if self._sees("{"):
            return Apply("root", (self._part(self._braces()), degree))
        if self.at < len(self.tokens) and self.tokens[self.at].kind == "letters":
            return Apply("root", (self._letters(), degree))
        return Apply("root", (self._atom(), degree))

    def _operand(self) -> Expression:
        r"""What a function is of: (...), {...}, or the factors that follow, 2x in \sin 2x."""
        if self._sees("(", "[", "{", "|"):
            operand = self._atom()
            if self._sees("^"):
                raise UnreadableError("f(x)^2")
            return operand
        if self._takes("-"):
            return negative(self._operand())
        if self.at < len(self.tokens) and self.tokens[self.at].text in FUNCTIONS - {"sqrt"}:
            return self._atom()
        operand = self._power()
        while self.at < len(self.tokens) and not self._sees("(", "[", "{") and self._starts_factor():
            if self.tokens[self.at].text in FUNCTIONS - {"sqrt"} or self.tokens[self.at].kind == "text":
                break
            operand = Apply("product", (operand, self._power()))
        if self._sees("(", "[", "{", "/"):
            raise UnreadableError("where does the operand end?")
        return operand

    # sums over an index, integrals

    def _bounds(self) -> tuple[list[Token], list[Token]]:
        """The tokens below and above."""
        below = above = None
        while self._sees("_", "^"):
            lower = self._next().text == "_"
            part = self._braces() if self._sees("{") else [self._next()]
            below, above = (part, above) if lower else (below, part)
        if below is None or above is None:
            raise UnreadableError("without bounds")
        return below, above

    def _series(self, operation: str) -> Expression:
        below, above = self._bounds()
        if len(below) < 3 or below[0].kind != "letters" or len(below[0].text) != 1 or below[1].text != "=":
            raise UnreadableError("an index that is not read")
        body = _with_index(self._product(), below[0].text)
        return Apply(operation, (Symbol(below[0].text), self._part(below[2:]), self._part(above), body))

    def _integral(self) -> Expression:
        low, high = self._bounds()
        rest, self.at = self.tokens[self.at :], len(self.tokens)
        end = spell(rest[-2:]) if len(rest) > 1 else ""
        found = re.search("d([a-z])$", end)
        if not found:
            raise UnreadableError("an integral without its dx")
        body = rest[:-1]
        if len(rest[-1].text) > 2:
            body.append(Token("letters", rest[-1].text[:-2]))
        elif len(rest[-1].text) == 1:
            body = rest[:-2]
        if not body:
            raise UnreadableError("an integral of nothing")
        return Apply("integral", (Symbol(found[1]), self._part(low), self._part(high), self._part(body)))


def _with_index(body: Expression, index: str) -> Expression:
    """In a sum over i, i is no imaginary number."""
    if index == "i" and not symbols(body):
        return _renamed(body)
    if index in ("i", "e"):
        return _renamed(body) if index == "i" else body
    return body


def _renamed(body: Expression) -> Expression:
    if body == IMAGINARY:
        return Symbol("i")
    if isinstance(body, Apply):
        return Apply(body.operation, tuple(_renamed(o) for o in body.operands))
    return body
