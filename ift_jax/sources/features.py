"""The output features of a task that knows no tokenizer: strings, passed through."""

from collections.abc import Mapping

import seqio
import tensorflow as tf


def _string_feature() -> seqio.Feature:
    vocabulary = seqio.PassThroughVocabulary(1)
    return seqio.Feature(vocabulary, add_eos=False, dtype=tf.string, rank=0)


# A text-to-text record: {"inputs": str, "targets": str}.
TEXT_FEATURES: Mapping[str, seqio.Feature] = {
    "inputs": _string_feature(),
    "targets": _string_feature(),
}
# A chat record: {"messages": JSON of [{"role", "content", ...}, ...]}.
CHAT_FEATURES: Mapping[str, seqio.Feature] = {"messages": _string_feature()}
