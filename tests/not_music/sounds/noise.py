"""Noise: colours, bands, hums, weather, machines."""

import numpy as np

from .sound import at_level, band, coloured, convolved, count, length, scattered, shaped, times, unit, wander


def colour(samples, random, exponents):
    return coloured(samples, random, random.choice(exponents))


def banded(samples, random, lows):
    low = random.choice(lows)
    return shaped(random.standard_normal(samples), band(low, low * random.uniform(1.5, 6), slope=8))


def hum(samples, random, mains, hiss):
    """A mains hum with its harmonics, on some hiss."""
    t = times(samples)
    out = hiss * coloured(samples, random, random.uniform(0, 1))
    for harmonic in range(1, 13):
        level = random.uniform(0.1, 1) / harmonic
        out += level * np.sin(2 * np.pi * mains * harmonic * t + random.uniform(0, 6))
    return out


def rain(samples, random, drops, brightness):
    """A hiss with drops in it."""
    grain = shaped(random.standard_normal(count(0.012)), band(brightness, 9_000)) * np.exp(-times(count(0.012)) / 0.002)
    hiss = shaped(random.standard_normal(samples), band(brightness, 9_500, slope=2))
    return unit(hiss) + unit(scattered(samples, random, drops, grain)) * random.uniform(0.3, 1.5)


def wind(samples, random, gusts, centre):
    """Low noise that swells and turns brighter in gusts."""
    strength = wander(samples, random, gusts)
    dark = coloured(samples, random, 2.2)
    bright = unit(shaped(random.standard_normal(samples), band(centre / 2, centre * 1.5, slope=3)))
    return dark * (0.2 + strength) + bright * strength**2


def engine(samples, random, firing, roughness):
    """Pulses at a firing rate that wanders, through a dull exhaust, with noise."""
    hertz = firing * (0.7 + 0.6 * wander(samples, random, 0.4))
    turn = np.cumsum(hertz) / 22_050
    pulses = np.maximum(0, np.sin(2 * np.pi * turn)) ** 8 * (1 + roughness * random.standard_normal(samples))
    exhaust = shaped(pulses - np.mean(pulses), band(30, random.uniform(300, 1_200), slope=3))
    return unit(exhaust) + random.uniform(0.1, 0.5) * coloured(samples, random, 1)


def fan(samples, random, blades, _):
    """A broad rush with a few tones of the blades, beating slowly."""
    t = times(samples)
    out = unit(shaped(random.standard_normal(samples), band(80, random.uniform(1_000, 4_000), slope=2)))
    for harmonic in (1, 2, 3):
        out += random.uniform(0.05, 0.4) * np.sin(2 * np.pi * blades * harmonic * t) * (0.6 + 0.4 * np.sin(t))
    return out


def surf(samples, random, seconds, brightness):
    """Waves that rise, break and draw back."""
    phase = times(samples) / seconds + 0.3 * wander(samples, random, 0.2)
    strength = (0.5 + 0.5 * np.sin(2 * np.pi * phase)) ** 2
    roar = coloured(samples, random, 1.2)
    spray = unit(shaped(random.standard_normal(samples), band(brightness, 8_000, slope=2)))
    return roar * (0.15 + strength) + spray * strength**3


def brook(samples, random, bubbles, pitch):
    """Bubbles: short rising chirps at random, over a soft rush."""
    out = 0.3 * coloured(samples, random, 0.7)
    for _ in range(6):
        t = times(count(random.uniform(0.02, 0.08)))
        chirp = np.sin(2 * np.pi * random.uniform(pitch, 4 * pitch) * t * (1 + 4 * t)) * np.exp(-t / 0.015)
        out += unit(scattered(samples, random, bubbles, chirp)) * random.uniform(0.2, 0.6)
    return out


def traffic(samples, random, passing, brightness):
    """Vehicles that pass, on a distant roar."""
    out = 0.3 * coloured(samples, random, 1.8)
    t = times(samples)
    for _ in range(max(1, round(samples / 22_050 * passing))):
        distance = (t - random.uniform(0, t[-1])) / random.uniform(0.6, 2)
        rush = unit(shaped(random.standard_normal(samples), band(60, random.uniform(0.5, 1.5) * brightness, slope=2)))
        out += rush / (1 + distance**2) ** 1.5 * random.uniform(0.5, 2)
    return out


def crackle(samples, random, clicks, hiss):
    """Static: clicks at random on hiss, as of a radio between stations or an empty groove."""
    grain = random.standard_normal(30) * np.exp(-np.arange(30) / 5)
    return hiss * coloured(samples, random, 0.5) + scattered(samples, random, clicks * wander(samples, random, 1), grain)


def press(samples, random, seconds, brightness):
    """A machine: the same three bursts of noise over and over, on its own rush."""
    beat = count(seconds)
    strokes = np.zeros(samples)
    for offset in (0, beat // 3, beat // 2):
        strokes[offset::beat] = random.uniform(0.4, 1)
    t = times(count(0.15))
    stroke = shaped(random.standard_normal(len(t)), band(80, brightness, slope=2)) * np.exp(-t / random.uniform(0.01, 0.04))
    return unit(convolved(strokes, stroke)) + random.uniform(0.3, 0.8) * coloured(samples, random, 1)


# By set: how to make one, and the parameters to choose from.
RECIPES = {
    "train": [
        ("white", colour, [([0.0],)]),
        ("pink", colour, [([1.0],)]),
        ("brown", colour, [([2.0],)]),
        ("band", banded, [([100, 400, 1_000, 2_000],)]),
        ("hum-50", hum, [(50, 0.05), (50, 0.3), (100, 0.1)]),
        ("rain", rain, [(60, 1_000), (400, 1_500), (2_000, 500)]),
        ("wind", wind, [(0.3, 300), (0.8, 600)]),
        ("engine", engine, [(30, 0.2), (80, 0.5)]),
        ("fan", fan, [(90, 0), (140, 0)]),
        ("traffic", traffic, [(0.2, 1_200), (0.4, 2_000)]),
    ],
    "test": [
        ("blue", colour, [([-1.0, -0.5],)]),
        ("tilted", colour, [([0.5, 0.7],)]),
        ("red", colour, [([1.4, 1.7],)]),
        ("band", banded, [([60, 250, 700, 3_000],)]),
        ("hum-60", hum, [(60, 0.08), (60, 0.5), (120, 0.2)]),
        ("drizzle", rain, [(20, 2_500), (150, 700)]),
        ("surf", surf, [(5, 1_000), (8, 2_000)]),
        ("brook", brook, [(15, 500), (40, 800)]),
        ("static", crackle, [(30, 0.05), (300, 0.02)]),
        ("machine", press, [(0.9, 1_500), (0.5, 4_000)]),
    ],
}


def make(which, number, random):
    """One noise, 10 to 30 s."""
    recipes = RECIPES[which]
    name, recipe, parameters = recipes[number % len(recipes)]
    noise = recipe(length(random), random, *parameters[number // len(recipes) % len(parameters)])
    return name, at_level(noise, random.uniform(-20, -1))
