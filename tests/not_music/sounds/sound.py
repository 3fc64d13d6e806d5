"""What every kind is made of: filters, envelopes, levels. A sound is an array of floats at RATE samples a second."""

import numpy as np

RATE = 22_050


def count(seconds):
    """Samples in a time."""
    return max(1, round(seconds * RATE))


def times(samples):
    """The time of each sample, in seconds."""
    return np.arange(samples) / RATE


def length(random):
    """Samples of a file: 10 to 30 s."""
    return count(random.uniform(10, 30))


def quick(samples):
    """A length of at least so many samples whose Fourier transform is quick."""
    return -(-samples // 4_096) * 4_096


def shaped(signal, gain):
    """Filters with a gain for each frequency: `gain` maps an array of Hz to an array of factors."""
    size = quick(len(signal))
    spectrum = np.fft.rfft(signal, size)
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(size, 1 / RATE)), size)[: len(signal)]


def band(low, high, slope=4):
    """The gain of a band-pass: half at `low` and `high` Hz, falling on both sides."""

    def gain(hertz):
        above = 1 / (1 + (low / np.maximum(hertz, 1e-3)) ** slope) if low else 1.0
        return above / (1 + (hertz / high) ** slope)

    return gain


def coloured(samples, random, exponent):
    """Noise whose power falls with frequency to `exponent`: 0 is white, 1 pink, 2 brown; below 0 it rises."""
    gain = lambda hertz: np.maximum(hertz, 20.0) ** (-exponent / 2)
    return unit(shaped(random.standard_normal(samples), gain))


def wander(samples, random, hertz):
    """A smooth random curve from 0 to 1 that changes about `hertz` times a second."""
    knots = random.uniform(0, 1, max(4, round(samples / RATE * hertz) + 2))
    return np.interp(np.linspace(0, len(knots) - 1, samples), np.arange(len(knots)), knots)


def scattered(samples, random, each_second, grain):
    """Copies of `grain` at random times and levels; `each_second` is a number or a curve with a value a sample."""
    chances = np.broadcast_to(each_second, samples) / RATE
    clicks = (random.uniform(0, 1, samples) < chances) * random.exponential(1, samples)
    return convolved(clicks, grain)


def convolved(signal, response):
    """The signal through a response, as long as the signal."""
    size = quick(len(signal) + len(response))
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(response, size), size)[: len(signal)]


def room(signal, random, seconds):
    """The signal in a room whose echoes die away by 60 dB in `seconds`."""
    t = times(count(seconds))
    echoes = random.standard_normal(len(t)) * 10 ** (-3 * t / seconds)
    return unit(signal) + 0.5 * unit(convolved(signal, echoes))


def unit(signal):
    """The signal at a root mean square of 1."""
    return signal / max(np.sqrt(np.mean(signal**2)), 1e-12)


def at_level(signal, decibels):
    """The signal with its peak at a level, in dB below full scale."""
    return signal / max(np.max(np.abs(signal)), 1e-12) * 10 ** (decibels / 20)


def faded(signal, seconds=0.01):
    """Without a click at the ends."""
    ramp = np.minimum(1, np.arange(len(signal)) / count(seconds))
    return signal * ramp * ramp[::-1]
