"""Using a model from Python: `load` opens a run or a Hugging Face folder."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ift_jax.io.paths import absolute

if TYPE_CHECKING:
    from ift_jax.checkpoint.model_source import ModelSource, StepChoice
    from ift_jax.decoding import Generator, Options, Output
    from ift_jax.evaluation.text_generator import TextGenerator
    from ift_jax.text.records import Record

# A prompt: a text, or the messages of a conversation as {"role": ..., "content": ...}.
Prompt = str | Sequence[Mapping[str, Any]]


def load(path: str, step: "StepChoice" = None) -> "TextModel":
    """Load a model for use.

    Args:
        path: The workdir of a run, or a Hugging Face folder.
        step: The checkpoint of a run, or "best" for the best one by `train.best_metric`; by default
            its newest.

    Raises:
        UserError: There is no such model or checkpoint, or it cannot be read.
    """
    from ift_jax.commands.main import choose_platform

    choose_platform()  # Before JAX is imported.
    from ift_jax.checkpoint.open_model import open_model_source

    return TextModel(open_model_source(path, step))


class TextModel:
    """A model with its tokenizer and format; `load` makes one.

    Its methods use the chat template and the stop tokens that it was trained with.
    """

    def __init__(self, source: "ModelSource"):
        """Read the weights; nothing is compiled yet.

        Args:
            source: The opened model.
        """
        from ift_jax.checkpoint.load_model import load_model
        from ift_jax.evaluation.text_generator import TextGenerator

        self._source = source
        self._loaded = load_model(source)
        self._text_generator: TextGenerator = TextGenerator(
            self._loaded.config, self._loaded.tokenizer, self._loaded.model
        )

    @functools.cached_property
    def _generator(self) -> "Generator":
        return self._text_generator.generator(self._loaded.params)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        n: int = 1,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        beam_rules: str = "transformers",
        batch_size: int = 32,
    ) -> str | list[str] | list[list[str]]:
        """Answer prompts.

        Args:
            prompts: A prompt, or a list of prompts. A prompt is a text or a list of messages.
            max_new_tokens: The most tokens of an answer.
            temperature: The sampling temperature; 0 is greedy.
            top_k: Sample from the k likeliest tokens; 0: all.
            top_p: Sample from the likeliest tokens with this total probability.
            min_p: Leave out tokens with less than this share of the likeliest one's probability.
            repetition_penalty: Above 1, tokens that occurred already become less likely.
            seed: The seed of the sampling.
            n: How many answers to each prompt; with more than one, sample or search.
            num_beams: Search with this many beams; 1: do not search.
            length_penalty: The power of beam search's length penalty.
            beam_rules: "transformers" or "t5x"; see `ift_jax.decoding.BeamSearch`.
            batch_size: How many rows are decoded together, one for each answer or beam.

        Returns:
            A text, or for a list of prompts a list of texts; with `n` above 1, a list of texts in
            place of each text.

        Raises:
            UserError: A prompt or a number is wrong, or a prompt does not fit into the model.
        """
        from ift_jax.decoding import BeamSearch

        options = dataclasses.replace(
            _options(max_new_tokens, seed, temperature, top_k, top_p, min_p, repetition_penalty),
            n=n,
            beams=BeamSearch(num_beams, length_penalty, beam_rules) if num_beams != 1 else None,
        )
        if options.beams is None:
            options.sampling.check_all_is_read()
        is_one = _is_one(prompts)
        several: Sequence[Any] = [prompts] if is_one else prompts
        outputs = self.complete(several, options, batch_size=batch_size)
        texts = [[answer.text.strip() for answer in output.completions] for output in outputs]
        if n > 1:
            return texts[0] if is_one else texts
        return texts[0][0] if is_one else [text for (text,) in texts]

    def complete(
        self, prompts: "Sequence[Prompt]", options: "Options", *, batch_size: int = 32
    ) -> "list[Output]":
        """Answer a list of prompts, and tell more than the texts.

        Args:
            prompts: Texts or lists of messages.
            options: How they are answered: `ift_jax.decoding.Options`. What is sampled for a prompt
                depends on the seed and its place in the list.
            batch_size: How many rows are decoded together, one for each answer or beam.

        Returns:
            For each prompt its answers with their ids, texts, reasons of their ends and, if
            `options` ask for them, log-probabilities.

        Raises:
            UserError: A prompt is wrong, or does not fit into the model.
        """
        from ift_jax.evaluation import batch_prompts

        checked = [
            batch_prompts.checked_prompt(f"prompts[{number}]", _prompt_fields(prompt))
            for number, prompt in enumerate(prompts)
        ]
        ids = batch_prompts.prompt_ids(self._text_generator, checked, options.max_new_tokens)
        requests = batch_prompts.requests_of(self._text_generator, checked, ids, options)
        return self._generator.complete(requests, batch_size=batch_size)

    def chat(self, system: str = "", *, max_new_tokens: int = 256, seed: int = 0) -> "Conversation":
        """Begin a conversation; `Conversation.reply` answers a turn.

        Args:
            system: The system message.
            max_new_tokens: The most tokens of an answer.
            seed: The seed of the sampling, which is greedy unless the model's settings say more.
        """
        return Conversation(
            self._text_generator, self._generator, _options(max_new_tokens, seed), system
        )

    def score(self, prompt: Prompt, answer: str) -> float:
        """Return the log-probability of an answer, the sum over its tokens and its stop token.

        Args:
            prompt: A text, or the messages before the answer.
            answer: The assistant's answer.

        Raises:
            UserError: The template refuses the conversation, or it does not fit a row.
        """
        import jax

        from ift_jax.evaluation.continuations import continuation_of_record
        from ift_jax.evaluation.log_likelihoods import log_likelihoods

        record = _record(prompt, answer)
        row = continuation_of_record(self._loaded.config, self._loaded.tokenizer, record)
        params = self._loaded.params
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        with jax.set_mesh(mesh):
            scores = log_likelihoods(self._loaded.model, params, self._loaded.config, [row])
        return float(scores[0])

    def export(self, output: str, *, dtype: str = "source", base: str = "") -> None:
        """Write the model as a Hugging Face folder with a model card, and with adapters merged.

        Args:
            output: The folder to make.
            dtype: "float32", "bfloat16", "float16", or "source": as the model was released.
            base: The base model's name on the Hugging Face hub, for the card.

        Raises:
            UserError: The folder exists or cannot be written.
        """
        from ift_jax.checkpoint.export_model import export_model
        from ift_jax.report.card import Subject, model_card

        flags = () if dtype == "source" else ("--dtype", dtype)
        subject = Subject(self._source, self._loaded, absolute(output), base, flags=flags)
        card = model_card(subject)
        export_model(self._source, self._loaded, subject.output, dtype=dtype, card=card)


class Conversation:
    """A conversation with a model; `TextModel.chat` begins one."""

    def __init__(
        self,
        text_generator: "TextGenerator",
        generator: "Generator",
        options: "Options",
        system: str,
    ):
        from ift_jax.evaluation.chat import Chat

        self._chat = Chat(text_generator, generator, options, system=system, note=_ignore)

    def reply(self, text: str) -> str:
        """Answer the user's next turn.

        Raises:
            UserError: The turn does not fit into the model, or the template refuses it.
        """
        return "".join(self.stream(text))

    def stream(self, text: str) -> Iterator[str]:
        """Answer the user's next turn piece by piece, as it is generated."""
        return self._chat.reply(text)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns so far."""
        return [{"role": turn.role, "content": turn.content} for turn in self._chat.turns]


def _ignore(text: str) -> None:
    """Say nothing: the caller sees the turns in `Conversation.messages`."""


def _options(max_new_tokens: int, seed: int, *sampling: Any) -> "Options":
    from ift_jax.decoding import Options, Sampling

    return Options(max_new_tokens, Sampling(*sampling), seed)


def _is_one(prompts: Any) -> bool:
    """Whether a prompt was given rather than a list of them: a text, or a list of messages."""
    return isinstance(prompts, str) or bool(prompts) and isinstance(prompts[0], Mapping)


def _prompt_fields(prompt: Prompt) -> dict[str, Any]:
    return {"inputs": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}


def _record(prompt: Prompt, answer: str) -> "Record":
    from ift_jax.text.rows.parse_record import parse_record

    if isinstance(prompt, str):  # As a prompt is read that is to be answered.
        return parse_record({"inputs": prompt, "targets": answer}, "prompt")
    messages = [*prompt, {"role": "assistant", "content": answer}]
    return parse_record({"messages": messages}, "prompt")
