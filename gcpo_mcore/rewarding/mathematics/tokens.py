r"""The tokens of an answer: numbers, letters, macros, signs, upright words. Layout is dropped here and nowhere else.

Digits in groups (1,234,567, 1.234.567,5, 1 234 567, 1{,}234 and 1'234) are one number. A comma between brackets
separates, unless other commas of the text have a space behind them.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from gcpo_mcore.rewarding.mathematics.tree import Literal, UnreadableError, words

MAX_TOKENS = 1000
MAX_DIGITS = 2000


class Token(NamedTuple):
    """kind: number, letters, macro (its name), sign, text (upright words), begin or end (of an environment)."""

    kind: str
    text: str
    spaced: bool = False  # white space before it


DROPPED = words(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle "
    "scriptstyle limits nolimits rm bf it sf tt normalsize large Large strut mathstrut quad qquad enspace thinspace"
)
ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le", "geq": "ge",
    "leqslant": "le", "geqslant": "ge", "leqq": "le", "geqq": "ge", "lt": "<", "gt": ">", "neq": "ne", "cdot": "*",
    "times": "*", "ast": "*", "div": "/", "slash": "/", "varnothing": "emptyset", "lvert": "|", "rvert": "|",
    "vert": "|", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "arctg": "arctan", "tg": "tan", "ctg": "cot", "cosec": "csc", "lg": "log", "backslash": "setminus",
    "smallsetminus": "setminus", "thickapprox": "approx", "simeq": "approx", "colon": ":", "wedge": "land",
    "vee": "lor", "varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "lang": "langle", "rang": "rangle",
    "arcsinh": "arsinh", "arccosh": "arcosh", "arctanh": "artanh", "sh": "sinh", "ch": "cosh", "th": "tanh",
    "{": r"\{", "}": r"\}", "%": "%", "$": "dollar", "&": "&", "#": "#", "_": "_", "|": "norm",
}  # fmt: skip
SIGNS = {"<", ">", "*", "/", "|", r"\{", r"\}", "[", "]", "(", ")", ":", "%", "&", "#", "_"}
FUNCTIONS = words(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth arsinh arcosh artanh log ln exp "
    "sqrt abs min max gcd lcm floor ceil"
)
UPRIGHT = words("text textbf textit textrm textsf textnormal mathrm mathsf mbox hbox operatorname")
SAME_AS_CONTENT = {"mathbf", "mathit", "boldsymbol", "bm", "pmb", "mathnormal"}
NUMBER_SETS = {"R", "Z", "Q", "N", "C"}

TOKEN = re.compile(
    r"(?P<space>(?:\s|~|\\[ ,;:>!])+)"
    r"|(?P<number>(?:[0-9]+\.(?=\\overline|\\dot|\\bar)|[0-9]+(?:\.[0-9]+)?|\.[0-9]+))"
    r"|\\(?P<macro>[A-Za-z]+)\*?|(?P<row>\\\\)|\\(?P<escaped>.)|(?P<letters>[A-Za-z]+)|(?P<sign>.)",
    re.DOTALL,
)
EXPONENT = re.compile(r"[eE]([+-]?[0-9]{1,3})(?![0-9.A-Za-z^_])")
GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
MADE_GROUPS = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\,|,?\\!|\\ |'|,\s?\\!)(?=[0-9]{3}(?![0-9]))")
SPACED_GROUPS = re.compile(r"(?<![0-9.,])(?<![0-9] )[0-9]{1,3}(?: [0-9]{3})+(?![0-9/]| ?/| [0-9])")
POINT_GROUPS = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:\.[0-9]{3}){2,})(?:,([0-9]+))?(?![0-9.,])")
POINT_AND_COMMA = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:\.[0-9]{3})+),([0-9]{1,2})(?![0-9.,])")


def tokens_of(text: str) -> list[Token]:
    """The tokens of `text` (in usual signs). UnreadableError if there are too many, or braces do not close."""
    found = _scan(_join_groups(text))
    if len(found) > MAX_TOKENS:
        raise UnreadableError(f"more than {MAX_TOKENS} tokens")
    return found


def literal(text: str) -> Literal:
    """A number as written, with its exponent if it has one."""
    if len(text) > MAX_DIGITS:
        raise UnreadableError(f"a number of more than {MAX_DIGITS} digits")
    mantissa = re.split("[eE]", text)[0]
    _, point, places = mantissa.partition(".")
    digits = mantissa.replace(".", "").lstrip("0")
    exponent = int(re.split("[eE]", text)[1]) if mantissa != text else 0
    return Literal(Fraction(text), len(places) - exponent if point else None, len(digits))


def closing(tokens: Sequence[Token], start: int) -> int:
    """Where the brace that opens at `start` closes."""
    depth = 0
    for at in range(start, len(tokens)):
        if tokens[at].kind == "sign" and tokens[at].text in "{}":
            depth += 1 if tokens[at].text == "{" else -1
            if depth == 0:
                return at
    raise UnreadableError("a brace does not close")


def spell(tokens: Sequence[Token]) -> str:
    """The tokens in one form, whatever the layout was."""
    forms = {"macro": "\\{} ", "text": '"{}"', "begin": "\\begin{{{}}}", "end": "\\end{{{}}}"}
    return "".join(forms.get(t.kind, "{}").format(" ".join(t.text.split())) for t in tokens).replace(" }", "}")


def _join_groups(text: str) -> str:
    text = MADE_GROUPS.sub("", text)
    text = POINT_GROUPS.sub(_decimal_comma, text)
    text = POINT_AND_COMMA.sub(_decimal_comma, text)
    text = SPACED_GROUPS.sub(lambda found: found[0].replace(" ", ""), text)
    depths, depth = [], 0
    for at, sign in enumerate(text):
        escaped = at > 0 and text[at - 1] == "\\"
        if sign in "([" or (sign == "{" and escaped):
            depth += 1
        depths.append(depth)
        if sign in ")]" or (sign == "}" and escaped):
            depth -= 1
    separated = re.search(r",\s|;", text) is not None

    def joined(found: re.Match) -> str:
        return found[0].replace(",", "") if depths[found.start()] <= 0 or separated else found[0]

    return GROUPS.sub(joined, text)


def _decimal_comma(found: re.Match) -> str:
    whole = found[1].replace(".", "")
    return f"{whole}.{found[2]}" if found[2] else whole


def _scan(text: str) -> list[Token]:
    made: list[Token] = []
    at, spaced = 0, False
    while at < len(text):
        found = TOKEN.match(text, at)
        assert found is not None  # '.' takes anything
        at = found.end()
        if found["space"]:
            spaced = True
            continue
        new, at = _tokens_at(text, found, at, spaced)
        made.extend(new)
        spaced = spaced and not new  # layout that was dropped
    return made


def _tokens_at(text: str, found: re.Match, at: int, spaced: bool) -> tuple[list[Token], int]:
    """The tokens of one match, and where the next begins."""
    if found["number"]:
        exponent = EXPONENT.match(text, at)
        if exponent and not _may_be_euler(found["number"], exponent[1]):
            return [Token("number", found["number"] + exponent[0], spaced)], exponent.end()
        return [Token("number", found["number"], spaced)], at
    if found["row"]:
        return [Token("macro", "row", spaced)], at
    if found["letters"]:
        return [Token("letters", found["letters"], spaced)], at
    name = found["macro"] or found["escaped"]
    if name is None:
        return [Token("sign", found["sign"], spaced)], at
    return _macro(text, name, at, spaced)


def _may_be_euler(mantissa: str, exponent: str) -> bool:
    """Whether 2e+1 may be twice Euler's number and one: nobody writes an exponent so."""
    return exponent[0] == "+" and len(exponent) == 2 and mantissa != "1" and "." not in mantissa


def _macro(text: str, name: str, at: int, spaced: bool) -> tuple[list[Token], int]:
    if name in ("left", "right") and text[at : at + 1] == ".":
        return [], at + 1
    if name in DROPPED:
        return [], at
    if name in ("begin", "end"):
        what, at = _braced(text, at)
        if name == "begin" and what == "array":
            _, at = _braced(text, at)
        return [Token(name, what.rstrip("*"), spaced)], at
    if name in UPRIGHT:
        content, at = _braced(text, at)
        return _upright(content, name, spaced), at
    if name in SAME_AS_CONTENT:
        content, at = _braced(text, at)
        return [Token("sign", "{", spaced), *_scan(content), Token("sign", "}")], at
    if name in ("mathbb", "Bbb"):
        content, at = _braced(text, at)
        if content.strip() not in NUMBER_SETS:
            raise UnreadableError(f"\\mathbb{{{content}}}")
        return [Token("macro", f"set{content.strip()}", spaced)], at
    name = ALIASES.get(name, name)
    return [Token("sign" if name in SIGNS else "macro", name, spaced)], at


def _upright(content: str, macro: str, spaced: bool) -> list[Token]:
    r"""What \text{...} and its like hold: a function's name, a number in words around it, or words."""
    said = re.sub(r"~|\\[ ,;:!]", " ", content).strip().strip("$")
    if said in ("", ".", ","):
        return [Token("sign", ",", spaced)] if said == "," else []
    name = ALIASES.get(said, said)
    if name in FUNCTIONS:
        return [Token("macro", name, spaced)]
    if said in ("e", "i") and macro != "text":
        return [Token("letters", said, spaced)]
    if macro == "operatorname":
        return [Token("macro", said, spaced)]
    if re.search(r"[0-9\\^_{}$=<>+*]", said):
        inner = _scan(said)
        return [inner[0]._replace(spaced=True), *inner[1:]] if inner else []
    return [Token("text", said, spaced or content[:1] in " ~")]


def _braced(text: str, at: int) -> tuple[str, int]:
    """The content of the braces that open at `at` (or the one sign there), and where it ends."""
    while text[at : at + 1].isspace():
        at += 1
    if text[at : at + 1] != "{":
        if at >= len(text):
            raise UnreadableError("a macro without its argument")
        return text[at], at + 1
    depth, start = 0, at
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return text[start + 1 : at - 1], at
    raise UnreadableError("a brace does not close")
