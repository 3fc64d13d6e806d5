"""Our network behind BentoML: `bentoml serve bentoml_server:Genre`, with the model's folder in MODEL and the workers in WORKERS.

A request is a file's bytes. Every worker decodes with librosa and runs the network in ONNX Runtime, both on one thread.
"""

import json
import os
import pathlib
from typing import Annotated

import bentoml
import librosa
import onnxruntime
from bentoml.validators import ContentType
from export_onnx import export
from features import RATE, with_librosa


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 60})
class Genre:
    def __init__(self):
        folder = pathlib.Path(os.environ["MODEL"])
        self.labels = len(json.loads((folder / "model.json").read_text())["labels"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = export(folder).SerializeToString()
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @bentoml.api
    def classify(self, audio: Annotated[pathlib.Path, ContentType("audio/mpeg")], /) -> list[float]:
        chunks = with_librosa(lambda: librosa.load(audio, sr=RATE)[0])[1]()
        return self.session.run(None, {"chunks": chunks})[0][:, :self.labels].mean(axis=0).tolist()
