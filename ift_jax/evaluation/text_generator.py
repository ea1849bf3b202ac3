"""A model with its tokenizer and format: prompts in, answers out."""

from collections.abc import Sequence

import jax

from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.config.schema import Config
from ift_jax.data.store import TokenStore
from ift_jax.decoding import Generator, Options, Stops
from ift_jax.models.model import Model, Params
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.tokenizers.base import Tokenizer


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

    def generate(self, params: Params, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """The new ids of each prompt, greedily, as the config's section `evaluation` says."""
        evaluation = self.config.evaluation
        options = Options(evaluation.max_new_tokens)
        generator = self.generator(params)
        return generator.generate(prompts, options, batch_size=evaluation.batch_size)


def open_text_generator(
    workdir: str, step: int | None = None, stop_strings: Sequence[str] = ()
) -> tuple[TextGenerator, Generator]:
    """Opens a model in its own format; of the weights, only those for decoding are kept.

    Args:
        workdir: a run's workdir.
        step: the checkpoint; None for the newest.
        stop_strings: texts that end an answer besides.
    """
    loaded = load_model(open_model_source(workdir, step))
    if loaded.config.train.compile_cache:
        jax.config.update("jax_compilation_cache_dir", loaded.config.train.compile_cache)
    text_generator = TextGenerator(loaded.config, loaded.tokenizer, loaded.model, stop_strings)
    return text_generator, text_generator.generator(loaded.params)
