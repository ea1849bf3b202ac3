"""Templates without `{% generation %}`, in the styles of those that come with models."""

# One line and a default system text, as SmolLM2's and Qwen2's templates.
ONE_LINE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + "
    "'\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# No generation prompt, and checked roles, as Llama 2's and Mistral's templates.
INST = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system ="
    " messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system = false %}"
    "{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if "
    "loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + "
    "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}"
    "{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + "
    "' [/INST]' }}{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# Many lines, white space from the source and `loop.last`, as Zephyr's template; a default date.
LINES = """{%- if strftime_now is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- elif date_string is not defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{{- bos_token + 'Today Date: ' + date_string }}
{% for message in messages %}
{% if message['role'] in ['user', 'system'] %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] | trim + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' ~ message['content'] ~ eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
# Drops the thinking of all turns but the last; has macros, namespaces, slices and a break.
FORGETFUL = """{%- macro say(role, text) %}{{- '<|im_start|>' ~ role ~ '\\n' ~ text ~ '<|im_end|>\\n' }}{%- endmacro %}
{%- set ns = namespace(last=0) %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' %}{%- set ns.last = messages | length - loop.index0 - 1 %}{% break %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and loop.index0 < ns.last and '</think>' in message.content %}
        {{- say('assistant', message.content.split('</think>')[-1].lstrip('\\n')) }}
    {%- else %}
        {{- say(message.role, message.content) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
# Writes an answer differently when more follows it, so each answer is an example.
UNSTABLE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content | upper if m.role == 'assistant' and not loop.last else m.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MODEL_TEMPLATES = {"one line": ONE_LINE, "inst": INST, "lines": LINES, "forgetful": FORGETFUL}
