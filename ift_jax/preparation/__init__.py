"""From SeqIO tasks to token stores: all that needs SeqIO and TensorFlow, and runs once."""
