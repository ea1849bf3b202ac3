"""What the fields of `model` that both architectures have say of themselves, and their choices.

Each architecture states its own default beside the shared help.
"""

REMAT_POLICIES = ("none", "minimal", "dots", "save_attention", "full", "offload")
INIT_FROM = (
    "A Hugging Face folder or a run's workdir to start from: its weights, its tokenizer, and every "
    "field of this section that is part of the model (all but dropout, dropout_schedule, dtype, "
    "remat and attention). Empty: fresh weights."
)
VOCAB_SIZE = "Rows of the embedding; 0: the tokenizer's size, rounded up to a multiple of 128."
D_MODEL = "Width of the residual stream."
N_HEADS = "Number of query heads."
HEAD_DIM = "Width of a head."
D_FF = "Width of the feed-forward layer."
NORM_EPS = "Added to the mean square in RMS norms."
TIED_EMBEDDING = "Whether the output head shares the embedding's weights."
DROPOUT = "Dropout rate on the output of each sublayer."
DTYPE = "Type of activations and matrix products. Parameters are float32."
REMAT = (
    "What the backward pass recomputes instead of keeping, from nothing to everything; "
    '"auto": "minimal" on a CPU, where that is faster, "none" elsewhere. See docs/memory.md.'
)
ATTENTION = (
    'The attention implementation in training; "auto" chooses by platform and length. "splash" '
    '(Pallas for TPU) and "triton" (Pallas for NVIDIA GPUs) are interpreted on other platforms, '
    "which is slow. See docs/attention.md."
)
DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("auto", "xla", "blockwise", "tiled", "splash", "triton")
