r"""Answers in their usual signs: Unicode as LaTeX, and no marks around them that say nothing about their value.

½ -> \frac{1}{2}    x² -> x^{2}    √2 -> \sqrt 2    ４２ -> 42    3·4 -> 3\cdot 4
"""

import re
import unicodedata

MATH_ALIASES = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "∗": r"\cdot ", "÷": r"\div ",
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "±": r"\pm ", "∓": r"\mp ",
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "∞": r"\infty ", "°": r"^{\circ}", "º": r"^{\circ}",
    "≤": r"\le ", "⩽": r"\le ", "≦": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ", "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}",
    "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "′": "'", "’": "'", "∣": "|", "⁄": "/", "∕": "/", "∶": ":", "∠": r"\angle ",
    "△": r"\triangle ", "∆": r"\Delta ", "→": r"\to ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "、": ", ",
    "，": ", ", "；": "; ", "…": r"\ldots ", "ℓ": r"\ell ", "℃": r"^{\circ}\text{C}", "℉": r"^{\circ}\text{F}",
    "。": ".", "∧": r"\land ", "∨": r"\lor ", "‰": r"\permille ",
}  # fmt: skip
GREEK = {chr(c): unicodedata.name(chr(c)).split()[-1].lower() for c in [*range(0x3B1, 0x3C2), *range(0x3C3, 0x3CA)]}
CAPITALS = {
    chr(c): unicodedata.name(chr(c)).split()[-1].capitalize() for c in (0x393, 0x394, 0x398, 0x39B, 0x3A6, 0x3A9)
}
MATH_ALIASES |= {sign: rf"\{name.replace('lamda', 'lambda')} " for sign, name in GREEK.items()}
MATH_ALIASES |= {sign: rf"\{name.replace('Lamda', 'Lambda')} " for sign, name in CAPITALS.items()}
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u2061\u2062\u2063\u00ad\ufe0f"))
RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙ]+")

PAIRS = (("**", "**"), ("`", "`"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|hbox|boldsymbol|bm|displaystyle) ?\{([^{}]*)\}")
PREFIX = re.compile(
    r"(?:\\text\{)? ?(?:so |thus |therefore,? |hence )?(?:the )?(?:correct |final )?answer(?: is:?|:)\s*\}?\s*", re.I
)


def usual(text: str) -> str:
    """`text` with Unicode's mathematical signs, digits and letters in ASCII and LaTeX."""
    if text.isascii():
        return text
    text = text.translate(INVISIBLE)
    text = RAISED.sub(lambda found: "^{" + _plain(found[0]) + "}", text)
    text = LOWERED.sub(lambda found: "_{" + _plain(found[0]) + "}", text)
    return "".join(_sign(sign) for sign in text)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("−", "-")


def _sign(sign: str) -> str:
    if sign.isascii():
        return sign
    if sign in MATH_ALIASES:
        return MATH_ALIASES[sign]
    if sign.isspace():
        return " "
    if (digit := unicodedata.decimal(sign, None)) is not None:
        return str(digit)
    if unicodedata.decomposition(sign).startswith("<fraction>"):
        top, _, bottom = unicodedata.normalize("NFKC", sign).partition("⁄")
        return rf"\frac{{{top}}}{{{bottom}}}"
    plain = unicodedata.normalize("NFKC", sign)
    return "".join(MATH_ALIASES.get(s, s) for s in plain) if plain != sign else sign


def bare(text: str) -> str:
    r"""`text` in usual signs without marks around it (**x**, $x$, \text{x}), 'the answer is' and a final full stop."""
    text = usual(text).strip()
    before = None
    while text != before:
        before = text
        for left, right in PAIRS:
            inner = text[len(left) : -len(right)]
            if text.startswith(left) and text.endswith(right) and len(text) > len(left + right) and left not in inner:
                text = inner.strip()
        if found := TEXT.fullmatch(text):
            text = found[1].strip()
        if (found := PREFIX.match(text)) and text.count("{", 0, found.end()) == text.count("}", 0, found.end()):
            text = text[found.end() :].strip()
        if text.endswith(".") and not text.endswith("..") and not text.endswith(r"\right."):
            text = text[:-1].strip()
    return text
