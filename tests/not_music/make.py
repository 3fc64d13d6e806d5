#!/usr/bin/env python3
"""Makes audio that is no music, to choose and to check the threshold below which a verdict is `unknown`.

    python3 make.py --set train OUT    a folder with a folder for each kind: to train with
    python3 make.py --set test OUT     other voices, languages, colours and signals: to measure with

Needs numpy, soundfile, espeak-ng, ffmpeg and the recordings that README.md names; `run` installs them.
"""

import argparse
import hashlib
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import soundfile

from sounds import applause, noise, recordings, silence, speech, tones
from sounds.sound import RATE

KINDS = {
    "speech": speech.make,
    "recorded-speech": recordings.make,
    "noise": noise.make,
    "tones": tones.make,
    "silence": silence.make,
    "applause": applause.make,
}


def generator(*words):
    """A random generator of its own for each file, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def write(out, which, seed, job):
    """Makes one file: 16 bits, mono, 22,050 Hz, FLAC."""
    kind, number = job
    name, samples = KINDS[kind](which, number, generator(which, seed, kind, number))
    path = out / kind / f"{number:03}-{name}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(samples, -1, 1), RATE, subtype="PCM_16")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("train", "test"), required=True, help="which of the two")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be repeated")
    parser.add_argument("--files", type=int, default=40, help="files of each kind (40)")
    parser.add_argument("--seed", default="chorale", help="another seed makes other files of the same sorts")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into")
    arguments = parser.parse_args()
    jobs = [(kind, number) for kind in arguments.kind or KINDS for number in range(arguments.files)]
    with Pool() as pool:
        for _ in pool.imap_unordered(partial(write, arguments.out, arguments.set, arguments.seed), jobs):
            pass
    print(f"{arguments.out}: {len(jobs)} files")


if __name__ == "__main__":
    main()
