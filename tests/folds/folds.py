"""Three folds of GTZAN's `train` and `valid` tracks, and what was measured on them together.

`folds.py split DATA OUT` writes OUT/data-1 to data-3. The first measures on `valid`, as the published split does. `train` is
halved for the other two: by genre, in the order of the track numbers, in which an artist's tracks mostly follow each other.

`folds.py pool REPORT.json...` takes what `chorale evaluate --json` says of each.
"""

import csv
import json
import os
import pathlib
import random
import sys

BINS = 10
SIMULATIONS = 2_000


def split(data, out):
    with (data / "tracks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    train = {}
    for row in sorted(rows, key=lambda row: row["track"]):
        if row["split"] == "train":
            train.setdefault(row["genre"], []).append(row["track"])
    halves = {track: 2 if 2 * place < len(tracks) else 3 for tracks in train.values() for place, track in enumerate(tracks)}
    for fold in (1, 2, 3):
        folder = out / f"data-{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        mel = folder / "mel_u8.npy"
        if not mel.exists():
            os.symlink((data / "mel_u8.npy").resolve(), mel)
        with (folder / "tracks.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            for row in rows:
                measured = 1 if row["split"] == "valid" else halves.get(row["track"])
                if measured is not None:
                    row = row | {"split": "valid" if measured == fold else "train"}
                writer.writerow(row)


def calibration_error(answers):
    """The expected calibration error in BINS bins of confidence, of pairs: confidence, right or not."""
    bins = [[0.0, 0] for _ in range(BINS)]
    for confidence, right in answers:
        of = bins[min(BINS - 1, int(confidence * BINS))]
        of[0] += confidence
        of[1] += right
    return sum(abs(confidence - right) for confidence, right in bins) / len(answers)


def pool(paths):
    everything = []
    print(f"{'':8} {'tracks':>7} {'accuracy':>9} {'calibration error':>18} {'by chance':>10}")
    for fold, path in enumerate(paths, 1):
        answers = [(track["confidence"], track["predicted"] == track["genre"])
                   for track in json.loads(pathlib.Path(path).read_text())["predictions"]]
        line(f"fold {fold}", answers)
        everything += answers
    line("together", everything)


def line(name, answers):
    chance = random.Random(1)
    simulated = [calibration_error([(confidence, chance.random() < confidence) for confidence, _ in answers])
                 for _ in range(SIMULATIONS)]
    accuracy = sum(right for _, right in answers) / len(answers)
    print(f"{name:8} {len(answers):7} {accuracy:9.1%} {calibration_error(answers):18.1%} {sum(simulated) / SIMULATIONS:10.1%}")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "split":
        split(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    elif len(sys.argv) > 2 and sys.argv[1] == "pool":
        pool(sys.argv[2:])
    else:
        sys.exit(__doc__)
