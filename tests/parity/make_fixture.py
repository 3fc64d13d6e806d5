#!/usr/bin/env python3
"""Makes services/feature/tests/fixtures/librosa_chunks.npy: what librosa says about a synthetic signal.

The signal is integer arithmetic only, so that the Rust test makes the very same samples. Needs librosa 0.11.
"""

import pathlib

import numpy as np
import reference

SAMPLES = 165_375  # 7.5 s: two regular chunks, and one that is anchored to the end
FIXTURE = pathlib.Path(__file__).parents[2] / "services/feature/tests/fixtures/librosa_chunks.npy"


def synthetic_signal() -> np.ndarray:
    """A rising triangle wave under noise whose level steps every half second; a half second of silence in between."""
    mask = 0xFFFF_FFFF
    phase, step, noise = 0, 10_000_000, 1
    samples = []
    for index in range(SAMPLES):
        phase = (phase + step) & mask
        step += 9_000
        noise = (noise * 1_664_525 + 1_013_904_223) & mask
        section = index // 11_025
        triangle = abs((phase >> 16) - 32_768) - 16_384
        hiss = ((noise >> 16) - 32_768) >> (2 + section % 9)
        samples.append(0 if section == 5 else (triangle >> 1) + hiss)
    return np.array(samples, dtype=np.float32) / 32_768


if __name__ == "__main__":
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    cut = reference.chunks(synthetic_signal())
    np.save(FIXTURE, cut)
    print(f"{FIXTURE}: {cut.shape}, {FIXTURE.stat().st_size} bytes")
