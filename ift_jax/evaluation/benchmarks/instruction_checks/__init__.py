"""The 25 verifiable instructions of IFEval (Zhou et al. 2023, arXiv:2311.07911) as functions.

`instructions` has the table of them and the strict and loose rules. A check takes a response and
the arguments of its instruction, and behaves like the release's checker of the same name; where
it cannot, its docstring says what differs.
"""
