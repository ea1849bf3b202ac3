"""Open mixtures after Tulu 3."""
