"""Our network behind Triton: `triton_server.py PORT MODEL_FOLDER INSTANCES`. Says `ready` when it is.

Triton's Python backend, as nvidia-pytriton starts it: a request is a file's bytes, batches form on their own, and every instance
decodes with librosa and runs the network in ONNX Runtime, both on one thread.
"""

import io
import json
import pathlib
import sys

import librosa
import numpy as np
import onnxruntime
from export_onnx import export
from features import RATE, with_librosa
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

port, folder, instances = int(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
labels = len(json.loads((folder / "model.json").read_text())["labels"])
model = export(folder).SerializeToString()


def instance():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @batch
    def infer(audio):
        cut = [with_librosa(lambda: librosa.load(io.BytesIO(item[0]), sr=RATE)[0])[1]() for item in audio]
        logits = session.run(None, {"chunks": np.concatenate(cut)})[0][:, :labels]
        ends = np.cumsum([len(chunks) for chunks in cut])[:-1]
        return {"logits": np.stack([chunks.mean(axis=0) for chunks in np.split(logits, ends)])}

    return infer


config = TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, log_verbose=0)
with Triton(config=config) as triton:
    triton.bind(
        model_name="chorale",
        infer_func=[instance() for _ in range(instances)],
        inputs=[Tensor(name="audio", dtype=bytes, shape=(1,))],
        outputs=[Tensor(name="logits", dtype=np.float32, shape=(labels,))],
        config=ModelConfig(max_batch_size=32, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        strict=False,
    )
    triton.run()
    print("ready", flush=True)
    sys.stdin.read()
