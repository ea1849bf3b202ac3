"""Draws are fixed by their key, and fair."""

import collections

from ift_jax.data.randomness import Draws, hash64


def test_values_are_pinned():
    """An order must survive Python and library versions: these are written down, not computed."""
    draws = Draws(0, "task", 7)
    assert [draws.below(1000) for _ in range(4)] == [447, 665, 335, 976]
    assert hash64("validation", 3) == 584345958036954610


def test_draws_depend_on_every_part_of_the_key():
    firsts = {
        Draws(*key).below(2**60) for key in [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2)]
    }
    assert len(firsts) == 4
    assert Draws("ab", "c").below(2**60) != Draws("a", "bc").below(2**60)


def test_long_streams_are_uniform_and_do_not_repeat():
    draws = Draws("uniform")
    values = [draws.below(10) for _ in range(20_000)]
    counts = collections.Counter(values)
    chi_square = sum((counts[v] - 2000) ** 2 / 2000 for v in range(10))
    assert chi_square < 27.9  # The 0.999 quantile for nine degrees of freedom.
    assert values[:200] != values[200:400]


def test_a_sample_is_a_random_arrangement_of_different_positions():
    seen = collections.Counter(tuple(Draws("s", k).sample("abc", 2)) for k in range(6000))
    assert set(seen) == {(a, b) for a in "abc" for b in "abc" if a != b}
    assert max(seen.values()) - min(seen.values()) < 200
