"""Loss and gradient of pairs equal those of TRL's DPOTrainer, in float32, to 1e-5."""

import copy

import jax
import numpy as np
import pytest

pytest.importorskip("trl", reason="its DPOTrainer is the reference")
pytest.importorskip("datasets", reason="TRL's trainer takes a data set")
torch = pytest.importorskip("torch", reason="the reference models are torch modules")
transformers = pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.config.schema import LossConfig, PreferenceConfig  # noqa: E402
from ift_jax.interop.hugging_face_config import from_hugging_face  # noqa: E402
from ift_jax.models import build_model  # noqa: E402
from ift_jax.training.preference_step import pair_loss_and_grads  # noqa: E402
from tests.models import hugging_face as hf  # noqa: E402
from tests.training.pairs import make_pairs, pair_batch  # noqa: E402
from tests.training.test_invariance import assert_same  # noqa: E402

SIZES = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
# The losses by their names, which are TRL's, each with a beta at which it is neither flat nor 0.
LOSSES = {"sigmoid": 0.3, "sigmoid_norm": 2.0, "ipo": 0.4, "apo_zero": 0.3}
PAIRS = make_pairs([(4, 3, 6), (1, 1, 2), (7, 5, 2), (2, 9, 9)], vocab=hf.VOCAB)


@pytest.fixture(scope="module")
def models():
    """The trained model and the reference model."""
    config = transformers.LlamaConfig(**hf.SIZES | SIZES | dict(num_key_value_heads=1))
    torch.manual_seed(0)
    policy = hf.randomize(transformers.LlamaForCausalLM(config))
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return policy, reference


@pytest.fixture(scope="module")
def trainer(models, tmp_path_factory):
    import datasets
    import tokenizers
    import trl

    vocab = {f"<{i}>": i for i in range(hf.VOCAB)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<0>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<0>", eos_token="<1>"
    )
    settings = trl.DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    rows = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    policy, reference = models
    # The trainer changes how a model computes its head.
    return trl.DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=reference,
        args=settings,
        train_dataset=rows,
        processing_class=tokenizer,
    )


def theirs(trainer, loss):
    """TRL's loss of the pairs, and its gradient as weights of the model."""
    trainer.loss_types, trainer.beta = [loss], LOSSES[loss]
    rows = []
    for pair in PAIRS:
        n_prompt = int((pair.chosen.weights == 0).sum())
        tokens = {"chosen": pair.chosen.tokens.tolist(), "rejected": pair.rejected.tokens.tolist()}
        answers = {f"{side}_ids": ids[n_prompt:] for side, ids in tokens.items()}
        rows.append({"prompt_ids": tokens["chosen"][:n_prompt], **answers})
    model = trainer.model
    model.zero_grad()
    value = trainer.compute_loss(model, trainer.data_collator(rows))
    value.backward()
    return float(value), {name: p.grad.detach().clone() for name, p in model.named_parameters()}


def log_prob(model, side):
    """The log-probability of a side's answer, computed alone with `transformers`."""
    ids = torch.tensor(side.tokens.tolist())
    with torch.no_grad():
        log_probs = model(ids[None]).logits[0, :-1].log_softmax(-1)
    picked = log_probs[torch.arange(len(ids) - 1), ids[1:]]
    return float((picked * torch.tensor(side.weights[1:])).sum())


@pytest.fixture(scope="module")
def batch(trainer, models):
    """All pairs in two packed rows, with the reference's log-probabilities."""
    reference = copy.deepcopy(models[1])
    pairs = [
        pair._replace(reference=tuple(log_prob(reference, side) for side in pair[:2]))
        for pair in PAIRS
    ]
    return pair_batch([[pairs[3]], pairs[:3]], 48)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_those_of_trl(trainer, models, batch, loss):
    policy = models[0]
    config = from_hugging_face(policy.config.to_dict(), "llama")
    model = build_model(config)
    preference = PreferenceConfig(loss, beta=LOSSES[loss])

    def compute(params, batch):
        return pair_loss_and_grads(model, params, batch, LossConfig(), preference, n_tasks=3)

    got = jax.jit(compute)(hf.our_params(policy, config), batch)
    value, grads = theirs(trainer, loss)
    as_weights = copy.deepcopy(policy)
    with torch.no_grad():
        for name, weight in as_weights.named_parameters():
            weight.copy_(grads[name])
    assert_same(got, (value, hf.our_params(as_weights, config)))
    assert any(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(got[1]))
