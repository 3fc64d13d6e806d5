"""Audio to chunks by other libraries: `features.py librosa|essentia samples|file PATH`.

`samples` reads 32-bit floats at 22,050 Hz once and starts from them; `file` decodes each time. One thread.
"""

import sys

import numpy as np

from rival import serve

RATE, FFT, BANDS, CHUNK, HOP = 22_050, 2_048, 128, 96, 48
# 24 frames a second, as nearly as a whole number of samples can.
FRAME_HOP = 919


def chunks(decibels):
    """Bytes of the feature contract, from [128, frames] dB."""
    cut = []
    for start in range(0, max(decibels.shape[1] - CHUNK, 0) + 1, HOP):
        chunk = decibels[:, start:start + CHUNK]
        below = np.maximum(chunk - chunk.max(), -80.0)
        cut.append(np.clip(np.floor((below + 80.0) / 80.0 * 256.0), 0, 255).astype(np.uint8))
    return np.stack(cut)


def with_librosa(load):
    import librosa

    def work():
        power = librosa.feature.melspectrogram(y=load(), sr=RATE, n_fft=FFT, hop_length=FRAME_HOP, n_mels=BANDS)
        return chunks(librosa.power_to_db(power, amin=1e-10, top_db=None))

    return f"librosa {librosa.__version__}", work


def with_essentia(load):
    import essentia
    import essentia.standard as es

    essentia.log.infoActive = essentia.log.warningActive = False
    window = es.Windowing(type="hann", zeroPadding=0, normalized=False)
    spectrum = es.Spectrum(size=FFT)
    bands = es.MelBands(inputSize=FFT // 2 + 1, numberBands=BANDS, sampleRate=RATE, highFrequencyBound=RATE / 2,
                        type="power", warpingFormula="slaneyMel", weighting="linear", normalize="unit_tri")

    def work():
        frames = es.FrameGenerator(load(), frameSize=FFT, hopSize=FRAME_HOP, startFromZero=False)
        mel = np.array([bands(spectrum(window(frame))) for frame in frames]).T
        return chunks(10.0 * np.log10(np.maximum(mel, 1e-10)))

    return f"Essentia {essentia.__version__}", work


def loader(library, kind, path):
    if kind == "samples":
        samples = np.fromfile(path, dtype=np.float32)
        return lambda: samples
    if library == "librosa":
        import librosa

        return lambda: librosa.load(path, sr=RATE)[0]
    import essentia.standard as es

    return lambda: es.MonoLoader(filename=path, sampleRate=RATE)()


if __name__ == "__main__":
    library, kind, path = sys.argv[1:]
    versions, work = {"librosa": with_librosa, "essentia": with_essentia}[library](loader(library, kind, path))
    serve(versions, work, lambda found: found.mean(axis=(0, 2)).tolist())
