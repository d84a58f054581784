"""Dropout whose masks are functions of seed, iteration and sample.

Ordinary dropout draws from a generator whose state depends on how many samples a process has seen.
Here every sample brings a number of its own, and each place of the network draws from that number,
so that one, two and four processes train alike and a resumed run goes on as if never interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from utils.common.precision import to_device

# Odd constants of 64 bits that mix the digits of a number (Steele et al., 2014, SplitMix).
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_SHIFTS = (30, 27, 31)
_SITE = 1 << 32  # numbers that one place of the network may draw per sample
_DIGITS = 24  # that a float32 holds exactly


@dataclass(frozen=True)
class Noise:
    """Random numbers of the samples of one batch.

    keys (B,) int64: one number per sample, on the device of the network.
    """

    keys: Tensor

    @classmethod
    def of(cls, seed: int, iteration: int, samples: Tensor, device: torch.device) -> Noise:
        """Make the noise of a training step; `samples` (B,) are the images' numbers, on the CPU."""
        keys = samples.long()
        for word in (iteration, seed):
            keys = _mixed(keys + torch.tensor(word + 1) * _STEP)
        return cls(to_device(keys, device))

    def uniform(self, site: int, count: int) -> Tensor:
        """Draw (B, count) float32 in [0, 1); equal for equal keys and sites.

        site: number of the place in the network that draws.
        """
        return self._drawn(torch.arange(count, device=self.keys.device) + site * _SITE)

    def first(self, sites: int) -> Tensor:
        """Draw (B, sites) float32 in [0, 1): the first number of each of the sites 0..sites-1."""
        return self._drawn(torch.arange(sites, device=self.keys.device) * _SITE)

    def _drawn(self, places: Tensor) -> Tensor:
        bits = _mixed(_mixed(self.keys)[:, None] + (places + 1) * _STEP)
        return _shifted(bits, 64 - _DIGITS).float() / 2**_DIGITS


def _factors(drawn: Tensor, rate: float) -> Tensor:
    """Turn numbers in [0, 1) of any shape into factors of mean 1: 0 with probability `rate`, else
    1 / (1 - rate), float32.
    """
    return (drawn >= rate).float() / (1 - rate)


def drop_channels(features: Tensor, rate: float, noise: Noise | None, site: int) -> Tensor:
    """Set whole channels of (B, N, C) to 0 with probability `rate`, raise the others to match.

    Without noise, as in testing, the features stay as they are. Source: spatial dropout of Tompson
    et al. (2015), as WeCLIP's decoder has it.
    """
    if noise is None or rate == 0:
        return features
    kept = _factors(noise.uniform(site, features.shape[-1]), rate)
    return features * kept[:, None].to(features.dtype)


def drop_path(branch: Tensor, rate: float, drawn: Tensor) -> Tensor:
    """Set a residual branch (B, ...) to 0 for the samples whose number in `drawn` (B,), in [0, 1),
    is below the rate, and raise the others to match.

    Source: stochastic depth of Huang et al. (2016).
    """
    factors = _factors(drawn, rate).view(-1, *[1] * (branch.ndim - 1))
    return branch * factors.to(branch.dtype)


def _mixed(numbers: Tensor) -> Tensor:
    """Scatter int64 numbers over all 64 bits; a function of each one alone."""
    for shift, factor in zip(_SHIFTS, (*_MIX, 1)):
        numbers = (numbers ^ _shifted(numbers, shift)) * factor
    return numbers


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift int64 numbers right, filling with zeros."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
