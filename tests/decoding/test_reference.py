"""Greedy text against `generate` of `transformers`, float32."""

import numpy as np
import pytest

from ift_jax.decoding import Sampling, generate
from ift_jax.models import build_model

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

from tests.models import hugging_face as hf  # noqa: E402

N_NEW = 24


@pytest.mark.parametrize(
    ("family", "penalty"),
    [
        ("llama", 1.0),
        ("llama", 1.2),
        ("1.0", 1.0),
        # A penalty also counts the first decoder input of a T5, as in `transformers`.
        ("1.1", 1.2),
        pytest.param("mistral", 1.0, marks=pytest.mark.slow),
        pytest.param("qwen3_5", 1.0, marks=pytest.mark.slow),
        pytest.param("gemma4", 1.0, marks=pytest.mark.slow),
        pytest.param("1.1", 1.0, marks=pytest.mark.slow),
    ],
)
def test_greedy_text(family, penalty):
    reference, config = hf.reference_and_config(family)
    model = build_model(config)
    params = hf.our_params(reference, config)
    rng = np.random.default_rng(4)
    prompts = [rng.integers(3, hf.VOCAB, n).tolist() for n in (9, 4, 12)]
    got = generate(
        model,
        params,
        prompts,
        max_new_tokens=N_NEW,
        stop_ids=(1,),
        pad_id=0,
        sampling=Sampling(repetition_penalty=penalty),
    )
    want = hf.greedy(reference, prompts, max_new_tokens=N_NEW, repetition_penalty=penalty)
    assert got == want
    # Long and varied enough to mean something (the tied T5 1.0 soon repeats itself).
    assert max(map(len, got)) >= 20
    assert len({token for tokens in got for token in tokens}) >= (3 if family == "1.0" else 15)
