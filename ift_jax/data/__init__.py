"""From token stores to global batches: order, packing, arrays. Imports no TensorFlow or SeqIO."""
