"""Silence, and what recorders make of it."""

import numpy as np

from .sound import coloured, length, shaped, band, times

# Root mean square in dB below full scale of what is not quite silent.
LEVELS = {"train": (-95, -85, -75), "test": (-90, -80, -70)}


def make(which, number, random):
    """Digital silence, dither, or a recorder's faint noise, 10 to 30 s."""
    samples = length(random)
    level = 10 ** (random.choice(LEVELS[which]) / 20)
    recipe = number % 5
    if recipe == 0:
        return "digital", np.zeros(samples)
    if recipe == 1:
        # One step of 16 bits, up or down, in a triangle.
        return "dither", (random.uniform(0, 1, samples) - random.uniform(0, 1, samples)) / 2**15
    if recipe == 2:
        return "hiss", level * coloured(samples, random, random.uniform(-0.5, 1))
    if recipe == 3:
        return "hum", level * np.sin(2 * np.pi * (50 if which == "train" else 60) * times(samples))
    rumble = shaped(random.standard_normal(samples), band(10, 80 if which == "train" else 150))
    return "rumble", level * rumble / np.std(rumble)
