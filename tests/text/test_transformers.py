"""The ids of ChatML are those of `apply_chat_template` in `transformers`."""

import pytest

from ift_jax.text.dropped import Dropped
from tests.text.conversations import conversations
from tests.text.formatters import small_formatter
from tests.text.small_tokenizers import huggingface_definition

JINJA = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_the_ids_are_those_of_apply_chat_template():
    transformers = pytest.importorskip("transformers")
    import tokenizers

    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(huggingface_definition()),
        eos_token="<|endoftext|>",
        chat_template=JINJA,
    )

    def ids(messages, **options):
        encoded = theirs.apply_chat_template(messages, tokenize=True, return_dict=True, **options)
        return encoded["input_ids"]

    # `transformers` encodes control strings in a user's text as control tokens, which is an option
    # here. It may also join white space at the start of a text with the newline of the header.
    formatter = small_formatter("huggingface", template="chatml", control_strings="control")
    compared = 0
    for record in conversations(6, 400, tools=True):
        if any(m.content != m.content.lstrip() for m in record.messages):
            continue
        messages = [{"role": m.role, "content": m.content} for m in record.messages]
        made = formatter.encode(record)
        if isinstance(made, Dropped):
            continue
        (example,) = made
        assert example.tokens.tolist() == ids(messages)
        for turn, message in enumerate(messages):
            if message["role"] == "assistant":
                expected = ids(messages[:turn], add_generation_prompt=True)
                assert formatter.prompt(record.messages[:turn]).tolist() == expected
        compared += 1
    assert compared > 100
