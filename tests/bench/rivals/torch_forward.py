"""The forward pass in PyTorch, on a GPU or not: `torch_forward.py eager|compiled cpu|cuda:N MODEL_FOLDER CHUNKS.u8 BATCH`.

The network as one would write it there, with the weights of the model folder, in 32-bit floats as ours.
"""

import json
import os
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from export_onnx import CHUNK_FRAMES, MEL_BANDS, PARTS, SHAPES, interpolation, normalization, reach
from rival import serve


class Affine(nn.Module):
    """`x * scale + shift`, by channel: a normalisation whose statistics are known."""

    def __init__(self, scale, shift, dimensions):
        super().__init__()
        shape = (-1, *[1] * dimensions)
        self.register_buffer("scale", scale.reshape(shape))
        self.register_buffer("shift", shift.reshape(shape))

    def forward(self, values):
        return values * self.scale + self.shift


class Filters(nn.Module):
    """Filters of one shape: their greatest response over the bands."""

    def __init__(self, weights, part, step):
        super().__init__()
        # [filters, 1, bands, taps]
        self.register_buffer("kernel", weights[f"front.{part}.conv.weight"].transpose(2, 3).contiguous())
        self.register_buffer("bias", weights[f"front.{part}.conv.bias"])
        taps = self.kernel.shape[3]
        self.pads, self.step = (reach(part, taps), taps - 1 - reach(part, taps)), step
        self.norm = Affine(*normalization(weights, f"front.{part}.norm"), dimensions=2)

    def forward(self, plane):
        answers = functional.conv2d(functional.pad(plane, self.pads), self.kernel, self.bias, stride=(1, self.step))
        return self.norm(functional.relu(answers)).amax(dim=2)


class Member(nn.Module):
    """The layers of one member: its pooled features and logits."""

    def __init__(self, weights, name):
        super().__init__()
        tensor = lambda key: weights[f"{name}.{key}"]
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for layer in range(3):
            kernel = tensor(f"mid.{layer}.weight")[:, :, 0, :]
            convolution = nn.Conv1d(kernel.shape[1], kernel.shape[0], kernel.shape[2], padding="same")
            convolution.weight.data, convolution.bias.data = kernel.contiguous(), tensor(f"mid.{layer}.bias")
            self.convolutions.append(convolution)
            self.norms.append(Affine(tensor(f"mid.{layer}.norm.scale"), tensor(f"mid.{layer}.norm.shift"), dimensions=1))
        self.pool = Affine(tensor("pool.scale"), tensor("pool.shift"), dimensions=0)
        self.dense = linear(tensor("dense.weight"), tensor("dense.bias"))
        self.dense_norm = Affine(tensor("dense_norm.scale"), tensor("dense_norm.shift"), dimensions=0)
        self.genres = linear(tensor("genres.weight"), tensor("genres.bias"))
        self.shortcut = linear(tensor("shortcut.weight"))

    def forward(self, heard):
        layers, previous = [heard], None
        # The last channel is 1 everywhere.
        seen = functional.pad(heard, (0, 0, 0, 1), value=1.0)
        for convolution, norm in zip(self.convolutions, self.norms):
            answer = norm(functional.relu(convolution(seen)))
            seen = previous = answer if previous is None else answer + previous
            layers.append(seen)
        stacked = torch.cat(layers, dim=1)
        features = self.pool(torch.cat([stacked.amax(dim=2), stacked.mean(dim=2)], dim=1))
        embedding = self.dense_norm(functional.relu(self.dense(features)))
        return features, self.genres(embedding) + self.shortcut(features)


class Network(nn.Module):
    """From chunks, uint8 [batch, 128, 96], to logits, [batch, labels (+ 1)]."""

    def __init__(self, folder):
        super().__init__()
        step, frames, rate = SHAPES[json.loads((folder / "model.json").read_text())["architecture"]]
        weights = load_file(folder / "model.safetensors")
        self.adapter = nn.Linear(MEL_BANDS, weights["adapter.weight"].shape[0])
        self.adapter.weight.data, self.adapter.bias.data = weights["adapter.weight"], weights["adapter.bias"]
        self.input = Affine(*normalization(weights, "input_norm"), dimensions=0)
        self.parts = nn.ModuleList(Filters(weights, part, step) for part in PARTS)
        self.register_buffer("interpolation", torch.tensor(interpolation(step, frames, rate), dtype=torch.float32))
        names = sorted({".".join(name.split(".")[:2]) for name in weights if name.startswith("member.")})
        self.members = nn.ModuleList(Member(weights, name) for name in names)
        self.music = linear(weights["music.weight"], weights["music.bias"]) if "music.weight" in weights else None

    def forward(self, chunks):
        decibels = (chunks.float() + 0.5) * (80.0 / 256.0) - 80.0
        bands = self.adapter(decibels.transpose(1, 2)).transpose(1, 2)
        plane = self.input(torch.log10(1 + 1e4 * torch.pow(10.0, bands / 10))).unsqueeze(1)
        heard = torch.cat([part(plane) for part in self.parts], dim=1) @ self.interpolation
        features, logits = zip(*[member(heard) for member in self.members])
        logits = torch.stack(logits).mean(dim=0)
        return logits if self.music is None else torch.cat([logits, self.music(features[0])], dim=1)


def linear(weight, bias=None):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = bias
    return layer


def main():
    way, device, folder, path, batch = sys.argv[1:]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # 32-bit floats all the way, as ours.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    chunks = np.resize(np.fromfile(path, dtype=np.uint8), (int(batch), MEL_BANDS, CHUNK_FRAMES))
    chunks = torch.from_numpy(chunks)
    if device != "cpu":
        chunks = chunks.pin_memory()
    network = Network(pathlib.Path(folder)).eval().to(device)
    if way == "compiled":
        network = torch.compile(network, mode="max-autotune" if device != "cpu" else "default", dynamic=False)

    def listen():
        with torch.inference_mode():
            return network(chunks.to(device, non_blocking=True)).cpu()

    listen()
    serve(f"PyTorch {torch.__version__}, {way}", listen, lambda logits: logits.ravel().tolist())


if __name__ == "__main__":
    main()
