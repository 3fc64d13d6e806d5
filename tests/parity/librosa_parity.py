#!/usr/bin/env python3
"""Compares the chunks of `chorale features` with librosa's, on the same samples.

    librosa_parity.py --chorale target/release/chorale FILES...

The files must be lossless (wav, flac, au, aiff) and at 22,050 Hz, so that neither a decoder nor a resampler stands between
the two; others are skipped. Needs librosa 0.11 and soundfile. Exits with 1 if a file fails, or none was compared.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import reference
import soundfile

MAX_MEAN_DB = 0.05
MAX_WORST_DB = 1.0
LOSSLESS = {"WAV", "FLAC", "AU", "AIFF"}


def features(chorale: str, file: str) -> np.ndarray:
    """The chunks that chorale computes, [chunks, 128, 96] in dB."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "chunks.npy"
        subprocess.run([chorale, "features", file, "--dtype", "f32", "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        return np.load(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chorale", default="chorale", help="the chorale binary (default: the one in PATH)")
    parser.add_argument("files", nargs="+", metavar="FILE")
    arguments = parser.parse_args()

    width = max(len(pathlib.Path(file).name) for file in arguments.files)
    print(f"{'file':{width}}  chunks  mean dB  worst dB")
    compared, failed = 0, 0
    for file in arguments.files:
        name = pathlib.Path(file).name
        try:
            info = soundfile.info(file)
        except soundfile.LibsndfileError:
            info = None
        if info is None or info.format not in LOSSLESS or info.samplerate != reference.SAMPLE_RATE:
            print(f"{name:{width}}  skipped: not lossless at 22,050 Hz")
            continue
        samples, _ = soundfile.read(file, dtype="float32", always_2d=True)
        expected = reference.chunks(samples.mean(axis=1))
        ours = features(arguments.chorale, file)
        compared += 1
        if ours.shape != expected.shape:
            failed += 1
            print(f"{name:{width}}  FAIL: {len(ours)} chunks, librosa has {len(expected)}")
            continue
        mean, worst = reference.compare(ours, expected)
        passed = mean < MAX_MEAN_DB and worst < MAX_WORST_DB
        failed += not passed
        print(f"{name:{width}}  {len(ours):6}  {mean:7.4f}  {worst:8.4f}  {'PASS' if passed else 'FAIL'}")
    print(f"{compared - failed} of {compared} files pass (mean under {MAX_MEAN_DB} dB, worst under {MAX_WORST_DB} dB)")
    return 0 if compared and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
