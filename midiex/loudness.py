"""How loud audio is to a listener (ITU-R BS.1770), measured block by block. Knows samples, no files and no synth."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Audio = npt.NDArray[np.float32]  # (frames, 2)


class LoudnessMeter:
    """Integrated loudness after ITU-R BS.1770 of stereo audio that comes in blocks; memory stays flat.

    The K-weighting filter rings for less than 60 ms, so it is applied exactly by overlapping Fourier transforms.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._hop = sample_rate // 10  # gating blocks are 4 hops long and start every hop
        self._overlap = sample_rate // 16
        self._before = np.zeros((2, self._overlap), np.float32)
        self._rest = np.zeros((2, 0), np.float32)  # weighted, less than a hop
        self._powers: list[npt.NDArray[np.float64]] = []

    def add(self, block: Audio) -> None:
        """Takes the next (frames, 2) samples."""
        joined = np.concatenate([self._before, block.T], axis=1)
        size = -(-joined.shape[1] // 4096) * 4096  # a length with small factors
        spectrum = np.fft.rfft(joined, size)
        spectrum *= _k_weighting(self._rate, size)
        weighted = np.fft.irfft(spectrum, size)[:, self._overlap : joined.shape[1]]
        self._before = joined[:, -self._overlap :]
        joined = np.concatenate([self._rest, weighted], axis=1, dtype=np.float32)
        hops = joined.shape[1] // self._hop
        whole, self._rest = np.split(joined, [hops * self._hop], axis=1)
        whole = np.ascontiguousarray(whole).reshape(2, hops, self._hop)
        self._powers.append(np.einsum("chi,chi->h", whole, whole, dtype=np.float64) / self._hop)

    def integrated_lufs(self) -> float:
        """Loudness in LUFS of all blocks so far; -inf for silence or less than 400 ms."""
        hops = np.concatenate([*self._powers, np.zeros(0)])
        if len(hops) < 4:
            return -math.inf
        power = np.convolve(hops, np.full(4, 0.25), "valid")  # (gating blocks,), both channels added
        power = power[power > 10 ** ((-70 + 0.691) / 10)]
        power = power[power > 0.1 * power.mean()] if len(power) else power
        return -0.691 + 10 * math.log10(power.mean()) if len(power) else -math.inf


@functools.lru_cache(maxsize=4)
def _k_weighting(sample_rate: int, size: int) -> npt.NDArray[np.complex64]:
    """Response (size // 2 + 1,) of the two BS.1770 filters: a high shelf for the head, then a high-pass."""
    warped = 1j * np.tan(np.minimum(np.pi * np.arange(size // 2 + 1) / size, 1.5707))  # bilinear transform
    k, q, gain = math.tan(math.pi * 1681.974450955533 / sample_rate), 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    s = warped / k
    shelf = (gain * s**2 + gain**0.4996667741545416 * s / q + 1) / (s**2 + s / q + 1)
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    s = warped / k
    response: npt.NDArray[np.complex64] = shelf * s**2 / (s**2 + s / q + 1) * (1 + k / q + k**2)
    return response.astype(np.complex64)
