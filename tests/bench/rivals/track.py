"""A file to its genre by the usual pipelines: `track.py onnxruntime|keras FILE MODEL_FOLDER`. One thread.

`onnxruntime` is librosa's features and our network. `keras` is what the predecessor published: a spectrogram for every
chunk, resized to 150 by 150, and its network in Keras, whose weights do not matter here and are not trained.
"""

import json
import os
import pathlib
import sys

import numpy as np

import features
from rival import serve

runtime, path, folder = sys.argv[1:]


def onnxruntime_pipeline():
    import onnxruntime

    from export_onnx import export

    versions, chunks = features.with_librosa(features.loader("librosa", "file", path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(export(pathlib.Path(folder)).SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])

    labels = len(json.loads((pathlib.Path(folder) / "model.json").read_text())["labels"])
    temperature = json.loads((pathlib.Path(folder) / "model.json").read_text())["temperature"]

    def work():
        logits = session.run(None, {"chunks": chunks()})[0]
        powers = np.exp((logits[:, :labels] - logits[:, :labels].max(axis=1, keepdims=True)) / temperature)
        votes = np.log(np.maximum(powers / powers.sum(axis=1, keepdims=True), 1e-4)).mean(axis=0)
        return np.exp(votes) / np.exp(votes).sum()

    return f"{versions}, ONNX Runtime {onnxruntime.__version__}", work


def keras_pipeline():
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    import keras
    import librosa
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    layers = [keras.Input((150, 150, 1))]
    for filters in (32, 64, 128, 256, 512):
        layers.append(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
        layers.append(keras.layers.Conv2D(filters, 3, activation="relu"))
        layers.append(keras.layers.MaxPool2D(2))
    layers += [keras.layers.Dropout(0.3), keras.layers.Flatten(), keras.layers.Dense(1_200, activation="relu"),
               keras.layers.Dropout(0.45), keras.layers.Dense(10, activation="softmax")]
    network = keras.Sequential(layers)
    seconds, overlap = 4, 2

    def work():
        samples, rate = librosa.load(path, sr=None)
        images = []
        for start in range(0, len(samples) - seconds * rate + 1, (seconds - overlap) * rate):
            power = librosa.feature.melspectrogram(y=samples[start:start + seconds * rate], sr=rate)
            images.append(tensorflow.image.resize(power[..., None], (150, 150)))
        return np.asarray(network(np.stack(images), training=False)).mean(axis=0)

    return f"librosa {librosa.__version__}, Keras {keras.__version__} on TensorFlow {tensorflow.__version__}", work


versions, work = {"onnxruntime": onnxruntime_pipeline, "keras": keras_pipeline}[runtime]()
serve(versions, work, lambda found: found.tolist())
