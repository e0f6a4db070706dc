"""The quick-start task: column addition, where the policy can do every column but has never seen a carry.

Easy problems are what the starter model has learnt; hard ones need what no easy problem shows, a carry of 1 that goes
from the units into the tens.

    kind                 prompt    golden answer                  problems  share of easy
    one_digit            3+8?      0+3+8=11:11                         100   20%
    one_digit_plus_one   3+8+1?    3+8+1=12:12                         100   30%
    two_digit            39+60?    0+9+0=09;0+3+6=09:99              4,455   30%
    two_digit_columns    39;66?    0+9+6=15;0+3+6=09:95              3,645   20%
    two_digit_carry      39+66?    0+9+6=15;1+3+6=10:105             3,645   (hard)

A step is `carry+x+y=sum` with the sum in two digits, the units column first; the answer, without leading zeros, comes
after ':'. `two_digit` has no carry out of the units, so its second step always begins with 0. `two_digit_columns`
(';' for '+') adds each column by itself: the sum of the tens, then the last digit of the sum of the units. It shows a
units sum of 10 or more inside two columns, so that the steps of a hard answer are all familiar except the carry, and
it keeps the starter from carrying by accident. `one_digit_plus_one` shows what a carry-in does to a column, but with
the 1 at the end, not in front as in a hard step.

Other formats were tried: with `1+3+8=12` and without columns, the starter had 16 to 30% of the hard problems right;
with the bare answer `:12`, GCPO was slow (29 to 66% after 60 steps); with these formats and 400 or 700 steps of
warm-up, GRPO found the carry by itself on one seed of two or of five (72 and 80% after 60 steps). So formats and
warm-up (900 steps) were chosen, looking at seeds 0 to 4, for the starter to fail every hard problem and for the carry
to be learnable from golden answers.

Everything here is a pure function of its arguments.
"""

from dataclasses import asdict, dataclass

from gcpo_mcore.data.cursor import permutation

TRAIN_EASY_ROWS = 8000
EVAL_ROWS = 128
SHARES = {"one_digit": 0.2, "one_digit_plus_one": 0.3, "two_digit": 0.3, "two_digit_columns": 0.2}

SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>"]
# The last six are spare, for tasks of the same kind ("12-3*(4)").
CHARACTERS = "0123456789+=;:?" + "-*() \n"
# Messages are joined as they are: the task has no roles, and a conversation of one message is that message.
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Problem:
    """One row of a data file; the fields are its columns."""

    prompt: str
    answer: str
    golden_answer: str
    kind: str


def one_digit(a: int, b: int) -> Problem:
    """Problems a+b for digits a and b: a column without carry-in."""
    return Problem(f"{a}+{b}?", f"{a + b}", f"{_step(0, a, b)}:{a + b}", "one_digit")


def one_digit_plus_one(a: int, b: int) -> Problem:
    """Problems a+b+1 for digits a and b: a column with carry-in 1, which comes last."""
    return Problem(f"{a}+{b}+1?", f"{a + b + 1}", f"{a}+{b}+1={a + b + 1:02d}:{a + b + 1}", "one_digit_plus_one")


def two_digit(a: int, b: int) -> Problem:
    """Problems a+b for a and b in 10..99; the kind says whether the units carry."""
    (a_tens, a_units), (b_tens, b_units) = divmod(a, 10), divmod(b, 10)
    carry = (a_units + b_units) // 10
    golden = f"{_step(0, a_units, b_units)};{_step(carry, a_tens, b_tens)}:{a + b}"
    return Problem(f"{a}+{b}?", f"{a + b}", golden, "two_digit_carry" if carry else "two_digit")


def verbose(a: int, b: int) -> str:
    """Another worked solution of a+b with a carry: the tens without it, then the carry in a step of its own.

    39+66?  0+9+6=15;0+3+6=09;1+09=10:105
    """
    (a_tens, a_units), (b_tens, b_units) = divmod(a, 10), divmod(b, 10)
    tens, carry = a_tens + b_tens, (a_units + b_units) // 10
    steps = [_step(0, a_units, b_units), _step(0, a_tens, b_tens), f"{carry}+{tens:02d}={carry + tens:02d}"]
    return f"{';'.join(steps)}:{a + b}"


def two_digit_columns(a: int, b: int) -> Problem:
    """The columns of a and b in 10..99 added without a carry: the sum of the tens, then the units' last digit."""
    (a_tens, a_units), (b_tens, b_units) = divmod(a, 10), divmod(b, 10)
    answer = f"{a_tens + b_tens}{(a_units + b_units) % 10}"
    golden = f"{_step(0, a_units, b_units)};{_step(0, a_tens, b_tens)}:{answer}"
    return Problem(f"{a};{b}?", answer, golden, "two_digit_columns")


def problems() -> dict[str, list[Problem]]:
    """Every problem there is, by kind, in counting order."""
    digits, numbers = range(10), range(10, 100)
    pairs = [two_digit(a, b) for a in numbers for b in numbers]
    columns = [two_digit_columns(a, b) for a in numbers for b in numbers if a % 10 + b % 10 >= 10]
    return {
        "one_digit": [one_digit(a, b) for a in digits for b in digits],
        "one_digit_plus_one": [one_digit_plus_one(a, b) for a in digits for b in digits],
        "two_digit": [p for p in pairs if p.kind == "two_digit"],
        "two_digit_columns": columns,
        "two_digit_carry": [p for p in pairs if p.kind == "two_digit_carry"],
    }


def make(seed: int) -> dict[str, list[dict[str, str]]]:
    """The rows of the four files, by file stem.

    train_easy  8,000 rows in the shares above. The one-digit kinds have only 100 problems each, so each comes 16 or 24
                times; the other rows are all different.
    train_hard  the 3,517 hard problems that are not held out, with another worked solution in the column golden_verbose
    eval_easy   128 rows in the same shares: the one-digit ones are also in train_easy, the others are not
    eval_hard   128 hard problems that are not in train_hard
    """
    shuffled = {kind: _shuffle(found, f"carry/{seed}/{kind}") for kind, found in problems().items()}
    hard = shuffled.pop("two_digit_carry")
    train, held_out = [], []
    for kind, found in shuffled.items():
        n_held_out = round(EVAL_ROWS * SHARES[kind])
        held_out += found[:n_held_out]
        left = found if kind.startswith("one_digit") else found[n_held_out:]
        train += [left[i % len(left)] for i in range(round(TRAIN_EASY_ROWS * SHARES[kind]))]
    files = {
        "train_easy": _shuffle(train, f"carry/{seed}/train_easy"),
        "train_hard": hard[EVAL_ROWS:],
        "eval_easy": _shuffle(held_out, f"carry/{seed}/eval_easy"),
        "eval_hard": hard[:EVAL_ROWS],
    }
    made = {stem: [asdict(p) for p in rows] for stem, rows in files.items()}
    for row in made["train_hard"]:
        row["golden_verbose"] = verbose(*map(int, row["prompt"].rstrip("?").split("+")))
    return made


def make_tokenizer():
    """A Hugging Face tokenizer of 25 tokens, one per character; text outside CHARACTERS has no tokens.

    It is of Qwen2's class because `AutoTokenizer` gives a folder with a Qwen2 model that class, whatever the folder's
    own tokenizer says: another class would come back with other rules. Byte-level rules without merges are one token
    per character; they write the space as 'Ġ' and the line end as 'Ċ'.
    """
    from transformers import Qwen2Tokenizer  # slow to import, and only `prepare` needs it

    written = {" ": "Ġ", "\n": "Ċ"}
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *(written.get(c, c) for c in CHARACTERS)])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _step(carry: int, x: int, y: int) -> str:
    return f"{carry}+{x}+{y}={carry + x + y:02d}"


def _shuffle(rows: list, key: str) -> list:
    return [rows[i] for i in permutation(key, len(rows)).tolist()]
