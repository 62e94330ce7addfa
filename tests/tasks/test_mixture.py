"""Dividing a pool among kinds of examples."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.tasks.mixture import Mixture, Zipf, apportion, exact, round_half_up

WEIGHTS = st.lists(st.integers(0, 50), min_size=1, max_size=7).filter(any)


def normalised(weights: list[int]) -> list[Fraction]:
    return [Fraction(w, sum(weights)) for w in weights]


def webster(total: int, weights: list[Fraction]) -> list[int]:
    """The slow obvious version: one unit after the other to the largest weight / (2 * share + 1)."""
    shares = [0] * len(weights)
    for _ in range(total):
        quotients = [w / (2 * s + 1) for w, s in zip(weights, shares, strict=True)]
        shares[quotients.index(max(quotients))] += 1
    return shares


@settings(deadline=None, max_examples=100)
@given(WEIGHTS, st.integers(0, 300))
def test_apportion_is_websters_method(weights: list[int], total: int) -> None:
    """The shortcut gives what handing out one unit after the other gives."""
    assert webster(total, normalised(weights)) == apportion(total, normalised(weights))


@settings(deadline=None, max_examples=50)
@given(WEIGHTS, st.integers(0, 10**12))
def test_apportion_is_monotone(weights: list[int], total: int) -> None:
    """One more in total is one more for exactly one kind, however large the total."""
    before, after = (apportion(n, normalised(weights)) for n in (total, total + 1))
    assert total == sum(before)
    assert [0] * (len(weights) - 1) + [1] == sorted(b - a for a, b in zip(before, after, strict=True))


def test_apportion_values() -> None:
    """Shares nearest to the weights; equal kinds fill up from the first."""
    assert [4, 3, 3] == apportion(10, normalised([1, 1, 1]))
    assert [57, 29, 14] == apportion(100, normalised([4, 2, 1]))
    assert [0, 5] == apportion(5, normalised([0, 1]))
    assert [] == apportion(0, [])


def test_decimals_are_taken_as_written() -> None:
    """0.3 of 5 is one and a half, which rounds up to 2; in binary it would be a little less."""
    assert Fraction(3, 10) == exact(0.3)
    assert 2 == round_half_up(5 * exact(0.3))
    assert [0, 1, 1, 2, 2] == [round_half_up(Fraction(i, 2)) for i in range(5)]


@pytest.mark.parametrize(
    ("expected", "hops", "k"),
    [
        ((), "all", 1),
        ((1, 2, 3), "all", 4),
        ((), "powers_of_two", 1),
        ((1,), "powers_of_two", 2),
        ((1, 2), "powers_of_two", 4),
        ((1, 2, 4), "powers_of_two", 5),
        ((3, 1), (3, 1), 2),
    ],
)
def test_easy_hops(expected: tuple[int, ...], hops: object, k: int) -> None:
    """Named sets hold hop lengths below k; a list stays as it was written."""
    assert expected == Mixture(hops=hops).easy_hops(k)  # type: ignore[arg-type]


def test_easy_weights() -> None:
    """Weights sum to 1: equal, falling as a power of r, or as listed."""
    assert (Fraction(1, 3),) * 3 == Mixture().easy_weights(4)
    assert (Fraction(2, 3), Fraction(1, 3)) == Mixture(weights=Zipf(1.0)).easy_weights(3)
    assert (Fraction(1, 2),) * 2 == Mixture(weights=Zipf(0.0)).easy_weights(3)
    assert (Fraction(1, 4), Fraction(3, 4)) == Mixture(hops=(1, 3), weights=(0.1, 0.3)).easy_weights(5)
    assert () == Mixture().easy_weights(1)


@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("hops must be different whole numbers from 1 up, at least one, not []", {"hops": ()}),
        ("hops must be different whole numbers from 1 up, at least one, not [0, 1]", {"hops": (0, 1)}),
        ("hops must be different whole numbers from 1 up, at least one, not [2, 2]", {"hops": (2, 2)}),
        ("weights can only be a list where hops is a list too, not 'all'", {"weights": (1.0,)}),
        ("weights has 1 numbers for 2 hop lengths", {"hops": (1, 2), "weights": (1.0,)}),
        (
            "weights must be finite, not negative and not all 0, not [0.0, 0.0]",
            {"hops": (1, 2), "weights": (0.0, 0.0)},
        ),
        (
            "weights must be finite, not negative and not all 0, not [-1.0, nan]",
            {"hops": (1, 2), "weights": (-1.0, float("nan"))},
        ),
        (
            (
                "hops must be different whole numbers from 1 up, at least one, not [0]; "
                "weights has 2 numbers for 1 hop lengths"
            ),
            {"hops": (0,), "weights": (1.0, 1.0)},
        ),
    ],
)
def test_mistakes_in_a_mixture_are_all_named(message: str, values: dict[str, object]) -> None:
    """Each mistake is named in words for the sweep's author, with what is allowed."""
    with pytest.raises(ValueError) as error:
        Mixture(**values)  # type: ignore[arg-type]
    assert message == str(error.value)


@pytest.mark.parametrize("exponent", [-1.0, 21.0, float("nan")])
def test_zipf_exponents_are_bounded(exponent: float) -> None:
    """Exponents outside 0 .. 20 are refused."""
    with pytest.raises(ValueError) as error:
        Zipf(exponent)
    assert f"zipf must be from 0 to 20, not {exponent:g}" == str(error.value)
