"""Generated answers that are hostile or odd, the same for the same seed."""

import random
from collections.abc import Callable, Iterator

BACKTRACKS = r"(so \\boxed\{)?((a+)+b|.*)"  # a regular expression that takes for ever on many a's

# Each takes a random generator and gives what stands in the box, or anywhere in the response.
MAKERS: dict[str, Callable[[random.Random], str]] = {
    "tower": lambda r: "^".join(["{9"] * r.randint(3, 6)) + "}" * 3,
    "python power": lambda r: "**".join(["9"] * r.randint(3, 6)),
    "factorial": lambda r: f"{r.randint(10**5, 10**9)}!" + "!" * r.randint(0, 2),
    "binomial": lambda r: rf"\binom{{{r.randint(10**5, 10**7)}}}{{{r.randint(10**4, 10**5)}}}",
    "sum": lambda r: rf"\sum_{{i=1}}^{{{r.randint(10**5, 10**9)}}} i^{{i}}",
    "expand": lambda r: f"(x+y+z+w)^{{{r.randint(100, 900)}}}",
    "nested braces": lambda r: "{" * r.randint(10, 100_000) + "x" + "}" * r.randint(0, 100_000),
    "nested brackets": lambda r: r.choice("([") * r.randint(10, 50_000),
    "nested fractions": lambda r: r"\frac{1" * r.randint(5, 150) + "}" * r.randint(0, 150),
    "nested roots": lambda r: r"\sqrt{" * r.randint(5, 200) + "2" + "}" * r.randint(0, 200),
    "boxes": lambda r: r"\boxed{" * r.randint(10, 10_000) + "}" * r.randint(0, 10_000),
    "dollars": lambda r: "$" * r.randint(1, 100_000),
    "backslashes": lambda r: "\\" * r.randint(1, 100_000),
    "long number": lambda r: r.choice(["", "-", "0.", "1e"]) + r.choice("123456789") * r.randint(1000, 1_000_000),
    "groups": lambda r: "1," * r.randint(10, 50_000) + "1",
    "exponent": lambda r: f"{r.randint(1, 9)}e{r.randint(10**3, 10**9)}",
    "long sum": lambda r: "1+" * r.randint(10, 50_000) + "1",
    "long product": lambda r: "(x+1)" * r.randint(10, 400),
    "set": lambda r: r"\{" + ",".join(str(r.random()) for _ in range(r.randint(1, 500))) + r"\}",
    "matrix": lambda r: (
        r"\begin{pmatrix}" + r"\\".join("&".join("1" * r.randint(1, 3) for _ in range(30)) for _ in range(30))
    ),
    "integral": lambda r: rf"\int_0^{{{r.randint(1, 9)}}} e^{{-x^{r.randint(2, 9)}}} \sin(x^x) dx",
    "zero": lambda r: r.choice(["1/0", r"\frac{1}{0}", "0^0", "0/0", r"\infty-\infty", r"\log 0", "0^{-1}"]),
    "python": lambda r: r.choice(["__import__('os').system('exit 1')", "exit()", "().__class__.__mro__", "lambda: 0"]),
    "null bytes": lambda r: "\0" * r.randint(1, 1000) + "42",
    "unicode": lambda r: "".join(chr(r.choice([r.randint(1, 0xD7FF), r.randint(0xE000, 0x10FFFF)])) for _ in range(99)),
    "surrogates": lambda r: "".join(chr(r.randint(0xD800, 0xDFFF)) for _ in range(r.randint(1, 20))),
    "digits of the world": lambda r: r.choice(["٤٢", "四十二", "ⅩⅬⅡ", "½", "𝟒𝟐", "4️⃣2️⃣", "x²"]),
    "empty": lambda r: r.choice(["", " ", "\n" * 99, "\t", "\u200b", r"\ ", "{}", "$$"]),
    "letters": lambda r: "".join(r.choice("ABCDEabcxyz ()+-=^_{}\\0123456789,.%$") for _ in range(r.randint(1, 300))),
    "commands": lambda r: "".join(
        rf"\{r.choice(['frac', 'sqrt', 'left', 'right', 'text', 'begin', 'int', 'sum', 'lim', 'over', 'def'])}"
        + r.choice(["", "{", "}", "1", "x", "^", "_", "("])
        for _ in range(r.randint(1, 60))
    ),
    "backtracking": lambda r: "a" * r.randint(40, 1000),  # for the expression in BACKTRACKS
    "words": lambda r: " ".join(r.choice(["the", "answer", "is", "or", "and", "not", "7"]) for _ in range(2000)),
}
# These keep a worker busy until the deadline, and each costs one: a few of them show what many would.
COSTLY = {"backtracking"}


def answers(total: int, costly: int, seed: int) -> Iterator[tuple[str, str]]:
    """`total` different pairs of maker and response, `costly` of them from the costly makers; evenly spread."""
    r = random.Random(seed)
    cheap, dear = sorted(MAKERS.keys() - COSTLY), sorted(COSTLY)
    seen = set()
    while len(seen) < total:
        name = r.choice(dear if len(seen) * costly % total < costly else cheap)
        made = MAKERS[name](r)
        response = made if r.random() < 0.1 else rf"so \boxed{{{made}}}."
        if response not in seen:
            seen.add(response)
            yield name, response
