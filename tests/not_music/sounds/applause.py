"""Applause: many pairs of hands, now and then a crowd behind them."""

import numpy as np

from .sound import at_level, band, coloured, convolved, count, length, room, shaped, times, unit, wander

# By set: pairs of hands, claps a second, the pitch of the hollow between the hands in Hz.
HANDS = {
    "train": [(3, 4.0, 1_000), (15, 3.5, 1_200), (60, 4.5, 900), (250, 4.0, 1_100), (600, 3.8, 1_000)],
    "test": [(5, 3.2, 1_400), (25, 5.0, 800), (100, 3.0, 1_300), (400, 4.8, 1_500), (40, 4.2, 700)],
}


def claps(samples, random, hands, a_second, hollow):
    """Every pair of hands at a rate of its own, unsteadily; eight ways to hold the hands."""
    out = np.zeros(samples)
    strokes = np.zeros((8, samples))
    for _ in range(hands):
        gap = 1 / (a_second * random.uniform(0.7, 1.3))
        steps = gap * (1 + 0.12 * random.standard_normal(round(samples / 22_050 / gap) + 2))
        moments = ((np.cumsum(steps) - random.uniform(0, gap)) * 22_050).astype(int)
        moments = moments[(moments >= 0) & (moments < samples)]
        strokes[random.integers(8), moments] += random.uniform(0.2, 1) * random.uniform(0.6, 1, len(moments))
    for way in strokes:
        t = times(count(0.06))
        centre = hollow * random.uniform(0.6, 1.8)
        burst = random.standard_normal(len(t)) * np.exp(-t / random.uniform(0.003, 0.012))
        out += convolved(way, shaped(burst, band(centre * 0.6, centre * 2.2, slope=3)))
    return out


def crowd(samples, random, pitch):
    """Voices that cannot be told apart: bands of noise where vowels are, each one swelling."""
    out = np.zeros(samples)
    for resonance in (1, 2, 3.4, 5, 7.5):
        middle = pitch * resonance * random.uniform(0.9, 1.1)
        voices = unit(shaped(random.standard_normal(samples), band(middle * 0.8, middle * 1.25, slope=6)))
        out += voices * (0.4 + wander(samples, random, 5)) / resonance
    return unit(out)


def swell(samples, random, which):
    """Rises quickly and dies away, or comes in waves."""
    t = times(samples) / times(samples)[-1]
    if which == "train":
        return np.minimum(1, t * random.uniform(5, 20)) * np.exp(-t * random.uniform(0, 2))
    return (0.4 + 0.6 * wander(samples, random, 0.3)) * np.minimum(1, t * 8)


def make(which, number, random):
    """One hall, 10 to 30 s."""
    samples = length(random)
    hands = HANDS[which]
    out = unit(claps(samples, random, *hands[number % len(hands)]))
    name = f"hands-{hands[number % len(hands)][0]}"
    if number % 3 == 1:
        out = out + random.uniform(0.3, 1) * crowd(samples, random, 350 if which == "train" else 480)
        name += "-crowd"
    if number % 7 == 6:
        out = crowd(samples, random, 300 if which == "train" else 420)
        name = "crowd"
    out = room(out, random, random.uniform(0.3, 0.9) if which == "train" else random.uniform(0.9, 2))
    out = out + 0.01 * coloured(samples, random, 1)
    return name, at_level(out * swell(samples, random, which), random.uniform(-12, -1))
