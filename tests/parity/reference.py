"""The feature contract in NumPy and librosa, written down a second time and independently of the Rust code."""

import librosa
import numpy as np

SAMPLE_RATE = 22_050
FFT_SIZE = 2_048
FRAMES_PER_SECOND = 24
CHUNK_FRAMES = 96
CHUNK_HOP_FRAMES = 48
MIN_FRAMES = 24
FLOOR_DB = -80.0


def frame_centres(samples: int) -> np.ndarray:
    """The centres of all frames inside a signal: multiples of 918.75 samples, rounded half up."""
    count = samples * FRAMES_PER_SECOND // SAMPLE_RATE + 2
    centres = np.floor(np.arange(count) * (SAMPLE_RATE / FRAMES_PER_SECOND) + 0.5).astype(np.int64)
    return centres[centres < samples]


def mel_db(signal: np.ndarray) -> np.ndarray:
    """Absolute dB, [128, frames], of a mono signal at 22,050 Hz."""
    padded = np.pad(signal.astype(np.float32), FFT_SIZE // 2)
    window = librosa.filters.get_window("hann", FFT_SIZE, fftbins=True)
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT_SIZE, n_mels=128)
    frames = [np.abs(np.fft.rfft(padded[start : start + FFT_SIZE] * window)) ** 2 for start in frame_centres(len(signal))]
    power = filters @ np.array(frames).T
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)


def chunks(signal: np.ndarray) -> np.ndarray:
    """Every chunk, [chunks, 128, 96], in dB below its loudest cell, floored."""
    levels = mel_db(signal)
    frames = levels.shape[1]
    if frames < MIN_FRAMES:
        raise ValueError(f"{frames} frames are less than one second")
    if frames < CHUNK_FRAMES:
        levels = np.pad(levels, ((0, 0), (0, CHUNK_FRAMES - frames)), constant_values=-100.0)
        starts = [0]
    else:
        starts = list(range(0, frames - CHUNK_FRAMES + 1, CHUNK_HOP_FRAMES))
        if frames - (starts[-1] + CHUNK_FRAMES) >= MIN_FRAMES:
            starts.append(frames - CHUNK_FRAMES)
    cut = np.array([levels[:, start : start + CHUNK_FRAMES] for start in starts])
    return np.maximum(cut - cut.max(axis=(1, 2), keepdims=True), FLOOR_DB).astype(np.float32)


def compare(ours: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """The mean and the largest absolute difference in dB, over the cells that the reference has above the floor."""
    difference = np.abs(ours - reference)[reference > FLOOR_DB]
    return float(difference.mean()), float(difference.max())
