"""Tokens and options that only the small files beside a tokenizer declare, against transformers."""

import functools
import itertools
import json
import os

import pytest
import tokenizers

from ift_jax.config.schema import TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.text.records import Message, Record
from ift_jax.text.tokenizers.load import load_tokenizer, tokenizer_from_files
from tests.text import chat_tokenizers as chat
from tests.text.formatters import make_formatter
from tests.text.small_tokenizers import llama_model

END = "<|end|>"
TEXTS = [
    f"{before}<|end|>{middle}<|x|>{after}"
    for before, middle, after in itertools.product(
        ("", "Anna counts"), ("", " \n ", "im portant", " é"), ("apples", "\n\n x", "")
    )
] + ["a<|y|> b", "<s>The user</s> has", "plain text", ""]


def write(folder, definition, config=None, by_role=None, added=None):
    folder.mkdir(exist_ok=True)
    kind = "tokenizer.json" if isinstance(definition, str) else "tokenizer.model"
    content = definition.encode() if isinstance(definition, str) else definition
    (folder / kind).write_bytes(content)
    files = {
        "tokenizer_config.json": config,
        "special_tokens_map.json": by_role,
        "added_tokens.json": added,
    }
    for name, value in files.items():
        if value is not None:
            (folder / name).write_text(json.dumps(value))
    return str(folder)


@functools.cache
def _transformers():
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    return transformers


def _theirs(folder, kind="AutoTokenizer", **options):
    return getattr(_transformers(), kind).from_pretrained(folder, **options)


def _added(content, **flags):
    default = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {"content": content, "special": True} | default | flags


FAST = {"tokenizer_class": "PreTrainedTokenizerFast"} | chat.NAMED


def _declarations(n):
    """Return ways to declare <|x|> (id n), some also <|y|>: the files, and the control tokens."""
    x, y = _added("<|x|>"), _added("<|y|>", special=False)
    listed = ["<|x|>", y | {"__type": "AddedToken"}]
    return {
        "additional": ({"additional_special_tokens": ["<|x|>", "<|y|>"]}, {}, None, "xy"),
        "extra": ({"extra_special_tokens": listed}, {}, None, "xy"),
        "extra by name": ({"extra_special_tokens": {"image_token": "<|x|>"}}, {}, None, "x"),
        "a role": ({"image_token": "<|x|>"}, {}, None, "x"),
        "decoder": ({"added_tokens_decoder": {str(n): x, str(n + 1): y}}, {}, None, "x"),
        "decoder, out of order": ({"added_tokens_decoder": {n + 1: y, n: x}}, {}, None, "x"),
        "flags": ({"added_tokens_decoder": {n - 1: _added(END, rstrip=True), n: x}}, {}, None, "x"),
        "map": ({}, {"extra_special_tokens": ["<|x|>"]}, None, "x"),
        "file and map": ({"extra_special_tokens": ["<|x|>"]}, {}, {"<|x|>": n}, "x"),
    }


WAYS = list(_declarations(0))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("style", chat.STYLES)
def test_declared_tokens_have_the_ids_of_transformers(tmp_path, style, way):
    definition = chat.definition(style, (END,))
    n = tokenizers.Tokenizer.from_str(definition).get_vocab_size()
    config, by_role, added, control = _declarations(n)[way]
    folder = write(tmp_path, definition, FAST | config, by_role or None, added)
    ours, theirs = load_tokenizer(folder), _theirs(folder)
    for text in TEXTS:
        assert ours.encode_with_controls(text) == theirs.encode(text, add_special_tokens=False)
    assert [f"<|{name}|>" in ours.special_tokens for name in "xy"] == [
        name in control for name in "xy"
    ]
    assert ours.special_tokens["<|x|>"] == n and ours.vocab_size == len(theirs)
    assert ours.base_vocab_size == ours.vocab_size  # The model that was released knows them.
    again = tokenizer_from_files(ours.files)
    assert again.fingerprint == ours.fingerprint and again.special_tokens == ours.special_tokens


def test_a_token_of_added_tokens_json_alone_is_a_control_token(tmp_path):
    """`transformers` 5 encodes it as one id, too, but does not call it special."""
    definition = chat.definition("byte_level", (END,))
    n = tokenizers.Tokenizer.from_str(definition).get_vocab_size()
    folder = write(tmp_path, definition, FAST, None, {"<|x|>": n, "<|y|>": n + 1})
    ours, theirs = load_tokenizer(folder), _theirs(folder)
    assert ours.special_tokens["<|x|>"] == n and ours.special_tokens["<|y|>"] == n + 1
    for text in TEXTS:
        assert ours.encode_with_controls(text) == theirs.encode(text, add_special_tokens=False)
    # What the tokenizer itself lists as an ordinary token stays one, as Qwen's <tool_call>.
    fields = json.loads(definition)
    for token in fields["added_tokens"]:
        token["special"] = token["content"] != END
    folder = write(tmp_path / "listed", json.dumps(fields), FAST, None, {END: n - 1})
    assert END not in load_tokenizer(folder).special_tokens
    assert n - 1 in load_tokenizer(folder).encode(f"a{END}b")


PHI_3 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|>\n' }}{% generation %}"
    "{{ m.content + '<|end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


@pytest.mark.parametrize("style", ["llama_legacy", "llama_first", "byte_level"])
@pytest.mark.parametrize("flags", [{"rstrip": True}, {"lstrip": True}, {}])
def test_tokens_that_swallow_white_space_do_so_across_an_answers_edge(tmp_path, style, flags):
    """Phi-3's control tokens all have rstrip."""
    names = ("<|user|>", "<|assistant|>", END)
    fields = json.loads(chat.definition(style, names))
    for token in fields["added_tokens"]:
        token.update(flags if token["content"] in names else {})
    folder = write(tmp_path, json.dumps(fields), FAST)
    ours, theirs = load_tokenizer(folder), _theirs(folder)
    for question, answer in (("Hi", "Hello."), (" Hi ", "\n  x = 1\n"), ("\u2003a", "b\u00a0 ")):
        messages = (Message("user", question), Message("assistant", answer)) * 2
        formatter = make_formatter(ours, template=PHI_3)
        (example,) = formatter.encode(Record(messages))
        dicts = [{"role": m.role, "content": m.content} for m in messages]
        text = theirs.apply_chat_template(dicts, chat_template=PHI_3, tokenize=False)
        assert example.tokens.tolist() == theirs.encode(text, add_special_tokens=False)
        prompt = formatter.prompt(messages[:1]).tolist()
        assert example.tokens.tolist()[: len(prompt)] == prompt
        # The answer and its stop are trained, the newline after them is not where it is swallowed.
        end = ours.special_tokens[END]
        trained = example.tokens[example.weights > 0].tolist()
        assert trained.count(end) == 2
        if "rstrip" in flags:
            assert trained[-1] == end


def test_each_kind_of_control_token_is_judged_by_itself():
    """In Llama's legacy style a normalized control token is part of the text around it."""
    fields = json.loads(chat.definition("llama_legacy", ("<|x|>", "<|y|>")))
    for token in fields["added_tokens"]:
        token["normalized"] = token["content"] == "<|y|>"
    tokenizer = chat.HuggingFaceTokenizer(json.dumps(fields), chat.NAMED)
    assert tokenizer.place_after("<|x|>") == "control"
    assert tokenizer.place_after("<|y|>") == "text"
    for control in ("<|x|>", "<|y|>"):
        whole = tokenizer.encode_with_controls(f"{control}has lost")
        start = tokenizer.encode_with_controls(control)
        place = tokenizer.place_after(control)
        assert whole == start + tokenizer.encode("has lost", place)


LLAMA = {"tokenizer_class": "LlamaTokenizer"}
LLAMA |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.mark.parametrize(
    "options",
    [{"legacy": False}, {"legacy": True}, {"add_prefix_space": False, "legacy": False}],
)
def test_the_options_of_a_bare_model_are_read(tmp_path, options):
    n = 420
    decoder = {str(n): _added("<|end|>"), str(n + 1): _added("<|x|>", rstrip=True)}
    decoder[str(n + 2)] = _added("<|y|>", special=False)
    config = LLAMA | {"added_tokens_decoder": decoder} | options
    folder = write(tmp_path, llama_model(), config)
    ours, theirs = load_tokenizer(folder), _theirs(folder, "LlamaTokenizer")
    assert ours.vocab_size == len(theirs) == n + 3
    assert "<|y|>" not in ours.special_tokens and n + 2 in ours.encode("a<|y|>b")
    # `transformers` 5 puts no space before a space; SentencePiece, and `transformers` 4, do.
    texts = [text for text in TEXTS if not ours.legacy or "> " not in text]
    for text in texts:
        ids = ours.encode_with_controls(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        if not ours.legacy:  # There, the text after a control token loses its own space again.
            assert ours.decode(ids, keep_special=True) == theirs.decode(ids)
    again = tokenizer_from_files(ours.files)
    assert again.fingerprint == ours.fingerprint and again.files == ours.files
    assert [again.encode_with_controls(t) for t in TEXTS] == [
        ours.encode_with_controls(t) for t in TEXTS
    ]


@pytest.mark.parametrize(
    ("config", "model", "adds"),
    [
        ({"add_bos_token": True}, False, True),
        ({"add_bos_token": False}, False, False),
        ({}, False, None),
        ({"add_bos_token": True}, True, True),
        ({"add_bos_token": False, "tokenizer_class": "LlamaTokenizer"}, True, False),
        ({"tokenizer_class": "GemmaTokenizerFast"}, True, True),
        ({"tokenizer_class": "PreTrainedTokenizer"}, True, False),
    ],
)
def test_whether_a_tokenizer_puts_bos_before_a_text(tmp_path, config, model, adds):
    if model:
        tokenizer = load_tokenizer(write(tmp_path, llama_model(), config))
        assert tokenizer.adds_bos == adds
        assert tokenizer_from_files(tokenizer.files).adds_bos == adds
        return
    # A tokenizer.json says it by its post-processor, unless the config beside it says otherwise.
    for in_file in (True, False):
        inner = tokenizers.Tokenizer.from_str(chat.definition("byte_level", (END,)))
        if in_file:
            inner.post_processor = tokenizers.processors.TemplateProcessing(
                "<s> $A", None, [("<s>", 1)]
            )
        folder = write(tmp_path, inner.to_str(), FAST | config)
        tokenizer = load_tokenizer(folder)
        assert tokenizer.adds_bos == (in_file if adds is None else adds)
        if adds is None:
            assert (_theirs(folder).encode("a")[0] == tokenizer.bos_id) == in_file
        assert tokenizer_from_files(tokenizer.files).adds_bos == tokenizer.adds_bos


def test_without_a_config_a_bare_model_is_legacy(tmp_path):
    (tmp_path / "t.model").write_bytes(llama_model())
    tokenizer = load_tokenizer(str(tmp_path / "t.model"))
    assert tokenizer.legacy and not tokenizer.adds_bos
    assert tokenizer.encode("has", "control") == tokenizer.encode("has")


def test_a_declared_token_may_rename_a_reserved_piece_and_have_a_role(tmp_path):
    decoder = {"419": _added("<|im_end|>"), "420": _added("<|im_start|>")}
    config = LLAMA | {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    folder = write(tmp_path, llama_model(), config | {"added_tokens_decoder": decoder})
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eos_id == 419 and tokenizer.special_tokens["<|im_start|>"] == 420
    assert tokenizer.pad_id == 0  # The unknown piece: padding must be told from an ending.
    assert tokenizer.decode([419, 420], keep_special=True) == "<|im_end|><|im_start|>"


def test_t5s_own_list_of_sentinels_is_read(tmp_path):
    sentinels = [f"<extra_id_{i}>" for i in range(3)]
    folder = write(tmp_path, llama_model(), {"additional_special_tokens": sentinels})
    tokenizer = load_tokenizer(folder)
    assert [tokenizer.special_tokens[s] for s in sentinels] == [422, 421, 420]
    assert load_tokenizer(folder, TokenizerConfig(extra_ids=3)).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("config", "added", "message"),
    [
        ({"added_tokens_decoder": {"9": _added(END)}}, None, "declare '<|end|>' as id 9"),
        ({"added_tokens_decoder": {"9999": _added("<|x|>")}}, None, "declare '<|x|>' as id 9999"),
        ({"added_tokens_decoder": [END]}, None, "added_tokens_decoder is a list; expected an obj"),
        ({"added_tokens_decoder": {"x": _added("<|x|>")}}, None, "['x']: expected an id"),
        ({"added_tokens_decoder": {"9": 7}}, None, "['9'] is a number; expected a token"),
        ({"added_tokens_decoder": {"9": {"rstrip": True}}}, None, "expected a token"),
        ({"added_tokens_decoder": {"9": _added("a", rstrip=1)}}, None, "rstrip is 1; expected tr"),
        ({"extra_special_tokens": "<|x|>"}, None, "extra_special_tokens is a string; expected a"),
        ({"additional_special_tokens": [None]}, None, "tokens[0] is null; expected a token"),
        ({"add_bos_token": "yes"}, None, "add_bos_token is 'yes'; expected true or false"),
        ({"legacy": 0}, None, "legacy is 0; expected true or false"),
        ({"eos_token": {"rstrip": False}}, None, "eos_token is an object; expected a token"),
        ({}, {"<|x|>": "9"}, "added_tokens.json: the id of '<|x|>' is '9'; expected a whole num"),
        ({}, {"<|x|>": -1}, "added_tokens.json: the id of '<|x|>' is -1"),
    ],
)
@pytest.mark.parametrize("kind", ["json", "model"])
def test_what_is_declared_wrongly_is_named(tmp_path, config, added, message, kind):
    definition = chat.definition("byte_level", (END,)) if kind == "json" else llama_model()
    if kind == "model" and "as id 9" in message:
        config, message = {"added_tokens_decoder": {"9": _added("<s>")}}, "'<s>' as id 9"
    folder = write(tmp_path, definition, chat.NAMED | config, None, added)
    with pytest.raises(UserError) as caught:
        load_tokenizer(folder)
    assert message in str(caught.value) and "\n" not in str(caught.value)
