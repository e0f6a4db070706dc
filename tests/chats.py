"""Chat tokenizers: the carry task's characters with special tokens and templates of the kinds that models have."""

from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from gcpo_mcore.tasks import carry

BOS, EOS = 1, 2  # of the carry task's tokenizer; the tokens added here begin at 25
CHATML = (
    "{% for m in messages %}<|im_start|>{{ '(' if m.role == 'user' else ')' }}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>){{ opened | default('') }}{% endif %}"
)


def chat_tokenizer(
    special: tuple[str, ...] = ("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    template: str | None = CHATML,
    around: str | None = None,
) -> PreTrainedTokenizerBase:
    """`special` become ids 25 and on; `around` is what encode() puts around plain text: '<bos> $A <eos>'."""
    made = carry.make_tokenizer()
    made.add_tokens([AddedToken(text, special=True, normalized=False) for text in special], special_tokens=True)
    if around:
        pairs = [("<bos>", BOS), ("<eos>", EOS)]
        made.backend_tokenizer.post_processor = TemplateProcessing(single=around, special_tokens=pairs)
    made.chat_template = template
    return made
