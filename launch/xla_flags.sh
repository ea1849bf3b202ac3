# Set compiler flags that overlap communication with computation, for one kind of chip:
#
#   . launch/xla_flags.sh v5p        # v4, v5e, v5p, v6e or gpu; then start ift train from this shell
#
# It appends to LIBTPU_INIT_ARGS (TPU) or XLA_FLAGS (GPU). No run needs the flags: the defaults are fine, and whether
# a flag helps depends on the model, so compare the step time with and without. The TPU flags are from MaxText's
# flag library (github.com/AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py), the GPU flags from NVIDIA's JAX
# Toolbox (rosetta/docs/GPU_performance.md).

# All-gathers (of the weights, under fsdp) start early and run in pieces beside the matrix products before them.
_tpu_fusion="
  --xla_tpu_enable_async_collective_fusion=true
  --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true
  --xla_tpu_overlap_compute_collective_tc=true
  --xla_enable_async_all_gather=true
"
# An all-reduce whose result is sharded becomes a reduce-scatter, which sends half the bytes (the gradients, under fsdp).
_tpu_reduce="
  --xla_tpu_use_minor_sharding_for_major_trivial_input=true
  --xla_tpu_relayout_group_size_threshold_for_reduce_scatter=1
"
# The all-reduce between slices, over the slow network, is spread over the iterations of the loop over layers.
_tpu_slices="
  --xla_tpu_enable_data_parallel_all_reduce_opt=true
  --xla_tpu_data_parallel_opt_different_sized_ops=true
"
# Only v6e has enough vector memory: 96 MiB for the current operation, the rest for prefetching the next.
_tpu_vmem="--xla_tpu_scoped_vmem_limit_kib=98304"
# The scheduler moves collectives away from the operations that wait for them; the collectives of one layer run beside the
# matrix products of the next; and the loop over layers is unrolled by two, which saves a copy between its iterations.
_gpu="
  --xla_gpu_enable_latency_hiding_scheduler=true
  --xla_gpu_enable_pipelined_all_gather=true
  --xla_gpu_enable_pipelined_reduce_scatter=true
  --xla_gpu_enable_while_loop_double_buffering=true
"

case "$1" in
  v4 | v5e | v5p) LIBTPU_INIT_ARGS="$LIBTPU_INIT_ARGS $_tpu_fusion $_tpu_reduce $_tpu_slices" ;;
  v6e) LIBTPU_INIT_ARGS="$LIBTPU_INIT_ARGS $_tpu_fusion $_tpu_reduce $_tpu_slices $_tpu_vmem" ;;
  gpu) XLA_FLAGS="$XLA_FLAGS $_gpu" ;;
  *) echo "xla_flags.sh: expected v4, v5e, v5p, v6e or gpu; got '$1'" >&2 ;;
esac
# Unquoted, to join the lines with single spaces.
LIBTPU_INIT_ARGS=$(echo $LIBTPU_INIT_ARGS) XLA_FLAGS=$(echo $XLA_FLAGS)
export LIBTPU_INIT_ARGS XLA_FLAGS
unset _tpu_fusion _tpu_reduce _tpu_slices _tpu_vmem _gpu
