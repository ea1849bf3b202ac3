"""Prompts in, answers out, in a run's format."""

from collections.abc import Sequence

import jax

from ift_jax.checkpoint.model_source import open_model_source
from ift_jax.checkpoint.workdir_model import load_model
from ift_jax.config.schema import Config
from ift_jax.data.store import TokenStore
from ift_jax.decoding import Generator, Options, Stops
from ift_jax.models.model import Model, Params
from ift_jax.text.prompts import Formatter
from ift_jax.text.tokenizers.load import Tokenizer


class TextGenerator:
    """Prompts in, answers out, in a run's format, ended by its `stop_ids` and `stop_strings`."""

    def __init__(
        self, config: Config, tokenizer: Tokenizer, model: Model, stop_strings: Sequence[str] = ()
    ):
        """Compiles nothing yet."""
        self.config, self.tokenizer, self.model = config, tokenizer, model
        self.formatter = Formatter.from_config(config, tokenizer)
        # A control token is no part of the text in which strings are looked for.
        special = tokenizer.special_tokens
        asked = [special[s] for s in stop_strings if s in special]
        strings = tuple(s for s in stop_strings if s not in special)
        ids = (*self.formatter.stop_ids, *config.evaluation.stop_ids, *asked)
        self.stops = Stops(ids, strings, tokenizer.decode)
        self.text, self.stopped = self.stops.text, self.stops.stopped

    def prompt(self, store: TokenStore, index: int) -> list[int]:
        """What an example of a store is prompted with: the very ids that training saw."""
        if self.config.model.architecture == "encoder_decoder":
            return store.encoder_tokens(index).tolist()
        return store.tokens(index)[: store.prompt_lengths[index]].tolist()

    def generator(self, params: Params) -> Generator:
        """The model with these weights, laid out for many generations; `params` may then go."""
        return Generator(
            self.model,
            params,
            stops=self.stops,
            pad_id=self.tokenizer.pad_id,
            bidirectional_prompt=self.config.format.bidirectional_prefix,
        )

    def generate(self, params: Params, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """The new ids of each prompt, greedily, by the config's `evaluation` section."""
        c = self.config.evaluation
        options = Options(c.max_new_tokens)
        return self.generator(params).generate(prompts, options, batch_size=c.batch_size)


def open_text_generator(
    workdir: str, step: int | None = None, stop_strings: Sequence[str] = ()
) -> tuple[TextGenerator, Generator]:
    """Opens a model in its own format; only the weights for decoding are kept."""
    trained = load_model(open_model_source(workdir, step))
    if trained.config.train.compile_cache:
        jax.config.update("jax_compilation_cache_dir", trained.config.train.compile_cache)
    text_generator = TextGenerator(trained.config, trained.tokenizer, trained.model, stop_strings)
    return text_generator, text_generator.generator(trained.params)
