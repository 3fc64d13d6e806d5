"""The forward pass in another runtime: `forward.py onnxruntime|openvino MODEL_FOLDER CHUNKS.u8 BATCH THREADS`."""

import pathlib
import sys

import numpy as np

from export_onnx import export
from rival import serve

runtime, folder, path, batch, threads = sys.argv[1:]
batch, threads = int(batch), int(threads)
chunks = np.fromfile(path, dtype=np.uint8).reshape(-1, 128, 96)[:batch]
model = export(pathlib.Path(folder), batch).SerializeToString()

if runtime == "onnxruntime":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    serve(f"ONNX Runtime {onnxruntime.__version__}", lambda: session.run(None, {"chunks": chunks})[0],
          lambda logits: logits.ravel().tolist())
else:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
                "ENABLE_CPU_PINNING": False}
    request = core.compile_model(core.read_model(model, b""), "CPU", settings).create_infer_request()
    serve(f"OpenVINO {openvino.__version__.split('-')[0]}", lambda: next(iter(request.infer([chunks]).values())),
          lambda logits: logits.ravel().tolist())
