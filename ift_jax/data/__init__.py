"""From SeqIO mixtures to global batches: token stores, order, packing, batches.

Nothing here imports TensorFlow or SeqIO at import time; only preparing a store does.
"""
