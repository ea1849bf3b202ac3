"""Text out of a model: the key-value cache, sampling, what ends an answer, and generation.

The interface is `requests`: `Generator.complete` (in `generate`) answers `Request`s with `Output`s.
On the host, `generate` makes batches of them and works block by block, `request_batch` brings
requests into arrays and back, and `stops` finds what ends an answer. On the device, `decode_batch`
reads the prompts (`begin_batch`, prefill) and has the loop that makes tokens (`advance_batch`);
`beam_search` has the one that searches; `block_loops` calls them, and `compile_ahead` compiles them
for the batches to come. They fill the key-value cache of `cache`, and use `sampling` and
`log_probs`.
"""

from ift_jax.decoding.generate import Generator, generate
from ift_jax.decoding.growing_text import GrowingText
from ift_jax.decoding.requests import BeamSearch, Completion, Options, Output, Request, TokenLogprob
from ift_jax.decoding.sampling import Sampling
from ift_jax.decoding.stops import Stops, TextStream

__all__ = [
    "BeamSearch",
    "Completion",
    "Generator",
    "GrowingText",
    "Options",
    "Output",
    "Request",
    "Sampling",
    "Stops",
    "TextStream",
    "TokenLogprob",
    "generate",
]
