"""Tones of telephones, alarms and test benches: nothing that anybody plays."""

import numpy as np

from .sound import at_level, count, faded, length, times, coloured

# The two frequencies of each key.
KEYS = {
    key: (row, column)
    for row, keys in zip((697, 770, 852, 941), ("123A", "456B", "789C", "*0#D"))
    for column, key in zip((1_209, 1_336, 1_477, 1_633), keys)
}


def together(samples, hertz):
    """Sines at the same level."""
    return sum(np.sin(2 * np.pi * each * times(samples)) for each in hertz)


def sine(samples, random, low, high):
    return together(samples, [np.exp(random.uniform(np.log(low), np.log(high)))])


def sweep(samples, random, low, high):
    """From one frequency to the other, in octaves or in Hz, once or a few times."""
    turns = random.integers(1, 4)
    position = (times(samples) / times(samples)[-1] * turns) % 1
    hertz = low * (high / low) ** position if random.uniform() < 0.5 else low + (high - low) * position
    return np.sin(2 * np.pi * np.cumsum(hertz) / 22_050)


def siren(samples, random, low, high):
    """Up and down between two frequencies."""
    position = 0.5 + 0.5 * np.sin(2 * np.pi * times(samples) * random.uniform(0.2, 3))
    return np.sin(2 * np.pi * np.cumsum(low + (high - low) * position) / 22_050)


def gated(samples, random, hertz, on, off):
    """Tones that are switched on and off."""
    beep = faded(together(count(on), hertz), 0.003)
    cycle = np.concatenate([beep, np.zeros(count(off))])
    return np.resize(cycle, samples)


def dialled(samples, random, on, off):
    """Keys of a telephone, pressed at random."""
    keys = [KEYS[key] for key in random.choice(list(KEYS), samples // count(on + off) + 1)]
    gap = np.zeros(count(off))
    return np.concatenate([part for pair in keys for part in (faded(together(count(on), pair), 0.003), gap)])[:samples]


def wave(samples, random, shape, low, high):
    """A steady square, saw or triangle, made of its harmonics."""
    hertz = np.exp(random.uniform(np.log(low), np.log(high)))
    harmonics = np.arange(1, int(10_000 / hertz) + 1, 1 if shape == "saw" else 2)
    fall = 2 if shape == "triangle" else 1
    return sum(np.sin(2 * np.pi * hertz * k * times(samples)) / k**fall for k in harmonics)


def clicks(samples, random, a_minute, hertz):
    """A metronome."""
    t = times(count(0.05))
    click = np.sin(2 * np.pi * hertz * t) * np.exp(-t / random.uniform(0.003, 0.01))
    return np.resize(np.concatenate([click, np.zeros(count(60 / a_minute) - len(click))]), samples)


def morse(samples, random, hertz, dot):
    """Dots and dashes at random."""
    parts, total = [], 0
    while total < samples:
        mark = faded(together(count(dot * random.choice([1, 3])), [hertz]), 0.003)
        gap = np.zeros(count(dot * random.choice([1, 1, 1, 3, 7])))
        parts += [mark, gap]
        total += len(mark) + len(gap)
    return np.concatenate(parts)[:samples]


def alarm(samples, random, first, second, seconds):
    """Two tones in turn."""
    pair = [faded(together(count(seconds), [hertz]), 0.003) for hertz in (first, second)]
    return np.resize(np.concatenate(pair), samples)


# By set: how to make one, and the parameters to choose from.
RECIPES = {
    "train": [
        ("sine", sine, [(50, 200), (300, 900), (1_000, 2_500), (3_000, 8_000)]),
        ("sweep", sweep, [(50, 5_000), (8_000, 200)]),
        ("keys", dialled, [(0.1, 0.1), (0.25, 0.1)]),
        ("dial-tone-us", gated, [((350, 440), 60, 0.01), ((440, 480), 2, 4), ((480, 620), 0.5, 0.5)]),
        ("beep", gated, [((1_000,), 0.2, 0.8), ((2_000,), 0.1, 0.1), ((800,), 1, 1)]),
        ("square", wave, [("square", 40, 120), ("square", 200, 600)]),
        ("saw", wave, [("saw", 50, 110), ("saw", 130, 400)]),
        ("metronome", clicks, [(60, 1_000), (96, 1_800), (144, 700)]),
        ("siren", siren, [(600, 1_200), (400, 800)]),
        ("interval", gated, [((220, 331), 60, 0.01), ((500, 707), 60, 0.01)]),
    ],
    "test": [
        ("sine", sine, [(200, 300), (900, 1_000), (2_500, 3_000), (30, 50)]),
        ("sweep", sweep, [(200, 2_000), (3_000, 100)]),
        ("keys", dialled, [(0.07, 0.07), (0.4, 0.3)]),
        ("dial-tone-europe", gated, [((425,), 60, 0.01), ((425,), 1, 4), ((425,), 0.48, 0.48)]),
        ("beep", gated, [((1_500,), 0.5, 0.5), ((3_100,), 0.06, 0.24), ((600,), 0.3, 2)]),
        ("triangle", wave, [("triangle", 70, 150), ("triangle", 250, 700)]),
        ("saw", wave, [("saw", 111, 129), ("square", 121, 199)]),
        ("metronome", clicks, [(72, 1_300), (120, 2_400), (184, 900)]),
        ("alarm", alarm, [(960, 770, 0.25), (2_400, 2_900, 0.1)]),
        ("morse", morse, [(700, 0.06), (550, 0.1)]),
    ],
}


def make(which, number, random):
    """One signal, 10 to 30 s, some of them with a little noise."""
    recipes = RECIPES[which]
    name, recipe, parameters = recipes[number % len(recipes)]
    samples = length(random)
    tone = faded(at_level(recipe(samples, random, *parameters[number // len(recipes) % len(parameters)]), -1))
    if number % 3 == 0:
        tone = tone + coloured(samples, random, 1) * random.choice([0.002, 0.01])
    return name, at_level(tone, random.uniform(-20, -1))
