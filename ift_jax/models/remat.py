"""Rematerialization: what a layer keeps for the backward pass, and what is computed again.

docs/memory.md compares the policies.
"""

from typing import Any

import jax

from ift_jax.sharding import rules

# Names of values (`jax.ad_checkpoint.checkpoint_name`) that policies refer to.
LAYER_INPUT = "layer_input"
ATTENTION_OUTPUT = "attention"  # Before its output projection.

_policies = jax.checkpoint_policies
_save_dots = _policies.dots_with_no_batch_dims_saveable
_save_attention = _policies.save_only_these_names(ATTENTION_OUTPUT)
_offload_input = _policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=[LAYER_INPUT],
    offload_src="device",
    offload_dst="pinned_host",
)

# The values of the config's `remat` except "auto" and "none", which keeps everything, from most to
# least memory. All of them keep the layer's input.
CHECKPOINT_POLICIES: dict[str, Any] = {
    "minimal": _policies.save_from_both_policies(_save_dots, _save_attention),
    "dots": _save_dots,  # The outputs of the projections: products without a batch axis.
    "save_attention": _save_attention,
    "full": None,  # Nothing else.
    "offload": _offload_input,  # Nothing else, and the input in the host's memory.
}


def chosen_policy(requested: str) -> str:
    """The policy of the config's `remat`: "auto" follows the platform.

    A CPU computes elementwise values again in less time than it takes to store them and to load
    them: with "dots" the step of SmolLM2-135M's shape took 6.27 s, with "none" 6.81 s. "minimal"
    also keeps what attention returns: with rows of 4,096 a step of six layers took 8.7 s of CPU
    time, with "dots" 10.3 s.
    """
    if requested != "auto":
        return requested
    return "minimal" if rules.platform() == "cpu" else "none"
