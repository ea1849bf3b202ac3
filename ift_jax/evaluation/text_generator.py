"""A model with its tokenizer and format: prompts in, answers out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax

from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.data.store import TokenStore
from ift_jax.decoding import BeamSearch, Generator, Options, Request, Stops
from ift_jax.decoding.requests import check_request
from ift_jax.errors import UserError
from ift_jax.evaluation.finished_batches import FinishedBatches, known_answers
from ift_jax.io.stop_signals import Stopped, never, until
from ift_jax.models.model import Model, Params
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.tokenizers.base import Tokenizer

# A run that trains has its model: what opens models is imported by the functions that do.
if TYPE_CHECKING:
    from ift_jax.checkpoint.model_source import ModelSource


class TextGenerator:
    """Answers prompts in a run's format.

    Attributes:
        config: the run's config.
        tokenizer: its tokenizer.
        model: the model without weights.
        formatter: turns records into prompts.
        stops: what ends an answer: the format's stop ids, `evaluation.stop_ids`, and stop strings.
    """

    def __init__(
        self, config: Config, tokenizer: Tokenizer, model: Model, stop_strings: Sequence[str] = ()
    ):
        """Compiles nothing yet.

        Args:
            config: the run's config.
            tokenizer: its tokenizer.
            model: the model without weights.
            stop_strings: texts that end an answer besides.
        """
        self.config = config
        self.tokenizer = tokenizer
        self.model = model
        self.formatter = PromptFormatter.from_config(config, tokenizer)
        # Stop strings are searched in the text without control tokens, so a stop string that is a
        # control token becomes a stop id.
        special = tokenizer.special_tokens
        control_ids = [special[string] for string in stop_strings if string in special]
        strings = tuple(string for string in stop_strings if string not in special)
        ids = (*self.formatter.stop_ids, *config.evaluation.stop_ids, *control_ids)
        self.stops = Stops(ids, strings, tokenizer.decode)

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer, up to what ends it."""
        return self.stops.text(ids)

    def stopped(self, ids: Sequence[int]) -> bool:
        """Whether an answer was ended by a stop token or a stop string."""
        return self.stops.stopped(ids)

    def prompt(self, store: TokenStore, index: int) -> list[int]:
        """The prompt ids of a stored example, identical to those in training."""
        if self.config.model.architecture == "encoder_decoder":
            return store.encoder_tokens(index).tolist()
        return store.tokens(index)[: store.prompt_lengths[index]].tolist()

    def generator(self, params: Params) -> Generator:
        """The model with these weights, laid out for decoding; `params` may be freed after that."""
        return Generator(
            self.model,
            params,
            stops=self.stops,
            pad_id=self.tokenizer.pad_id,
            bidirectional_prompt=self.config.format.bidirectional_prefix,
        )

    def check(self, request: Request) -> None:
        """Checks that the model can answer a request; `check_request` has the mistakes."""
        bidirectional = self.config.format.bidirectional_prefix
        check_request(request, self.model.config, bidirectional_prompt=bidirectional)

    def generate(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        stopped: Stopped = never,
        finished: FinishedBatches | None = None,
    ) -> dict[int, list[int]]:
        """The new ids of each prompt, greedy or by beams, as the config's `evaluation` says.

        Where the model has room for fewer than `evaluation.max_new_tokens`, an answer is shorter.

        Args:
            params: the model's parameters.
            prompts: the ids of each prompt.
            stopped: whether to end before the next block of tokens.
            finished: has the answers of an evaluation that was stopped, and keeps new ones. Of
                several processes only the first one's counts.

        Returns:
            The new ids by the place of their prompt; some are missing if it was stopped.

        Raises:
            UserError: a prompt leaves no room for an answer.
        """
        requests = self._evaluation_requests(prompts)
        known = known_answers(finished, prompts)
        batches = self.generator(params).complete_batches(
            requests, batch_size=self.config.evaluation.batch_size, done=known, stopped=stopped
        )
        outputs: dict[int, list[int]] = dict(known)
        for batch in until(stopped, batches):
            ids = {i: output.completions[0].ids for i, output in batch.items()}
            outputs |= ids
            if finished:
                finished.add(0, prompts, {i: ids[i] for i in ids if i not in known})
        return dict(sorted(outputs.items()))

    def compile(self, params: Params, prompts: Sequence[Sequence[int]]) -> None:
        """Compiles the programs that `generate` runs for these prompts; it compiles no more then.

        Args:
            params: the shapes and shardings of the model's parameters, as `jax.ShapeDtypeStruct`s.
            prompts: the ids of each prompt.
        """
        requests = self._evaluation_requests(prompts)
        self.generator(params).compile(requests, batch_size=self.config.evaluation.batch_size)

    def _evaluation_requests(self, prompts: Sequence[Sequence[int]]) -> list[Request]:
        model = self.config.model
        evaluation = self.config.evaluation
        beams = BeamSearch.of(evaluation)
        positions = model.max_length if isinstance(model, DecoderConfig) else 0
        requests = []
        for prompt in prompts:
            n_new = evaluation.max_new_tokens
            if positions:
                n_new = min(n_new, positions - len(prompt))
            if n_new < 1:
                raise UserError(
                    f"a prompt of {len(prompt)} tokens leaves no room for an answer in the "
                    f"model's max_length {positions}; expected a smaller config.data.max_length"
                )
            requests.append(Request(prompt, Options(n_new, beams=beams)))
        return requests


def describe_text_generator(
    source: "ModelSource", stop_strings: Sequence[str] = ()
) -> TextGenerator:
    """Opens a model in its own format without reading weights, to check prompts before that."""
    from ift_jax.checkpoint.load_model import describe_model

    config, tokenizer, model = describe_model(source)
    return TextGenerator(config, tokenizer, model, stop_strings)


def load_generator(source: "ModelSource", text_generator: TextGenerator) -> Generator:
    """Reads the weights of a described model and lays them out for decoding."""
    from ift_jax.checkpoint.load_model import load_params

    compile_cache = text_generator.config.train.compile_cache
    if compile_cache:
        jax.config.update("jax_compilation_cache_dir", compile_cache)
    params = load_params(source, text_generator.model, text_generator.tokenizer)
    return text_generator.generator(params)
