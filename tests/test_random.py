"""Counter-based random numbers."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from torch import Tensor

from trainers import random

torch.set_num_threads(1)


def signed(low: int, high: int) -> int:
    """Two 32-bit words as one signed 64-bit number."""
    value = low | high << 32
    return value - (1 << 64) if value >> 63 else value


def words(values: tuple[Tensor, ...]) -> list[str]:
    return [f"{int(v):08x}" for v in values]


@pytest.mark.parametrize(
    ("expected", "counter", "key"),
    [
        ("6627e8d5 e169c58d bc57ac4c 9b00dbd8", "0 0 0 0", "0 0"),
        ("408f276d 41c83b0e a20bc7c6 6d5451fd", " ".join(["ffffffff"] * 4), "ffffffff ffffffff"),
        (
            "d16cfe09 94fdcceb 5001e420 24126ea1",
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
        ),
    ],
)
def test_philox_gives_the_published_vectors(expected: str, counter: str, key: str) -> None:
    """Philox4x32-10 equals the known answers of Random123 (kat_vectors), with whole and with tensor keys."""
    c0, c1, c2, c3 = (torch.tensor(int(word, 16)) for word in counter.split())
    low, high = (int(word, 16) for word in key.split())
    assert expected.split() == words(random.philox((c0, c1, c2, c3), signed(low, high)))
    assert expected.split() == words(random.philox((c0, c1, c2, c3), torch.tensor(signed(low, high))))


def test_bits_are_words_of_philox() -> None:
    """The counter of `bits` is (low a, high a, low b, high b), and it returns the first 63 bits."""
    a, b = signed(0x243F6A88, 0x85A308D3), signed(0x13198A2E, 0x03707344)
    key = signed(0xA4093822, 0x299F31D0)
    expected = (0xD16CFE09 | (0x94FDCCEB >> 1) << 32, 0x5001E420 | (0x24126EA1 >> 1) << 32)
    x, y = random.bits_pair(key, torch.tensor(a), b)
    assert expected == (int(x), int(y))
    assert expected[0] == int(random.bits(key, torch.tensor(a), torch.tensor(b)))


def test_keys_are_stable_and_differ_by_seed_and_purpose() -> None:
    """A key depends on seed and purpose alone, in every process, and any whole number is a seed."""
    assert 7824777423566302168 == random.key(0, "init")
    seeds = [0, 1, -1, 2**64, 10, 11]
    keys = {random.key(seed, purpose) for seed in seeds for purpose in ("init", "data", "1/init", "")}
    assert len(seeds) * 4 == len(keys)
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_keys_broadcast_over_slots() -> None:
    """A column of keys gives each slot the numbers that it gets alone."""
    keys, a = [random.key(seed, "x") for seed in range(3)], torch.arange(5)
    packed = random.bits(torch.tensor(keys).unsqueeze(1), a, 7)
    assert torch.equal(torch.stack([random.bits(key, a, 7) for key in keys]), packed)


def test_uniform_is_uniform_in_its_range() -> None:
    """Uniform numbers are float64 in [0, 1), evenly spread over 64 bins (chi-square within 5 sigma)."""
    u = random.uniform(random.key(0, "u"), torch.arange(64_000))
    assert u.dtype == torch.float64 and 0 <= u.min() and u.max() < 1
    assert 1 - 2.0**-53 == float(random.to_uniform(torch.tensor(2**63 - 1)))
    counts = torch.bincount((u * 64).long(), minlength=64).double()
    chi_square = float(((counts - 1000) ** 2 / 1000).sum())
    assert abs(chi_square - 63) < 5 * math.sqrt(2 * 63)


def test_below_keeps_its_bound() -> None:
    """`below` stays under each element's own bound, up to 2^62, and reaches every small value."""
    bound = torch.tensor([1, 2, 7, 2**62]).unsqueeze(1)
    draws = random.below(5, bound, torch.arange(1000), 1)
    assert (draws >= 0).all() and (draws < bound).all()
    assert [1, 2, 7] == [len(row.unique()) for row in draws[:3]]


def test_normal_is_standard_normal() -> None:
    """Normal numbers have the moments and the tail of N(0, 1), with neighbours uncorrelated."""
    x = random.normal(random.key(1, "init"), 400_001, "cpu").double()
    assert (400_001,) == x.shape
    moments = [float((x**p).mean()) for p in (1, 2, 3, 4)]
    assert [0, 1, 0, 3] == pytest.approx(moments, abs=0.05)
    assert pytest.approx(0.0455, abs=0.002) == float((x.abs() > 2).double().mean())
    assert pytest.approx(0, abs=0.01) == float((x[1:] * x[:-1]).mean())


@pytest.mark.parametrize("n", [0, 1, 2, 7, random.CHUNK * 2 + 3])
def test_normal_of_fewer_is_a_prefix(n: int) -> None:
    """How many numbers are asked for changes none of them: there is no state."""
    longer = random.normal(3, random.CHUNK * 2 + 10, "cpu")
    shorter = random.normal(3, n, "cpu")
    assert shorter.dtype == torch.float32
    assert torch.equal(longer[:n], shorter)


@pytest.mark.parametrize("radices", [(3, 2), (24, 4), (2, 2, 2), (6, 1, 5), (7, 7)])
def test_permute_is_one_to_one(radices: tuple[int, ...]) -> None:
    """Every vector of digits is hit exactly once, for many keys and after any number of passes."""
    grid = torch.cartesian_prod(*(torch.arange(radix) for radix in radices))
    for key in range(10):
        digits = torch.stack(random.permute(key, tuple(grid.T), radices, 1 + key % 4), dim=1)
        assert grid.tolist() == sorted(digits.tolist())


def test_permute_differs_by_key_and_tweak() -> None:
    """Another key or another tweak is another permutation."""
    grid = torch.cartesian_prod(torch.arange(9), torch.arange(9))
    images = [
        torch.stack(random.permute(key, tuple(grid.T), (9, 9), 6, tweak), dim=1)
        for key, tweak in [(0, 0), (1, 0), (0, 1)]
    ]
    fixed = [int((a == b).all(dim=1).sum()) for a, b in [(images[0], images[1]), (images[0], images[2])]]
    assert max(fixed) < 9  # of 81, about one is expected


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 100])
def test_shuffle_is_one_to_one(size: int) -> None:
    """A shuffle of 0 .. size-1 holds each number once, for every size and tweak."""
    for tweak in range(5):
        shuffled = random.shuffle(7, size, torch.arange(size), tweak)
        assert list(range(size)) == sorted(shuffled.tolist())


def test_shuffle_broadcasts_sizes_and_keys() -> None:
    """Slots with keys, sizes and tweaks of their own get the shuffle that each gets alone."""
    keys, sizes, tweaks = torch.tensor([[3], [-4]]), torch.tensor([[10], [1000]]), torch.tensor([[0], [5]])
    x = torch.arange(10).expand(2, 10)
    expected = torch.stack([random.shuffle(3, 10, x[0], 0), random.shuffle(-4, 1000, x[1], 5)])
    assert torch.equal(expected, random.shuffle(keys, sizes, x, tweaks))


@pytest.mark.parametrize("size", [4, 5, 9])
def test_shuffle_makes_all_pairs_equally_likely(size: int) -> None:
    """Over keys, where 0 and 1 go is uniform over ordered pairs (chi-square within 5 sigma)."""
    n_keys = 20_000
    keys = torch.tensor([random.key(seed, "pairs") for seed in range(n_keys)]).unsqueeze(1)
    image = random.shuffle(keys, size, torch.arange(2).expand(n_keys, 2))
    counts = torch.bincount(image[:, 0] * size + image[:, 1], minlength=size**2).double()
    expected = n_keys / (size * (size - 1))
    off_diagonal = counts[~torch.eye(size, dtype=torch.bool).flatten()]
    chi_square, freedom = float(((off_diagonal - expected) ** 2 / expected).sum()), size * (size - 1) - 1
    assert n_keys == int(off_diagonal.sum())
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it imports its compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_rounds_are_the_rounds() -> None:
    """What CUDA runs as one kernel gives the same words, whatever the shapes of counters and keys."""
    x = torch.arange(1000) * 123_457
    for counter, key in ((x, torch.arange(7).unsqueeze(1) * 99_991 - 5), (x[:10], -77), (x[:1], 3)):
        words = (counter, counter * 3, counter ^ 5, counter)
        for expected, got in zip(random._rounds(*words, key), random._fused_rounds(words, key), strict=True):
            assert torch.equal(expected, got)
