"""Speech by espeak-ng: many voices, languages, speeds and pitches, clean and not."""

import subprocess
from io import BytesIO

import numpy as np
import soundfile

from .sound import RATE, at_level, band, coloured, convolved, count, length, room, shaped, unit, wander
from .texts import TEXTS

# Ways of speaking, by set: none is in both.
VARIANTS = {
    "train": ["m1", "m3", "m5", "m7", "f1", "f3", "f5", "klatt", "klatt3", "Alex", "Annie", "Denis", "belinda", "steph"],
    "test": ["m2", "m4", "m6", "m8", "f2", "f4", "klatt2", "klatt4", "Andrea", "Diogo", "Michael", "linda", "adam", "max"],
}


def speak(text, voice, speed, pitch):
    """One text by one voice."""
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(speed), "-p", str(pitch), text]
    spoken = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(BytesIO(spoken), dtype="float64")
    if rate != RATE:
        raise ValueError(f"{voice}: expected {RATE} samples a second, espeak-ng made {rate}")
    return samples


def speaker(which, samples, random):
    """One person who talks, with pauses: the language, and the samples."""
    language = str(random.choice(list(TEXTS[which])))
    voice = f"{language}+{random.choice(VARIANTS[which])}"
    speed, pitch = int(random.integers(120, 220)), int(random.integers(20, 80))
    texts = list(random.permutation(TEXTS[which][language]))
    parts, total, turn = [], 0, 0
    while total < samples:
        said = speak(str(texts[turn % len(texts)]), voice, speed, pitch)
        pause = np.zeros(count(random.uniform(0.1, 0.9)))
        parts += [said, pause]
        total += len(said) + len(pause)
        turn += 1
    return language, np.concatenate(parts)[:samples]


def telephone(signal, random):
    """Through a telephone line."""
    return unit(shaped(signal, band(300, 3_400, slope=10))) + 0.02 * random.standard_normal(len(signal))


def make(which, number, random):
    """One recording of somebody who talks, 10 to 30 s."""
    samples = length(random)
    language, talk = speaker(which, samples, random)
    name = language
    style = number % 8
    if style in (1, 5):
        other, more = speaker(which, samples, random)
        talk, name = unit(talk) + random.uniform(0.4, 1) * unit(more), f"{name}-and-{other}"
    elif style == 2:
        talk, name = unit(talk) + random.uniform(0.02, 0.2) * coloured(samples, random, random.uniform(0, 2)), f"{name}-noise"
    elif style == 3:
        talk, name = telephone(talk, random), f"{name}-telephone"
    elif style == 6:
        talk, name = room(talk, random, random.uniform(0.3, 1.2)), f"{name}-room"
    return name, at_level(talk, random.uniform(-20, -1))
