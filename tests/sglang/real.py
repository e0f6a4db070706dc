"""What the tests with real servers share."""

from importlib.metadata import distributions
from pathlib import Path

from transformers import AutoTokenizer

from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.server import FIRST_WITH_CPU_CHECKSUMS
from gcpo_mcore.samples import Prompt

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "prepared/carry-seed0/starter"


def verify_sync() -> str:
    """The option for checksums after each sync, true if the SGLang of `make sglang-cpu` can make them."""
    packages = (ROOT / ".venv-sglang/lib").glob("*/site-packages")
    found = list(distributions(name="sglang", path=list(map(str, packages))))
    assert found, ".venv-sglang has no SGLang: `make sglang-cpu` makes it"
    can = tuple(map(int, found[0].version.split("."))) >= FIRST_WITH_CPU_CHECKSUMS
    return f"rollout.verify_sync={str(can).lower()}"


class Tokenizer:
    """The starter's, of which only `decode` is another: it calls `on_answer` when so many answers have come."""

    def __init__(self):
        self.real = AutoTokenizer.from_pretrained(STARTER)
        self.at, self.on_answer, self.answers = 0, None, 0

    def __getattr__(self, name):
        return getattr(self.real, name)

    def decode(self, ids, skip_special_tokens):
        self.answers += 1
        if self.answers == self.at:
            self.on_answer()
        return "text"


def requests() -> list[Request]:
    return [
        Request(Prompt(f"p:{i // 8}", "p", "", [5 + i // 8 % 7, 6, 7, 8 + i // 8 % 3], ""), i % 8, i)
        for i in range(192)
    ]
