"""Writes a Chorale model as ONNX: `export_onnx.py MODEL_FOLDER OUT.onnx [BATCH]`.

The graph is the one that is best for a runtime that knows the standard operations: normalisations are folded into what
comes before or after, a filter whose normalisation falls is turned over so that the maximum over bands can come first, and
constant filters are left out. Input: `chunks`, uint8 [batch, 128, 96]. Output: `logits`, float [batch, labels (+ 1)].
"""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

MEL_BANDS, CHUNK_FRAMES, BANDS = 128, 96, 96
FRAMES_PER_SECOND = 24.0
EPSILON = 1e-3
# step, frames, frames a second of the members
SHAPES = {"musicnn-ensemble": (1, 248, 62.5), "musicnn-small": (2, 96, 24.0)}
PARTS = ["timbral_low", "timbral_high", "temporal_long", "temporal_medium", "temporal_short"]


class Graph:
    """Nodes and constants, with names made up on the way."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def add(self, operation, *inputs, **attributes):
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def affine(self, value, scale, shift):
        return self.add("Add", self.add("Mul", value, self.constant(scale)), self.constant(shift))


def normalization(weights, name):
    scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}.running_var"] + EPSILON)
    return scale, weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale


def front(graph, weights, chunks, step):
    """The channels [batch, channels, frames] of the front end."""
    cells = graph.add("Cast", chunks, to=TensorProto.FLOAT)
    decibels = graph.affine(cells, 80.0 / 256.0, 0.5 * 80.0 / 256.0 - 80.0)
    bands = graph.add("MatMul", graph.constant(weights["adapter.weight"]), decibels)
    bands = graph.add("Add", bands, graph.constant(weights["adapter.bias"][:, None]))
    power = graph.add("Exp", graph.add("Mul", bands, graph.constant(np.log(10) / 10)))
    loudness = graph.add("Log", graph.affine(power, 1e4, 1.0))
    scale, shift = normalization(weights, "input_norm")
    heard = graph.affine(loudness, scale[0] / np.log(10), shift[0])
    plane = graph.add("Unsqueeze", heard, graph.constant([1], np.int64))
    parts = []
    for part in PARTS:
        kernel = weights[f"front.{part}.conv.weight"].transpose(0, 1, 3, 2)
        scale, shift = normalization(weights, f"front.{part}.norm")
        sign = np.where(scale < 0, -1.0, 1.0)
        taps = kernel.shape[3]
        before = reach(part, taps)
        answer = graph.add(
            "Conv", plane, graph.constant(kernel * sign[:, None, None, None]),
            pads=[0, before, 0, taps - 1 - before], strides=[1, step],
        )
        greatest = graph.add("ReduceMax", answer, graph.constant([2], np.int64), keepdims=0)
        rectified = graph.add("Relu", graph.affine(greatest, sign[:, None], weights[f"front.{part}.conv.bias"][:, None]))
        parts.append(graph.affine(rectified, scale[:, None], shift[:, None]))
    return graph.add("Concat", *parts, axis=1)


def reach(part, taps):
    """Taps before the frame itself: those of the original kernel, 16 ms each, in frames of ours."""
    original = {"temporal_long": 128, "temporal_medium": 64, "temporal_short": 32}.get(part, 7)
    left = (original - 1) // 2 * 16 * FRAMES_PER_SECOND / 1000
    return round(left) if taps == 3 else int(np.ceil(left))


def interpolation(step, frames, frames_per_second):
    heard = CHUNK_FRAMES // step
    matrix = np.zeros((heard, frames))
    for frame in range(frames):
        position = min(frame / frames_per_second * FRAMES_PER_SECOND / step, heard - 1)
        before, share = int(position), position % 1
        matrix[before, frame] += 1 - share
        if before + 1 < heard:
            matrix[before + 1, frame] += share
    return matrix


def member(graph, weights, name, heard):
    """The normalised pooled features and the logits of a member, from [batch, channels, frames]."""
    layers, previous = [heard], None
    for layer in range(3):
        weight = weights[f"{name}.mid.{layer}.weight"][:, :, 0, :]
        taps = weight.shape[2]
        bias = weights[f"{name}.mid.{layer}.bias"]
        pads = [(taps - 1) // 2, taps // 2]
        if layer == 0:
            # The last channel is 1 everywhere.
            ones = graph.add("Mul", graph.add("Slice", heard, graph.constant([0], np.int64), graph.constant([1], np.int64),
                                              graph.constant([1], np.int64)), graph.constant(0.0))
            seen = graph.add("Concat", heard, graph.add("Add", ones, graph.constant(1.0)), axis=1)
        else:
            seen = previous
        answer = graph.add("Relu", graph.add("Conv", seen, graph.constant(weight), graph.constant(bias), pads=pads))
        answer = graph.affine(answer, weights[f"{name}.mid.{layer}.norm.scale"][:, None],
                              weights[f"{name}.mid.{layer}.norm.shift"][:, None])
        previous = answer if layer == 0 else graph.add("Add", answer, previous)
        layers.append(previous)
    stacked = graph.add("Concat", *layers, axis=1)
    axis = graph.constant([2], np.int64)
    pooled = graph.add("Concat", graph.add("ReduceMax", stacked, axis, keepdims=0),
                       graph.add("ReduceMean", stacked, axis, keepdims=0), axis=1)
    features = graph.affine(pooled, weights[f"{name}.pool.scale"], weights[f"{name}.pool.shift"])
    hidden = graph.add("Gemm", features, graph.constant(weights[f"{name}.dense.weight"]),
                       graph.constant(weights[f"{name}.dense.bias"]), transB=1)
    embedding = graph.affine(graph.add("Relu", hidden), weights[f"{name}.dense_norm.scale"],
                             weights[f"{name}.dense_norm.shift"])
    genres = graph.add("Gemm", embedding, graph.constant(weights[f"{name}.genres.weight"]),
                       graph.constant(weights[f"{name}.genres.bias"]), transB=1)
    shortcut = graph.add("Gemm", features, graph.constant(weights[f"{name}.shortcut.weight"]), transB=1)
    return features, graph.add("Add", genres, shortcut)


def export(folder, batch=None):
    """The model in `folder`, for batches of one size or of any."""
    manifest = json.loads((folder / "model.json").read_text())
    weights = load_file(folder / "model.safetensors")
    step, frames, rate = SHAPES[manifest["architecture"]]
    graph = Graph()
    channels = front(graph, weights, "chunks", step)
    heard = graph.add("MatMul", channels, graph.constant(interpolation(step, frames, rate)))
    names = sorted({".".join(name.split(".")[:2]) for name in weights if name.startswith("member.")})
    members = [member(graph, weights, name, heard) for name in names]
    total = members[0][1]
    for _, logits in members[1:]:
        total = graph.add("Add", total, logits)
    outputs = [graph.add("Mul", total, graph.constant(1 / len(members)))]
    if "music.weight" in weights:
        outputs.append(graph.add("Gemm", members[0][0], graph.constant(weights["music.weight"]),
                                 graph.constant(weights["music.bias"]), transB=1))
    graph.nodes.append(helper.make_node("Concat", outputs, ["logits"], axis=1))
    size = batch if batch else "batch"
    columns = len(manifest["labels"]) + len(outputs) - 1
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, manifest["name"],
            [helper.make_tensor_value_info("chunks", TensorProto.UINT8, [size, MEL_BANDS, CHUNK_FRAMES])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [size, columns])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=10,
    )
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    onnx.save(export(pathlib.Path(sys.argv[1]), int(sys.argv[3]) if len(sys.argv) > 3 else None), sys.argv[2])
