"""The model `ift_jax` of lm-evaluation-harness.

Texts, windows and truncation are as in its model `hf`, so that scores can be compared. This module
imports no PyTorch, and neither does what it imports of lm-evaluation-harness.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.config.schema import DecoderConfig
from ift_jax.data.randomness import stable_hash
from ift_jax.decoding import Request
from ift_jax.errors import UserError, counted, offered
from ift_jax.evaluation.harness.generation import generation_options
from ift_jax.evaluation.harness.token_scores import TokenPair, score_pairs
from ift_jax.evaluation.text_generator import (
    TextGenerator,
    describe_text_generator,
    load_generator,
)
from ift_jax.text.control_strings import control_pattern
from ift_jax.text.records import Message, Record

_log = logging.getLogger(__name__)
_AUTO_BATCH_SIZE = 16
_ARGUMENTS = ("workdir", "model", "step", "max_length", "max_gen_toks", "add_bos_token", "seed")


class IftJaxLM(TemplateLM):
    """A run's workdir, a Hugging Face folder or a GGUF file as lm-evaluation-harness sees it.

    Attributes:
        backend: Its name of the architecture: "causal" or "seq2seq".
        max_length: The most tokens of a context with its continuation, or of an encoder's input.
        batch_size: Rows that are scored or decoded together.
        seed: What answers are sampled with, where a task does not say it.
        text_generator: The model's format.
        generator: The model with its weights.
    """

    def __init__(
        self,
        workdir: Any = None,
        model: Any = None,
        step: int | None = None,
        batch_size: int | str = _AUTO_BATCH_SIZE,
        max_batch_size: int | None = None,
        device: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        seed: int = 0,
        **unknown: Any,
    ):
        """Read the model.

        Args:
            workdir: The path of the model.
            model: Another name of `workdir`.
            step: The checkpoint of a run; None for the newest.
            batch_size: Rows that are scored or decoded together; "auto" takes 16.
            max_batch_size: The most rows under "auto".
            device: Not used: JAX takes the devices that it finds, and lm-evaluation-harness names
                one of CUDA's by default.
            max_length: Tokens; None for what the model was made for, or trained on.
            max_gen_toks: The most tokens of an answer, where a task does not say it.
            add_bos_token: Whether BOS comes before a text; None: as the tokenizer says.
            seed: What answers are sampled with, where a task does not say it.
            **unknown: Refused.

        Raises:
            UserError: An argument is wrong, or there is no such model.
        """
        super().__init__()
        for name in unknown:
            hint = offered(name, _ARGUMENTS)
            raise UserError(f"model_args: {name}: no such argument of model ift_jax{hint}")
        if (workdir is None) == (model is None):
            raise UserError("model_args: expected workdir=DIR or model=DIR, and one of them")
        self.batch_size = _rows(batch_size, max_batch_size)
        self._path = str(model if workdir is None else workdir)
        source = open_model_source(self._path, step)
        self._step = source.step
        self.text_generator = describe_text_generator(source)
        self.generator = load_generator(source, self.text_generator)
        self._tokenizer = self.text_generator.tokenizer
        config = self.text_generator.config
        self.backend = "causal" if isinstance(config.model, DecoderConfig) else "seq2seq"
        self.max_length = max_length or _context_length(self.text_generator)
        self._max_gen_toks = max_gen_toks
        self._adds_bos = self._tokenizer.adds_bos if add_bos_token is None else add_bos_token
        if self._adds_bos and self._tokenizer.bos_id is None:
            raise UserError("model_args: add_bos_token=True: the tokenizer has no BOS token")
        self.seed = seed
        self._warned: set[str] = set()
        self._controls = control_pattern(self._tokenizer.special_tokens)

    # --- Texts and tokens ---

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The id that stands before a text without a context: BOS, or EOS where there is none."""
        (token,) = self.text_generator.formatter.empty_prompt
        return token

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Encode a text in which control strings stand for their tokens.

        Args:
            string: The text.
            add_special_tokens: Whether a decoder's text gets BOS, if its tokenizer has it do so,
                and an encoder's gets EOS, as in training; None: unless it begins with BOS already.
            **kwargs: Not used.
        """
        ids = self._tokenizer.encode_with_controls(string)
        if add_special_tokens is False:
            return ids
        bos = self._tokenizer.bos_id
        if self._adds_bos and bos is not None and (add_special_tokens or ids[:1] != [bos]):
            ids = [bos, *ids]
        if self.backend == "seq2seq" and self.text_generator.config.format.input_eos:
            ids = [*ids, self._tokenizer.eos_id]
        return ids

    # --- Chat templates ---

    @property
    def tokenizer_name(self) -> str:
        """Names everything that determines the text and the ids of a chat."""
        return f"ift_jax__{self.text_generator.formatter.fingerprint[:32]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the Jinja text of the model's template, or None if none is asked for.

        Raises:
            UserError: One is asked for by name.
        """
        if isinstance(chat_template, str) and chat_template:
            raise UserError(
                f"--apply_chat_template {chat_template}: {self._path} has one template; expected "
                "no name"
            )
        return self.text_generator.formatter.template_source if chat_template else None

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Write a conversation as the model's prompt, as in training.

        A template without a place for a system turn gets the conversation without it, as in
        lm-evaluation-harness's own models; a warning says so.

        Args:
            chat_history: Turns with the fields "role" and "content".
            add_generation_prompt: Whether a new answer follows; otherwise the last turn is the
                beginning of one.

        Raises:
            UserError: The template refuses the conversation.
        """
        turns = [Message(turn["role"], turn["content"]) for turn in chat_history]
        begun = "" if add_generation_prompt else turns.pop().content
        if begun and self.backend == "seq2seq":
            raise UserError(
                "gen_prefix: an encoder-decoder reads no beginning of an answer; expected a task "
                "without it"
            )
        if any(self._controls.search(turn.content) for turn in turns if self._controls):
            self._warn_once(
                "a task's own text holds control strings of the model: they stand for their "
                "tokens, as in lm-evaluation-harness's own models"
            )
        text = self._prompt_text(turns)
        # `tok_encode` adds none to a text that comes with it.
        if self._adds_bos and self.tok_encode(text, False)[:1] != [self._tokenizer.bos_id]:
            self._warn_once(
                "BOS comes before prompts whose chat template writes none, as the tokenizer puts "
                "it before a text; add_bos_token=False leaves it out, as training did"
            )
        return text + begun

    def _prompt_text(self, turns: Sequence[Message]) -> str:
        try:
            return self.text_generator.formatter.text(_record(turns))
        except UserError as error:
            if turns[0].role != "system" or len(turns) == 1:
                raise
            text = self.text_generator.formatter.text(_record(turns[1:]))
            self._warn_once(f"the system turn is left out: {error}")
            return text

    # --- What is asked of the model ---

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Score continuations; `loglikelihood` of the base class encodes their texts.

        Args:
            requests: The texts, None for those of `loglikelihood_rolling`, and the ids of each
                context and continuation.
            disable_tqdm: Whether to show no progress.
            **kwargs: Not used.

        Returns:
            The log-likelihood of each continuation, and whether greedy decoding would give it.

        Raises:
            UserError: A continuation alone is longer than the model's context.
        """
        pairs = [self._fitted(context, answer) for _, context, answer in requests]
        n_cut = sum(
            len(pair.context) < len(context)
            for pair, (_, context, _) in zip(pairs, requests, strict=True)
        )
        self._report_cut(n_cut, len(pairs))
        found: dict[int, tuple[float, bool]] = {}
        config = self.text_generator.config
        scored = score_pairs(self.generator, config, pairs, self.batch_size)
        for scores in _with_progress(scored, len(pairs), "loglikelihood", disable_tqdm):
            for place, score in scores.items():
                found[place] = (score.log_likelihood, score.is_greedy)
                if (texts := requests[place][0]) is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, found[place])
        return [found[place] for place in range(len(pairs))]

    def _fitted(self, context: Sequence[int], answer: Sequence[int]) -> TokenPair:
        """Return a context with the most of its last tokens that fit; one at least."""
        if len(answer) > self.max_length:
            raise UserError(
                f"a continuation of {len(answer)} tokens: expected at most the model's "
                f"max_length {self.max_length}"
            )
        # The last token of the answer is predicted, but not read.
        room = self.max_length
        if self.backend == "causal":
            room = max(1, self.max_length + 1 - len(answer))
        return TokenPair(tuple(context[-room:]), tuple(answer))

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Score whole texts, in windows that are as long as the model's context."""
        windows = []
        text_of_window = []
        for number, request in enumerate(requests):
            (text,) = request.args
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window(window)))
                text_of_window.append(number)
        scores = self._loglikelihood_tokens(windows, disable_tqdm)
        totals = [0.0] * len(requests)
        for number, (log_likelihood, _) in zip(text_of_window, scores, strict=True):
            totals[number] += log_likelihood
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer prompts, greedily or sampled as their `generation_kwargs` say.

        What is sampled depends on the seed, the prompt, and how often it came before alone.
        """
        asked = self._generation_requests(requests)
        answers: dict[int, str] = {}
        found = self.generator.complete_batches(asked, batch_size=self.batch_size)
        for outputs in _with_progress(found, len(asked), "generate_until", disable_tqdm):
            for place, output in outputs.items():
                answers[place] = output.completions[0].text
                request = requests[place]
                self.cache_hook.add_partial("generate_until", request.args, answers[place])
        return [answers[place] for place in range(len(asked))]

    def _generation_requests(self, requests: Sequence[Instance]) -> list[Request]:
        asked = []
        repeats: Counter[str] = Counter()
        n_cut = 0
        for context, gen_kwargs in [request.args for request in requests]:
            options = generation_options(
                gen_kwargs, self._tokenizer, max_gen_toks=self._max_gen_toks, seed=self.seed
            )
            room = self.max_length
            if self.backend == "causal":
                room -= options.max_new_tokens
                if room < 1:
                    raise UserError(
                        f"max_gen_toks {options.max_new_tokens}: expected less than the model's "
                        f"max_length {self.max_length}; --gen_kwargs max_gen_toks=N takes fewer"
                    )
            ids = self.tok_encode(context) or [self.prefix_token_id]
            n_cut += len(ids) > room
            seed = stable_hash("lm-eval", options.seed, context)
            options = dataclasses.replace(options, seed=seed)
            asked.append(Request(ids[-room:], options, repeats[context]))
            repeats[context] += 1
        self._report_cut(n_cut, len(asked))
        return asked

    # --- Reports ---

    def get_model_info(self) -> dict[str, Any]:
        """Return what the results say of the model."""
        return {
            "model_path": self._path,
            "model_step": self._step,
            "model_num_parameters": self.text_generator.model.n_params,
            "model_dtype": self.text_generator.config.model.dtype,
            "model_fingerprint": self.generator.fingerprint(),
            "max_length": self.max_length,
        }

    def _report_cut(self, n_cut: int, n: int) -> None:
        if n_cut:
            _log.warning(
                "%d of %s: the first tokens were cut off, to fit the model's max_length %d",
                n_cut,
                counted(n, "context"),
                self.max_length,
            )

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            _log.warning("%s", text)


def _rows(batch_size: int | str, most: int | None) -> int:
    """Return the rows of a batch.

    Raises:
        UserError: It is no number, and not "auto".
    """
    if str(batch_size).partition(":")[0] == "auto":
        return min(_AUTO_BATCH_SIZE, most or _AUTO_BATCH_SIZE)
    if str(batch_size).isdecimal() and int(batch_size) > 0:
        return int(batch_size)
    raise UserError(f"batch_size: expected a positive number or auto; got {batch_size!r}")


def _context_length(text_generator: TextGenerator) -> int:
    """Return what a model was made for or, if it has no maximum, was trained on."""
    config = text_generator.config
    if isinstance(config.model, DecoderConfig):
        return config.model.max_length or config.row_lengths.decoder
    return config.row_lengths.encoder


def _record(turns: Sequence[Message]) -> Record:
    # A single question is a bare text for an encoder-decoder, as in its training.
    return Record(tuple(turns), where="chat", text_to_text=len(turns) == 1)


def _with_progress(
    batches: Iterator[dict[int, Any]], n: int, name: str, disabled: bool
) -> Iterator[dict[int, Any]]:
    """Show how many requests are done, as lm-evaluation-harness's own models do."""
    with tqdm(total=n, disable=disabled, desc=f"Running {name} requests") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))
