"""The supervised tasks, the mixtures and the unsupervised objectives of T5."""
