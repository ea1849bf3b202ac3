"""The lint: good templates pass, and each fault is found by its own check."""

import pytest

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.registry import NAMES
from ift_jax.text.records import Message
from ift_jax.text.template_lint import lint
from tests.text import chat_tokenizers as chat
from tests.text.chat_templates.model_templates import FORGETFUL, ONE_LINE
from tests.text.conversations import text_record
from tests.text.formatters import chat_formatter, make_formatter, named_formatter
from tests.text.small_tokenizers import CHATML


def adds_bos(template):
    return chat.HuggingFaceTokenizer(
        chat.definition("byte_level", CHATML), chat.NAMED, add_bos=True, chat_template=template
    )


def failed(formatter):
    return {finding.check for finding in lint(formatter) if not finding.ok}


@pytest.mark.parametrize("style", ["byte_level", "llama_legacy"])
@pytest.mark.parametrize("name", NAMES)
def test_named_templates_pass(name, style):
    findings = {finding.check: finding for finding in lint(named_formatter(name, style))}
    assert {check for check, finding in findings.items() if not finding.ok} == set()
    if name in ("qwen3", "mistral_v3"):
        assert findings["prefix_stable"].detail == "one example for each trained turn"
        assert str(findings["prefix_stable"]).startswith("note  prefix_stable ")
    assert str(findings["stop_trained"]) == (
        "ok    stop_trained      every answer ends in its trained stop token"
    )


def test_a_tokenizer_that_adds_bos_gets_it_unless_the_templates_author_left_it_out():
    """As Gemma's and Llama's do; published: Gemma's perplexity is 3.5 with it, 10^9 without."""
    tokenizer = adds_bos(ONE_LINE)
    for template in ("chatml", "plain", "zephyr", ONE_LINE):
        formatter = make_formatter(tokenizer, template=template)
        assert failed(formatter) == set()
        (example,) = formatter.encode(text_record("Hi", "Yo"))
        prompt = formatter.prompt((Message("user", "Hi"),)).tolist()
        for ids in (example.tokens.tolist(), prompt):
            assert ids[0] == tokenizer.bos_id and ids.count(tokenizer.bos_id) == 1
        assert not example.weights[0]
        # What is exported writes the same text in `transformers`.
        assert formatter.template_source.startswith("{{- bos_token }}")
    # A template of the tokenizer's own is applied as it is; the lint finds what it lacks.
    own = make_formatter(tokenizer, template="model")
    assert own.template_source == ONE_LINE and failed(own) == {"one_bos"}
    assert failed(make_formatter(tokenizer, template="model", add_bos="always")) == set()
    never = make_formatter(tokenizer, template="chatml", add_bos="never")
    assert failed(never) == set()
    assert tokenizer.bos_id not in never.encode(text_record("Hi", "Yo"))[0].tokens
    # One that writes BOS is left alone.
    assert failed(make_formatter(tokenizer, template="llama2")) == set()


def test_a_tokenizer_without_bos_cannot_be_asked_for_it():
    tokenizer = chat.HuggingFaceTokenizer(
        chat.definition("byte_level", CHATML), {"eos_token": "</s>", "pad_token": "<pad>"}
    )
    with pytest.raises(UserError, match="format.add_bos = 'always': the tokenizer has no BOS"):
        make_formatter(tokenizer, template="chatml", add_bos="always")
    assert failed(make_formatter(tokenizer, template="chatml")) == set()


def test_faults_are_found():
    assert failed(chat_formatter(ONE_LINE)) == set()
    assert failed(chat_formatter(FORGETFUL)) == set()
    assert "one_bos" in failed(chat_formatter("{{ bos_token }}{{ bos_token }}" + ONE_LINE))
    no_prompt = ONE_LINE.partition("{% if add_generation_prompt %}")[0]
    assert "header_untrained" in failed(chat_formatter(no_prompt))
    shifting = ONE_LINE.replace(
        "{{'<|im_start|>'", "{{ '!' if messages|length == 3 }}{{'<|im_start|>'"
    )
    assert "prefix_stable" in failed(chat_formatter(shifting))
    no_stop = (
        "{% for m in messages %}{{ m.role }}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content ~ (eos_token if loop.index < 3 else '') }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
    )
    assert failed(chat_formatter(no_stop)) == {"prefix_stable"}  # Such records are dropped.
    deaf = ONE_LINE.replace(
        "message['content']", "('' if message['role'] == 'system' else message['content'])"
    )
    assert "writes_all" in failed(chat_formatter(deaf))


def test_an_option_that_the_template_does_not_read_is_found():
    def found(template, *options):
        findings = lint(chat_formatter(template, template_options=options))
        [of_options] = [each for each in findings if each.check == "options_read"]
        return "" if of_options.ok else of_options.detail

    switched = "{{ '' if enable_thinking else ' ' }}" + ONE_LINE
    assert not found(switched, "enable_thinking=false")
    assert not found("{{ strftime_now('%d') }}" + ONE_LINE, 'date="2026-01-31"')
    assert found(switched, "enable_thinkng=false") == (
        "format.template_options: the template reads no variable 'enable_thinkng'; did you mean "
        "'enable_thinking'?"
    )
    assert found("plain", "enable_thinking=false") and found(ONE_LINE, 'date="2026-01-31"')
