"""Text out of a model: the key-value cache, sampling, what ends an answer, and generation.

`generate` is the host's side: batches of prompts, padding, stop strings. `decode_batch` is the
device's: `begin_batch` reads the prompts (prefill), `advance_batch` is the loop that makes tokens.
`cache` is the key-value cache that both fill, `sampling` the choice of a token from logits, and
`stops` what ends an answer.
"""

from ift_jax.decoding.generate import Generator, Options, generate
from ift_jax.decoding.sampling import Sampling
from ift_jax.decoding.stops import Stops, TextStream

__all__ = ["Generator", "Options", "Sampling", "Stops", "TextStream", "generate"]
