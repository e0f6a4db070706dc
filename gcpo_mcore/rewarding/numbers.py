r"""Numbers as people write them, read exactly: 1,234  .5  1e3  2 x 10^3  3/4  2 1/2  2½  \frac{3}{4}  $12.50  -10%."""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

# Bounded everywhere: a number of a million digits, or 1e999999999, is not worth the memory it would take.
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,30}|[0-9]{1,100})"
DECIMAL = rf"(?:{DIGITS}(?:\.[0-9]{{0,100}})?|\.[0-9]{{1,100}})(?:[eE][+-]?[0-9]{{1,3}})?"
RATIO = r"(?P<top>[0-9]{1,100}) ?/ ?(?P<bottom>0{0,99}[1-9][0-9]{0,99})"
TIMES = r"(?:×|·|\\times|\\cdot|\*|x)"
POWER_OF_TEN = r"10 ?(?:\^|\*\*) ?\{?(?P<power>[+-]?[0-9]{1,3})\}?"
NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?:\\?\$|[€£])? ?"
    rf"(?:(?:(?P<whole>[0-9]{{1,100}}) )?{RATIO}|(?:(?P<factor>{DECIMAL}) ?{TIMES} ?)?{POWER_OF_TEN}|"
    rf"(?P<decimal>{DECIMAL}))"
    rf" ?(?P<percent>\\?%)?"
)
VULGAR = "¼½¾⅐-⅞"
ONE_SIGN = re.compile(rf"[{VULGAR}]")
FRAC = re.compile(r"\\[dt]?frac\{([0-9]{1,100})\}\{([0-9]{1,100})\}")
MINUS = str.maketrans({"−": "-", "–": "-"})  # the minus sign and the dash that stands for it


@dataclass(frozen=True)
class Number:
    """`value` as written, before any division by 100; `percent` if a percent sign follows it."""

    value: Fraction
    percent: bool

    def pairs(self, other: "Number") -> list[tuple[Fraction, Fraction]]:
        """The pairs of values of which one has to agree for the two to be equal.

        A percent sign on one side only may be a unit (10% asked for, 10 given) or a factor (0.1 given).
        """
        pairs = [(self.value, other.value)]
        if self.percent and not other.percent:
            pairs.append((self.value / 100, other.value))
        if other.percent and not self.percent:
            pairs.append((self.value, other.value / 100))
        return pairs

    @property
    def is_whole(self) -> bool:
        """True for an integer without a percent sign."""
        return self.value.denominator == 1 and not self.percent


def read_number(text: str) -> Number | None:
    """`text` as a number; None if it is not one number and nothing else (but a currency or percent sign)."""
    found = NUMBER.fullmatch(_plain(text))
    if found is None:
        return None
    if found["power"] is not None:
        value = _decimal(found["factor"] or "1") * Fraction(10) ** int(found["power"])
    elif found["decimal"] is not None:
        value = _decimal(found["decimal"])
    else:
        part = Fraction(int(found["top"]), int(found["bottom"]))
        if found["whole"] is not None and part >= 1:  # 2 5/3
            return None
        value = Fraction(int(found["whole"] or 0)) + part
    return Number(-value if found["sign"] == "-" else value, found["percent"] is not None)


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").removesuffix("."))


def _plain(text: str) -> str:
    r"""`text` with fractions as 3/4, behind a space: ¾ and \frac{3}{4} are such."""
    spaced = ONE_SIGN.sub(lambda sign: " " + unicodedata.normalize("NFKC", sign[0]).replace("⁄", "/"), text)
    return " ".join(FRAC.sub(r" \1/\2", spaced).split()).translate(MINUS)
