"""Published evaluation sets, read from local files; one file for each.

`registry` names them, `run_benchmarks` answers and scores them, and `base` says what a benchmark
is. Nothing here downloads anything.
"""
