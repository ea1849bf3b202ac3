"""SeqIO tasks with metrics and postprocessors of every kind that SeqIO knows."""

import functools

import clu.metrics
import flax
import jax.numpy as jnp
import numpy as np
import seqio
import seqio.test_utils
import tensorflow as tf

from ift_jax.metrics import reference_metric

LABELS = ("no", "yes")
N = 8
_TEXT = seqio.Feature(seqio.PassThroughVocabulary(1), dtype=tf.string, rank=0, add_eos=False)
TEXT_FEATURES = {"inputs": _TEXT, "targets": _TEXT}


def rows(split, shuffle_files, seed=None):
    questions = [f"is {i} odd" for i in range(N)]
    return tf.data.Dataset.from_tensor_slices(
        {
            "inputs": questions,
            "targets": list(LABELS) * (N // 2),
            "answers": [[label, label.upper()] for label in LABELS] * (N // 2),
            "idx": list(range(N)),
        }
    )


def to_label(text, example=None, is_target=False):
    return LABELS.index(text) if text in LABELS else -1


def with_answers(text, example=None, is_target=False):
    """Like T5's postprocessor of questions: a target is all of its example's answers."""
    if is_target:
        return [answer.decode() for answer in example["answers"]]
    return text


def user_exact(targets, predictions):
    return {
        "user_exact": sum(t == p for t, p in zip(targets, predictions, strict=True)) / len(targets)
    }


def label_accuracy(targets, predictions):
    return {"label_accuracy": float(np.mean(np.equal(targets, predictions)))}


def any_answer(targets, predictions):
    return {"any_answer": np.mean([p in t for t, p in zip(targets, predictions, strict=True)])}


def mean_score(targets, scores):
    return {"mean_score": float(np.mean(scores)), "scored": len(scores)}


def likeliest(targets, predictions, aux_values):
    best = int(np.argmax(aux_values["scores"]))
    return {"likeliest": best, "likeliest_is_right": targets[best] == predictions[best]}


def raises(targets, predictions):
    raise RuntimeError("this metric always\nfails")


def nan_metric(targets, predictions):
    return {"nan_metric": float("nan"), "infinite": -np.inf}


def numpy_metric(targets, predictions):
    return {"numpy_metric": np.float32(0.5), "array": np.arange(3), "jax": jnp.float32(2)}


def scalar_metric(targets, predictions):
    scalar = seqio.metrics.Scalar(np.float32(1.0))
    return {"scalar_metric": scalar, "said": seqio.metrics.Text("one\ntwo")}


def image_metric(targets, predictions):
    image = seqio.metrics.Image(np.zeros((1, 2, 2, 3)))
    return {"image": image, **user_exact(targets, predictions)}


def exact_with(targets, predictions, *, threshold):
    share = user_exact(targets, predictions)["user_exact"]
    return {"above": float(share > threshold)}


@reference_metric
def n_references(targets, predictions):
    return {"n_references": sum(map(len, targets)) / len(targets)}


@flax.struct.dataclass
class MeanTokens(seqio.metrics.Metric):
    """A metric object: the mean number of tokens of an answer, and of an example's inputs."""

    answers: float = 0.0
    inputs: float = 0.0
    model_output_type: seqio.metrics.ModelOutputType = seqio.metrics.ModelOutputType.PREDICTION

    @classmethod
    def from_model_output(
        cls, inputs, model_output, features, target_field_name="targets", **options
    ):
        return cls(
            answers=float(np.mean(np.sum(np.asarray(model_output) != 0, axis=1))),
            inputs=float(np.mean([len(example["inputs"]) for example in inputs])),
        )

    def compute(self):
        return {"tokens_of_answers": self.answers, "tokens_of_inputs": self.inputs}


TEXT_CASES = {
    "m_user": ([user_exact], None),
    "m_label": ([label_accuracy, user_exact], to_label),
    "m_answers": ([any_answer], with_answers),
    "m_score": ([mean_score], None),
    "m_aux": ([likeliest], None),
    "m_raises": ([raises, user_exact], None),
    "m_nan": ([nan_metric], None),
    "m_numpy": ([numpy_metric], None),
    "m_scalar": ([scalar_metric], None),
    "m_image": ([image_metric], None),
    "m_partial": ([functools.partial(exact_with, threshold=t) for t in (0.9, 1.0, 2.0)], None),
    "m_reference": ([n_references, user_exact], to_label),
    "m_lambda": ([lambda targets, predictions: {"first": predictions[0]}], None),
    "m_signature": ([lambda a, b: {"a": a}], None),
    "m_postprocess": ([user_exact, n_references], lambda text: text),
}


def register(root):
    for name, (metric_fns, postprocess_fn) in TEXT_CASES.items():
        _add(name, [], TEXT_FEATURES, metric_fns=metric_fns, postprocess_fn=postprocess_fn)
    vocabulary = seqio.test_utils.sentencepiece_vocab()
    feature = seqio.Feature(vocabulary, add_eos=True)
    passthrough = seqio.metrics.PassthroughLegacyMetric
    _add(
        "m_tokenized",
        [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        {"inputs": feature, "targets": feature},
        metric_fns=[label_accuracy, mean_score, likeliest],
        postprocess_fn=to_label,
        metric_objs=[
            MeanTokens,
            passthrough.from_metric_fn(user_exact, to_label),
        ],
    )
    _add("m_clu", [], TEXT_FEATURES, metric_objs=[clu.metrics.Average], metric_fns=[user_exact])
    whole = passthrough.from_metric_fn(any_answer, with_answers)
    _add("m_object", [], TEXT_FEATURES, metric_objs=[whole.empty()], metric_fns=[user_exact])


def _add(name, preprocessors, features, **options):
    source = seqio.FunctionDataSource(
        rows, splits=("train", "validation"), num_input_examples={"train": N, "validation": N}
    )
    seqio.TaskRegistry.add(
        name, source=source, preprocessors=preprocessors, output_features=features, **options
    )
