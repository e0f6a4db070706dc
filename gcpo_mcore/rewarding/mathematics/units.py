"""Units, and the words that stand behind a number: 5 cm, 60 miles per hour, 12 apples, $3."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from gcpo_mcore.rewarding.mathematics.tokens import Token, closing
from gcpo_mcore.rewarding.mathematics.tree import words

MAX_WORDS = 4
BASIC = {  # of each quantity: size of a unit in the quantity's first one
    "length": {"m": "1", "mm": "0.001", "cm": "0.01", "dm": "0.1", "km": "1000", "in": "0.0254", "ft": "0.3048",
               "yd": "0.9144", "mi": "1609.344", "nm": "1e-9"},
    "mass": {"g": "1", "mg": "0.001", "kg": "1000", "oz": "28.349523125", "lb": "453.59237", "t": "1000000"},
    "time": {"s": "1", "ms": "0.001", "min": "60", "h": "3600", "day": "86400", "week": "604800"},
    "year": {"year": "12", "month": "1"},
    "volume": {"L": "1", "mL": "0.001", "cL": "0.01", "dL": "0.1"},
    "gallon": {"gal": "4", "quart": "1", "pint": "0.5", "cup": "0.25"},
    "dollar": {"dollar": "1", "cent": "0.01"}, "euro": {"euro": "1"}, "pound": {"pound": "1"}, "rupee": {"rupee": "1"},
    "yen": {"yen": "1"}, "angle": {"degree": "1"}, "radian": {"radian": "1"}, "celsius": {"celsius": "1"},
    "fahrenheit": {"fahrenheit": "1"}, "newton": {"N": "1", "kN": "1000"}, "joule": {"J": "1", "kJ": "1000"},
    "watt": {"W": "1", "kW": "1000"}, "volt": {"V": "1", "mV": "0.001"}, "ampere": {"A": "1", "mA": "0.001"},
    "ohm": {"ohm": "1"}, "hertz": {"Hz": "1", "kHz": "1000", "MHz": "1000000"}, "mole": {"mol": "1"},
    "kelvin": {"K": "1"}, "pascal": {"Pa": "1", "kPa": "1000"}, "byte": {"byte": "1", "KB": "1000", "MB": "1000000"},
}  # fmt: skip
UNITS = {unit: (quantity, Fraction(size)) for quantity, sizes in BASIC.items() for unit, size in sizes.items()}
NAMES = {
    "meter": "m", "metre": "m", "millimeter": "mm", "centimeter": "cm", "centimetre": "cm", "kilometer": "km",
    "kilometre": "km", "kms": "km", "inch": "in", "inches": "in", "foot": "ft", "feet": "ft", "yard": "yd",
    "mile": "mi", "gram": "g", "milligram": "mg", "kilogram": "kg", "kilo": "kg", "kgs": "kg", "ounce": "oz",
    "lbs": "lb", "ton": "t", "tonne": "t", "second": "s", "sec": "s", "secs": "s", "minute": "min", "mins": "min",
    "hour": "h", "hr": "h", "hrs": "h", "days": "day", "weeks": "week", "yr": "year", "yrs": "year", "months": "month",
    "liter": "L", "litre": "L", "l": "L", "ml": "mL", "milliliter": "mL", "gallon": "gal", "quarts": "quart",
    "usd": "dollar", "dollars": "dollar", "buck": "dollar", "¢": "cent", "€": "euro", "£": "pound", "¥": "yen",
    "₹": "rupee", "deg": "degree", "degs": "degree", "°": "degree", "rad": "radian", "rads": "radian", "newton": "N",
    "joule": "J", "watt": "W", "volt": "V", "amp": "A", "ampere": "A", "hertz": "Hz", "mole": "mol", "kelvin": "K",
    "pascal": "Pa", "bytes": "byte", "fl": "fl", "eur": "euro", "rs": "rupee", "cup": "cup", "cups": "cup",
}  # fmt: skip
COMPOUND = {"mph": ("mi", "h"), "kph": ("km", "h"), "kmh": ("km", "h"), "mps": ("m", "s"), "fps": ("ft", "s")}
BARE_LETTERS = {"m", "g", "s", "L", "h", "N", "J", "W", "V", "A", "K"}  # plain letters that are units behind a space
IRREGULAR = {"people": "person", "children": "child", "men": "man", "women": "woman", "feet": "foot", "mice": "mouse",
             "geese": "goose", "teeth": "tooth", "fish": "fish", "sheep": "sheep", "deer": "deer", "dice": "die",
             "loaves": "loaf", "leaves": "leaf", "knives": "knife", "money": "money", "oxen": "ox"}  # fmt: skip
GENERIC = {"unit", "units"}  # says nothing about which
# Words that change what a number says, or say that it is not the whole answer: none of them is a unit.
TELLING = words(
    "and or if is not for the to of mod in on at as by so no yes then when else with than about only all any none odd "
    "even true false are was be but nor yet over under less more fewer least most plus minus times divided squared "
    "cubed factorial half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths eighth eighths "
    "tenth tenths hundredth hundredths thousandth thousandths dozen dozens score scores ten tens hundred hundreds "
    "thousand thousands million millions billion billions trillion trillions percent percents pi this these those has "
    "does thus perhaps maybe possibly probably approximately always unless except versus vs us guess negative positive "
    "wrong answers answer where given since because bases powers logs exists exceeds equals"
)


@dataclass(frozen=True)
class Unit:
    """size: in the first units of its quantities; quantities: their powers, sorted. Generic ones have none."""

    size: Fraction
    quantities: tuple[tuple[str, int], ...]


DEGREE = Unit(Fraction(1), (("angle", 1),))
RADIAN = Unit(Fraction(1), (("radian", 1),))


def unit_of(tokens: Sequence[Token], is_one: bool = False) -> Unit | None:
    """The unit that all of `tokens` are; None if they are anything else, or more than that. is_one: 1 apple."""
    parts = _words(tokens)
    if parts is None or not parts:
        return None
    size, powers, sign = Fraction(1), {}, 1
    at = 0
    while at < len(parts):
        word = parts[at]
        at += 1
        if word in ("/", "per") and at > 1 and sign == 1:
            sign = -1
            continue
        if word == "*":
            continue
        named, at = _named(parts, at - 1, is_one)
        if named is None:
            return None
        exponent = 1
        if at < len(parts) and re.fullmatch(r"\^[1-4]", parts[at]):
            exponent, at = int(parts[at][1]), at + 1
        for quantity, factor, power in named:
            power *= sign * exponent
            size *= factor ** (sign * exponent) if power else 1
            powers[quantity] = powers.get(quantity, 0) + power
    return Unit(size, tuple(sorted((q, p) for q, p in powers.items() if p)))


Named = list[tuple[str, Fraction, int]]


def _named(parts: list[str], at: int, is_one: bool) -> tuple[Named | None, int]:
    """The unit that begins at `at` as (quantity, size, power), and where it ends."""
    word = parts[at]
    if word.lower() in ("square", "sq", "cubic", "cu"):
        power = 2 if word.lower().startswith("sq") else 3
        if at + 1 < len(parts):
            inner, end = _named(parts, at + 1, is_one)
            return (None if inner is None else [(q, f**power, power * p) for q, f, p in inner]), end
        return None, at + 1
    if word.lower() in COMPOUND:
        top, bottom = COMPOUND[word.lower()]
        first, second = UNITS[top], UNITS[bottom]
        return [(first[0], first[1] / second[1], 1), (second[0], Fraction(1), -1)], at + 1
    known = _known(word)
    if known is not None:
        return ([] if known == "" else [(*UNITS[known], 1)]), at + 1
    return _noun(parts, at, is_one)


def _known(word: str) -> str | None:
    """The unit that a word names; '' for one that says nothing."""
    if word.lower() in GENERIC:
        return ""
    if word in UNITS:
        return word
    plain = word.lower()
    for form in (plain, plain.removesuffix("s")):
        if form in NAMES:
            form = NAMES[form]
        if form in UNITS and (len(form) > 1 or form != word[:1].lower() or len(word) > 1 or word == "l"):
            return form
    return None


def _noun(parts: list[str], at: int, is_one: bool) -> tuple[Named | None, int]:
    """Things that are counted: up to MAX_WORDS words, the last a plural (red apples), up to a sign."""
    end = at
    while end < len(parts) and re.fullmatch("[A-Za-z]{2,}", parts[end]) and parts[end].lower() != "per":
        end += 1
    said = [w.lower() for w in parts[at:end]]
    if not 0 < len(said) <= MAX_WORDS or any(w in TELLING or w.endswith("ly") for w in said):
        return None, end
    last = said[-1]
    is_plural = last in IRREGULAR or (last.endswith("s") and not last.endswith("ss") and len(last) > 3)
    after_per = at > 0 and parts[at - 1] in ("per", "/")
    if not (is_plural or after_per or (is_one and len(said) == 1 and len(last) > 2)):
        return None, end
    noun = IRREGULAR.get(last) or (last.removesuffix("s") if is_plural else last)
    return [(" ".join([*said[:-1], noun]), Fraction(1), 1)], end


def _words(tokens: Sequence[Token]) -> list[str] | None:
    """Words, '/', '*' and '^2' in their order; None if there is anything else."""
    parts: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token.kind in ("text", "letters"):
            found = re.findall(r"[A-Za-z]+|[/°¢€£¥₹]|\^[0-9]|\S", token.text.replace(".", "").replace("²", "^2"))
            parts.extend(found)
        elif token.kind == "macro" and token.text == "dollar":
            parts.append("dollar")
        elif token.kind == "macro" and token.text == "frac" and at < len(tokens) and not parts:
            top = closing(tokens, at) + 1
            first, second = _words(tokens[at + 1 : top - 1]), _words(tokens[top + 1 : -1])
            return [*first, "/", *second] if first and second and closing(tokens, top) == len(tokens) - 1 else None
        elif token.kind == "sign" and token.text in "/*€£¥¢₹":
            parts.append(token.text)
        elif token.kind == "sign" and token.text == "^" and parts:
            rest = [t.text for t in tokens[at : at + 3]]
            if rest[:1] == ["{"] and rest[2:] == ["}"]:
                parts.append("^" + rest[1])
                at += 3
            elif rest:
                parts.append("^" + rest[0])
                at += 1
            else:
                return None
        elif token.kind == "sign" and token.text in "{}" and parts:
            return None
        else:
            return None
    return parts
