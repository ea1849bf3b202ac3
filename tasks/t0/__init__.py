"""T0: the prompts of P3 over the data sets that T0 was trained and tested on."""
