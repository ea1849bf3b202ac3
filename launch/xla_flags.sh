# Compiler flags that overlap communication with computation, a chip at a time:
#
#   . launch/xla_flags.sh v5p        # v4, v5e, v5p, v6e or gpu; then start ift train from this shell
#
# It appends to LIBTPU_INIT_ARGS (TPU) or XLA_FLAGS (GPU). No run needs it: the defaults are right, and whether a flag
# pays depends on the model; compare the step time with and without. TPU flags are those of MaxText's flag library
# (github.com/AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py), GPU flags those of NVIDIA's JAX Toolbox
# (rosetta/docs/GPU_performance.md).

_tpu_fusion="
  --xla_tpu_enable_async_collective_fusion=true
  --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true
  --xla_tpu_overlap_compute_collective_tc=true
  --xla_enable_async_all_gather=true
"
# ^ All-gathers (of fsdp's weights) start early and run in pieces beside the products in front of them.
_tpu_reduce="
  --xla_tpu_use_minor_sharding_for_major_trivial_input=true
  --xla_tpu_relayout_group_size_threshold_for_reduce_scatter=1
"
# ^ An all-reduce whose result is cut becomes a reduce-scatter: half the bytes (fsdp's gradients).
_tpu_slices="
  --xla_tpu_enable_data_parallel_all_reduce_opt=true
  --xla_tpu_data_parallel_opt_different_sized_ops=true
"
# ^ The all-reduce over slices (the slow network between pods) is spread over the loop's turns.
_tpu_vmem="--xla_tpu_scoped_vmem_limit_kib=98304"
# ^ v6e alone (its vector memory is the larger one): 96 MiB for the operation at hand, the rest for prefetching the next.
_gpu="
  --xla_gpu_enable_latency_hiding_scheduler=true
  --xla_gpu_enable_pipelined_all_gather=true
  --xla_gpu_enable_pipelined_reduce_scatter=true
  --xla_gpu_enable_while_loop_double_buffering=true
"
# ^ The scheduler moves collectives away from what waits for them; those of one layer run beside the products of the next;
#   the loop over layers is unrolled by two, so that no copy stands between.

case "$1" in
  v4 | v5e | v5p) LIBTPU_INIT_ARGS="$LIBTPU_INIT_ARGS $_tpu_fusion $_tpu_reduce $_tpu_slices" ;;
  v6e) LIBTPU_INIT_ARGS="$LIBTPU_INIT_ARGS $_tpu_fusion $_tpu_reduce $_tpu_slices $_tpu_vmem" ;;
  gpu) XLA_FLAGS="$XLA_FLAGS $_gpu" ;;
  *) echo "xla_flags.sh: expected v4, v5e, v5p, v6e or gpu; got '$1'" >&2 ;;
esac
# One line, single spaces.
LIBTPU_INIT_ARGS=$(echo $LIBTPU_INIT_ARGS) XLA_FLAGS=$(echo $XLA_FLAGS)
export LIBTPU_INIT_ARGS XLA_FLAGS
unset _tpu_fusion _tpu_reduce _tpu_slices _tpu_vmem _gpu
