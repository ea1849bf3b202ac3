"""Selections of completions equal those by brute force; the control differs in nothing else."""

import itertools
import random
from collections import Counter

import pytest

from ift_jax.synthesis.selection import (
    Choice,
    best_per_prompt,
    random_control,
    sample_seed,
    top_overall,
)


def tables():
    """Tables with many equal rewards, and with places that have none."""
    rng = random.Random(3)
    for _ in range(200):
        shape = rng.randint(1, 6), rng.randint(1, 5)
        yield [
            [rng.choice((None, -1.0, 0.0, 0.5, 1.0)) for _ in range(shape[1])]
            for _ in range(shape[0])
        ]


def is_better(table, one, other):
    """Whether a choice comes before another: by reward, then by prompt, then by sample."""
    ours, theirs = table[one.prompt][one.sample], table[other.prompt][other.sample]
    return ours > theirs or (ours == theirs and one < other)


def able(table, threshold):
    return [
        Choice(i, j)
        for i, row in enumerate(table)
        for j, reward in enumerate(row)
        if reward is not None and (threshold is None or reward >= threshold)
    ]


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_selections_are_those_by_brute_force(threshold):
    for table in tables():
        choices = able(table, threshold)
        best = [
            one
            for one in choices
            if not any(
                other.prompt == one.prompt and is_better(table, other, one) for other in choices
            )
        ]
        assert best_per_prompt(table, threshold) == best
        for k in (1, 3, 100):
            # A choice is selected if fewer than k others are better than it.
            top = [one for one in choices if sum(is_better(table, o, one) for o in choices) < k]
            assert top_overall(table, k, threshold) == top


def test_the_control_has_the_prompts_and_counts_of_the_selection_and_ignores_rewards():
    for table in tables():
        for selected in (best_per_prompt(table), top_overall(table, 4)):
            control = random_control(table, selected, seed=1)
            assert control == sorted(set(control)), "none is drawn twice"
            assert Counter(c.prompt for c in control) == Counter(c.prompt for c in selected)
            assert all(table[prompt][sample] is not None for prompt, sample in control)
            assert random_control(table, selected, seed=1) == control
            # What is drawn depends on where there are rewards, not on what they are.
            flat = [[None if reward is None else 0.0 for reward in row] for row in table]
            assert random_control(flat, selected, seed=1) == control


def test_every_completion_is_as_likely_to_be_drawn_for_the_control():
    table = [[1.0, 0.0, None, 0.0]]
    drawn = Counter(random_control(table, [Choice(0, 0)], seed)[0].sample for seed in range(600))
    assert set(drawn) == {0, 1, 3} and all(150 < n < 250 for n in drawn.values())


def test_seeds_of_samples_differ_and_name_all_that_they_depend_on():
    places = list(itertools.product(range(2), range(1, 3), range(30), range(5)))
    assert len({sample_seed(*place) for place in places}) == len(places)
    assert sample_seed(0, 1, 0, 0) == sample_seed(0, 1, 0, 0) < 2**63
