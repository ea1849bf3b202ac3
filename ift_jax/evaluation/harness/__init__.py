"""lm-evaluation-harness runs its tasks on models of this package; it needs no PyTorch for that."""
