"""The output features of tasks that know no tokenizer: strings, passed through."""

import seqio
import tensorflow as tf

_STRING = seqio.Feature(seqio.PassThroughVocabulary(1), add_eos=False, dtype=tf.string, rank=0)
# A text-to-text record: {"inputs": str, "targets": str}.
TEXT_FEATURES = {"inputs": _STRING, "targets": _STRING}
# A chat record: {"messages": a JSON list of {"role", "content", ...}}.
CHAT_FEATURES = {"messages": _STRING}
