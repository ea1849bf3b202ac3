"""Config sections `tokenizer`, `format` and `data`: what a run reads, and how it becomes rows."""

import dataclasses
from typing import NamedTuple

from ift_jax.config.fields import field

# The shapes of rows; see ift_jax.text.rows.shapes.
SCHEMAS = (
    "auto",
    "messages",
    "conversations",
    "conversation",
    "prompt_completion",
    "instruction",
    "inputs_targets",
    "text",
    "preference",
)
# What drops examples; see ift_jax.text.filters.
FILTERS = ("thinking", "repeats", "chinese", "dates", "identity", "license")
_LONGEST = 2**22  # Tokens of a row: packing keeps a bit for each.


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The tokenizer of a run: the one at `path`, or one that the run trains."""

    path: str = field(
        "",
        'A SentencePiece ".model" file, a "tokenizer.json", or a folder that holds one of them; '
        '"byt5": the bytes of UTF-8, as ByT5 numbers them. '
        "With model.init_from the checkpoint's own tokenizer is the default.",
    )
    extra_ids: int = field(
        0,
        "Number of T5's sentinel tokens, which are numbered down from the last id.",
        minimum=0,
        maximum=100_000,
    )
    train_vocab_size: int = field(
        0,
        "If positive, and neither tokenizer.path nor model.init_from gives a tokenizer, a "
        "SentencePiece model of this many tokens, with byte fallback, is trained on the training "
        "mixture.",
        minimum=0,
        maximum=2**20,
    )
    added_tokens: tuple[str, ...] = field(
        (), "Special tokens that are added if the tokenizer does not have them."
    )


@dataclasses.dataclass(frozen=True)
class FormatConfig:
    """How a record becomes text segments, and which of them are trained."""

    template: str = field(
        "chatml",
        'The chat template: a name from ift_jax/text/chat_templates/, "model" for the '
        'tokenizer\'s own, a ".jinja" file, or the text of one. "plain" is inputs followed by '
        "targets.",
    )
    template_options: tuple[str, ...] = field(
        (), 'Variables for the template, such as "enable_thinking=false".'
    )
    add_bos: str = field(
        "auto",
        "Whether BOS comes before a conversation if the template itself writes none. auto: if the "
        "tokenizer puts one before a text, as Llama's and Gemma's do, and the template is not the "
        "tokenizer's own.",
        choices=("auto", "always", "never"),
    )
    unwritten: str = field(
        "error",
        "What happens to a record with a text that the template does not write, such as a thought: "
        "it is an error, the record is dropped and counted, or the text is left out and counted.",
        choices=("error", "drop", "leave-out"),
    )
    train_on: str = field(
        "all",
        "Which turns are trained: all of them, only the last one, or the last round, which is what "
        "follows the last user's turn. A turn's own weight multiplies its loss.",
        choices=("all", "last", "last_round"),
    )
    train_roles: tuple[str, ...] = field(
        ("assistant",),
        "Whose turns are trained. An encoder-decoder trains an assistant's alone.",
        choices=("system", "user", "assistant", "tool"),
    )
    train_thinking: bool = field(
        True,
        "Whether the thoughts of trained turns are trained. Otherwise they are context, with the "
        "tags around them.",
    )
    train_tool_calls: bool = field(
        True,
        "Whether the tool calls of trained turns are trained. Otherwise they are context, with the "
        "stop token behind them.",
    )
    earlier_thinking: str = field(
        "template",
        "What becomes of the thoughts of earlier rounds, in training and in prompts: what the "
        "template does with them, or they are kept (by the template's own option), or dropped. "
        "Where they are dropped, a conversation becomes an example for each trained round.",
        choices=("template", "keep", "drop"),
    )
    empty_thinking: str = field(
        "template",
        "Whether an answer without a thought gets an empty block, such as <think></think>: as the "
        "template does, or always, and whether the block is trained or masked.",
        choices=("template", "train", "mask"),
    )
    input_eos: bool = field(
        True,
        "Encoder-decoder only: whether the encoder's text ends with EOS, as T5's does and T0's "
        "does not.",
    )
    bidirectional_prefix: bool = field(
        False,
        "Decoder only: whether the tokens of a prompt attend to each other in both directions.",
    )
    control_strings: str = field(
        "text",
        'How a control string that a user typed into a message, such as "<|im_end|>", is encoded: '
        'as ordinary "text" or, as Hugging Face does, as a "control" token.',
        choices=("text", "control"),
    )


class RowLengths(NamedTuple):
    """Tokens that a row of a batch has room for."""

    encoder: int  # 0 for a decoder-only model.
    decoder: int

    @property
    def total(self) -> int:
        return self.encoder + self.decoder


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data of a run. Lengths are in tokens."""

    systems: str = field(
        "tasks",
        "The module whose table SYSTEMS says which module registers which tasks; used if modules "
        "is empty. The module need not exist.",
    )
    modules: tuple[str, ...] = field(
        (), "Modules that register SeqIO tasks and mixtures; they are imported in this order."
    )
    root: str = field("", "Folder or file passed to each module's register(root), if it has one.")
    schema: str = field(
        "auto",
        "What the rows of your own files are. auto: the fields of the first row tell it.",
        choices=SCHEMAS,
    )
    ignore_fields: tuple[str, ...] = field(
        (),
        "Fields of a row or a message that are left unread although their names mean something "
        'here, such as "weight" or "system".',
    )
    merge_same_role: bool = field(
        False,
        "Whether turns of one role in a row become one turn, with an empty line between their "
        "texts. Otherwise such a conversation is dropped and counted.",
    )
    drop_leading_assistant: bool = field(
        False,
        "Whether what an assistant says before the first question is left out. Otherwise such a "
        "conversation is dropped and counted.",
    )
    any_turn_order: bool = field(
        False,
        "Whether turns may come in any order that the template accepts, such as a system turn in "
        "the middle. Otherwise such a conversation is dropped and counted.",
    )
    filters: tuple[str, ...] = field(
        (),
        "What drops examples, counted by reason: broken or empty thoughts (thinking), a text that "
        "repeats itself (repeats), 5% or more Chinese characters (chinese), a date where the "
        "model's knowledge ends (dates), a claim to be a model or its maker's (identity), or a "
        "field license in a row of your own files that is none of data.licenses (license).",
        choices=FILTERS,
    )
    licenses: tuple[str, ...] = field(
        ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "odc-by"),
        'The licenses that the filter "license" keeps; case does not count.',
    )
    mixture: str = field("", "The SeqIO task or mixture to train on.")
    split: str = field("train", "The split to train on.")
    eval_mixture: str = field(
        "", "Mixture of unseen examples of trained tasks, for evaluation; empty: data.mixture."
    )
    eval_split: str = field("validation", "The split of data.eval_mixture.")
    heldout_mixture: str = field(
        "", "Mixture of tasks that training never sees, for evaluation; empty: none."
    )
    heldout_split: str = field("test", "The split of data.heldout_mixture.")
    store_dir: str = field("stores", "Folder for token stores; runs share them.")
    max_length: int = field(
        2048,
        "Tokens per row of a decoder. (An encoder-decoder has inputs_length and targets_length.)",
        above=0,
        maximum=_LONGEST,
    )
    inputs_length: int = field(
        512,
        "Encoder-decoder: tokens per row of the encoder. For a decoder it only tells SeqIO "
        "preprocessors that take sequence_length, such as T5's prefix_lm, how long inputs are.",
        above=0,
        maximum=_LONGEST,
    )
    targets_length: int = field(
        128,
        "Encoder-decoder: tokens per row of the decoder. For a decoder as inputs_length.",
        above=0,
        maximum=_LONGEST,
    )
    over_length: str = field(
        "drop",
        "What happens to an example that is longer than a row: it is dropped and counted, its "
        "prompt is truncated, or it is an error.",
        choices=("drop", "truncate-prompt", "error"),
    )
    max_dropped_fraction: float = field(
        0.05,
        "Preparing a task fails if a larger fraction of its examples is dropped or truncated.",
        minimum=0,
        maximum=1,
    )
    max_tasks: int = field(
        0,
        "Train on this many tasks of the mixture, drawn by the seed; a larger number adds tasks to "
        "those of a smaller one. 0: all.",
        minimum=0,
    )
    max_examples_per_task: int = field(
        0,
        "Train on this many examples of each task, drawn by the seed; a larger number adds "
        "examples to those of a smaller one, and the mixing rates stay. 0: all.",
        minimum=0,
    )
    pack: bool = field(True, "Whether several examples share a row.")
    window: int = field(
        8192,
        "Largest number of examples that are packed together; the mixing rates hold within each "
        "window, and windows end where epochs do.",
        above=0,
    )
    variants: int = field(
        1,
        "Number of variants of each example in a store, for tasks that draw templates or exemplars "
        "at random; epoch e reads variant e mod variants.",
        above=0,
        maximum=10_000,
    )
    processes: int = field(
        0,
        "Processes that prepare a store; 0: one per core where that is faster.",
        minimum=0,
        maximum=1024,
    )

    def row_lengths(self, architecture: str) -> RowLengths:
        """The lengths that apply to an architecture, "decoder" or "encoder_decoder"."""
        if architecture == "encoder_decoder":
            return RowLengths(self.inputs_length, self.targets_length)
        return RowLengths(0, self.max_length)
