"""Speech of people: the prompts of a telephone exchange, from Debian's packages. Two speakers in each set."""

import subprocess
from pathlib import Path

import numpy as np

from .sound import RATE, at_level, coloured, count, length, unit

FOLDER = Path("/usr/share/asterisk/sounds")

# The speakers of a set, by the start of their folder's name.
SPEAKERS = {"train": ("en_US", "it_IT"), "test": ("fr_CA", "ru_RU")}

# Prompts that are no speech, or too short to say anything.
SIGNALS = ("tone", "beep", "silence", "music")
SMALLEST = 12_000


def prompts(speaker):
    """The files of a speaker."""
    paths = sorted(path for folder in sorted(FOLDER.glob(f"{speaker}*")) for path in folder.rglob("*.g722"))
    return [path for path in paths if path.stat().st_size > SMALLEST and not any(s in path.name for s in SIGNALS)]


def read(path):
    """A prompt's samples."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-ar", str(RATE), "-ac", "1", "-f", "f32le", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, dtype="<f4").astype(float)


def make(which, number, random):
    """One speaker's prompts one after the other, 10 to 30 s."""
    samples = length(random)
    speakers = SPEAKERS[which]
    speaker = speakers[number % len(speakers)]
    paths = prompts(speaker)
    parts, total = [], 0
    while total < samples:
        said = read(paths[random.integers(len(paths))])
        pause = np.zeros(count(random.uniform(0.1, 0.7)))
        parts += [said, pause]
        total += len(said) + len(pause)
    talk = unit(np.concatenate(parts)[:samples])
    if number % 4 == 3:
        talk = talk + random.uniform(0.02, 0.1) * coloured(samples, random, 1)
    return speaker.lower().replace("_", "-"), at_level(talk, random.uniform(-20, -1))
