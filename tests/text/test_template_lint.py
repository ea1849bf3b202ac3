"""The lint: good templates pass, and each fault is found by its own check."""

import pytest

from ift_jax.text.chat_templates.registry import NAMES
from ift_jax.text.template_lint import lint
from tests.text.chat_templates.model_templates import FORGETFUL, ONE_LINE
from tests.text.formatters import chat_formatter, named_formatter


def failed(formatter):
    return {finding.check for finding in lint(formatter) if not finding.ok}


@pytest.mark.parametrize("style", ["byte_level", "llama_legacy"])
@pytest.mark.parametrize("name", NAMES)
def test_named_templates_pass(name, style):
    findings = {finding.check: finding for finding in lint(named_formatter(name, style))}
    assert {check for check, finding in findings.items() if not finding.ok} == set()
    if name in ("qwen3", "mistral_v3"):
        assert findings["prefix_stable"].detail == "one example for each trained turn"


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
        "{{ m.content ~ (eos_token if loop.index < 3 else '') }}{% endgeneration %}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
    )
    assert "stop_trained" in failed(chat_formatter(no_stop))
