"""Where a model comes from, before its weights are read.

The three kinds of sources are subclasses: `HuggingFaceSource` and `GgufSource` in
`released_source.py`, and `WorkdirSource` in `open_model.py`.
"""

import abc
from collections.abc import Mapping
from typing import Any, Literal

from jax.sharding import Mesh

from ift_jax.config.schema import Config, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_weights import Convert, fit_vocabulary, keep_as_it_is
from ift_jax.models.model import Model, Params, build_model, resolve_vocab
from ift_jax.text.tokenizers.base import Tokenizer

# Which checkpoint of a run: a step, the best one by `train.best_metric`, or the newest (None).
BEST: Literal["best"] = "best"
StepChoice = int | Literal["best"] | None


class ModelSource(abc.ABC):
    """A model on disk whose weights are not read yet.

    Attributes:
        path: The folder or file, as the user named it.
        config: The config of a run; for a released model, only what its files say about the model
            and its tokenizer.
        step: The step of the checkpoint; 0 for a released model.
        choice: Why it is this checkpoint, for the user; "" if it was named, or is the newest.
    """

    path: str
    config: Config
    step: int = 0
    choice: str = ""

    @abc.abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Read the model's tokenizer.

        Raises:
            UserError: There is none.
        """

    @property
    def tokenizer_config(self) -> TokenizerConfig | None:
        """The section of a config that gives this tokenizer; None if no path leads to it."""
        return self.config.tokenizer if self.config.tokenizer.path else None

    @abc.abstractmethod
    def load_params(self, model: Model, mesh: Mesh, convert: Convert = keep_as_it_is) -> Params:
        """Read the parameters, float32, without adapters: a run's are merged into the weights.

        Args:
            model: The model of `config.model`, with its vocabulary size filled in.
            mesh: The mesh to shard the parameters over.
            convert: What becomes of each parameter.
        """

    @abc.abstractmethod
    def dtypes(self) -> Mapping[str, str]:
        """Return the dtype of each tensor as the model was released, such as "BF16", by name.

        Empty if unknown: a run with fresh parameters has no released dtypes.
        """

    @abc.abstractmethod
    def model_type(self) -> str:
        """Return the Hugging Face family that the model was released as.

        Empty if unknown: a run with fresh parameters belongs to none.
        """

    @abc.abstractmethod
    def sampling_defaults(self) -> Mapping[str, Any]:
        """Return how the model is meant to be sampled, as a `generation_config.json` spells it.

        Empty if unknown: a run with fresh parameters has none.
        """

    def n_known_tokens(self, tokenizer: Tokenizer) -> int:
        """Return how many ids of the source's own tokenizer the weights were trained with.

        Further ids, of tokens that were added when the tokenizer was read, are new to the model.
        """
        return tokenizer.base_vocab_size

    def params(
        self, model: Model, mesh: Mesh, tokenizer: Tokenizer, convert: Convert = keep_as_it_is
    ) -> Params:
        """Read the parameters, with the vocabulary fitted to a model and its tokenizer.

        Args:
            model: A model of the same shape whose vocabulary may be larger.
            mesh: The mesh to shard the parameters over.
            tokenizer: The tokenizer that the parameters will be used with; the rows of tokens
                that the source does not know are initialized (`fit_vocabulary`).
            convert: What becomes of each parameter; it leaves embedding and head as they are.
        """
        try:
            own_tokenizer = self.tokenizer()
        except UserError:  # A folder of weights alone; the run names a tokenizer.
            own_tokenizer = tokenizer
        own_config = self.config.model
        if not own_config.vocab_size:
            own_config = resolve_vocab(own_config, own_tokenizer.vocab_size)
        return fit_vocabulary(
            self.load_params(build_model(own_config), mesh, convert),
            model,
            mesh,
            n_given=self.n_known_tokens(own_tokenizer),
            n_tokens=tokenizer.vocab_size,
        )
