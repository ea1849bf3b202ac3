"""Attention: which positions attend to which, and the implementations that compute it.

`mask` holds the one rule of what each query may attend to, and `implementations` the choice of how
that is computed: `reference` in plain XLA (dense, or in blocks of queries), `tiled` for long rows
on a CPU, `splash` on TPU, `triton` on NVIDIA GPUs. `attention` calls the chosen one and holds the
module with the projections; `kv` and `relative_bias` are the keys and values, and T5's bias.
"""
