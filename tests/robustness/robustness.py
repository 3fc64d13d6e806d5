#!/usr/bin/env python3
"""Says how often a verdict stays the same when the audio changes in a way that leaves the music what it is.

    robustness.py --chorale target/release/chorale FILES...

Makes variants of every file with ffmpeg in a temporary folder, classifies all of them, and prints a table. Exits with 1
if fewer verdicts than --at-least stay the same. Needs ffmpeg with libmp3lame.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

FLAC = ["-sample_fmt", "s16"]
# Eight poles: 48 dB an octave.
LOW_PASS = ",".join(["lowpass=f=8000"] * 4)

# Name: the ending, and what ffmpeg does. Levels are raised in floats, which have the headroom that 16 bits lack.
VARIANTS = {
    "mp3 at 64 kbit/s": ("mp3", ["-b:a", "64k"]),
    "6 dB louder": ("wav", ["-af", "volume=6dB", "-c:a", "pcm_f32le"]),
    "6 dB quieter": ("flac", ["-af", "volume=-6dB", *FLAC]),
    "nothing over 8 kHz": ("flac", ["-af", LOW_PASS, *FLAC]),
    "white noise at -20 dB": ("flac", ["-filter_complex", "NOISE", *FLAC]),
    "44,100 Hz": ("flac", ["-ar", "44100", *FLAC]),
    "48,000 Hz": ("flac", ["-ar", "48000", *FLAC]),
    "16,000 Hz": ("flac", ["-ar", "16000", *FLAC]),
    "11,025 Hz": ("flac", ["-ar", "11025", *FLAC]),
    "stereo, right quieter": ("flac", ["-af", "pan=stereo|c0=0.5*c0|c1=0.25*c0", *FLAC]),
    "mono": ("flac", ["-ac", "1", *FLAC]),
    "starts 1 s later": ("flac", ["-ss", "1", *FLAC]),
}


def noise_under(file, decibels):
    """A filter that mixes white noise under a file, so many dB below its mean level."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-i", str(file), "-af", "volumedetect", "-f", "null", "-"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    level = float(re.search(r"mean_volume: (-?[\d.]+) dB", told)[1])
    # Uniform noise has a mean level of its amplitude over the square root of 3.
    amplitude = min(1.0, 3**0.5 * 10 ** ((level - decibels) / 20))
    noise = f"anoisesrc=color=white:sample_rate=44100:seed=1:amplitude={amplitude:.6f}[noise]"
    return f"{noise};[0:a][noise]amix=inputs=2:duration=first:normalize=0"


def make(job):
    """Makes one variant of one file."""
    file, options, out = job
    options = [noise_under(file, 20) if option == "NOISE" else option for option in options]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(file), "-map_metadata", "-1", *options, str(out)]
    subprocess.run(command, check=True)


def classify(chorale, model, paths):
    """The answer on each file."""
    command = [chorale, "classify", "--json", *model, *map(str, paths)]
    answered = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    answers = {answer["path"]: answer for answer in map(json.loads, answered.stdout.splitlines())}
    for path in map(str, paths):
        if "genre" not in answers.get(path, {}):
            sys.exit(f"{path}: not classified: {answers.get(path, {}).get('error')}")
    return [answers[path] for path in map(str, paths)]


def compare(before, after):
    """Whether the verdict is the same, and how far the probability of the first one's genre moved."""
    genre = before.get("nearest", before["genre"])
    moved = abs(after["probabilities"].get(genre, 0.0) - before["probabilities"].get(genre, 0.0))
    return before["genre"] == after["genre"], moved


def row(name, compared):
    """A line of the table."""
    same = sum(unchanged for unchanged, _ in compared)
    moved = sum(moved for _, moved in compared) / len(compared)
    print(f"{name:22}  {same:4} of {len(compared):4}  {100 * same / len(compared):5.1f} %  {moved:18.3f}", flush=True)


def share(text):
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1, found {text}")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chorale", default="chorale", help="the chorale binary (default: the one in PATH)")
    parser.add_argument("--model", help="a model folder, or small (the default model)")
    parser.add_argument("--at-least", type=share, default=0.95, help="share that must stay the same (0.95)")
    parser.add_argument("--jobs", type=int, default=2, help="files that ffmpeg makes at a time (2)")
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path)
    arguments = parser.parse_args()

    model = ["--model", arguments.model] if arguments.model else []
    originals = classify(arguments.chorale, model, arguments.files)
    print(f"{'variant':22}  {'verdict unchanged':>21}  mean |Δ confidence|")
    total = []
    for name, (ending, options) in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder, ThreadPool(arguments.jobs) as pool:
            outs = [Path(folder) / f"{number:05}.{ending}" for number in range(len(arguments.files))]
            pool.map(make, [(file, options, out) for file, out in zip(arguments.files, outs)])
            compared = [compare(*pair) for pair in zip(originals, classify(arguments.chorale, model, outs))]
        row(name, compared)
        total += compared
    row("total", total)
    same = sum(unchanged for unchanged, _ in total) / len(total)
    if same < arguments.at_least:
        sys.exit(f"expected at least {100 * arguments.at_least:.1f} % unchanged, found {100 * same:.1f} %")


if __name__ == "__main__":
    main()
