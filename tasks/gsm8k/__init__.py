"""GSM8K: grade-school math problems with worked solutions."""
