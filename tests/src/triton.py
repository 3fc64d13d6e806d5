"""Does what standard input says with the public client of Triton, and writes what came of it.

In: {"address": "host:port", "token": "..." or null, "steps": [STEP ...]}. Out: a JSON list with an entry for each step: what it
returned, or {"error": {"status": ..., "message": ...}}.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def tensor(described):
    """An input: an array from a file, or whole files as texts."""
    if "npy" in described:
        array = np.load(described["npy"])
        if "rows" in described:
            array = array[: described["rows"]]
    else:
        contents = [open(path, "rb").read() for path in described["files"]]
        # An array of objects: one of bytes drops the zeros at their ends.
        array = np.empty(len(contents), dtype=object)
        array[:] = contents
    array = array.reshape(described.get("shape", array.shape))
    datatype = described.get("datatype", "BYTES" if array.dtype == object else "UINT8")
    result = triton.InferInput(described["name"], list(array.shape), datatype)
    result.set_data_from_numpy(array.astype(np.float32) if datatype == "FP32" else array)
    return result


def request(step):
    """The arguments of an inference."""
    outputs = [triton.InferRequestedOutput(name, class_count=step.get("classes", 0)) for name in step.get("outputs", [])]
    return {
        "model_name": step["model"],
        "model_version": step.get("version", ""),
        "inputs": [tensor(step["input"])],
        "outputs": outputs or None,
        "request_id": step.get("id", ""),
        "priority": step.get("priority", 0),
        "timeout": step.get("timeout"),
        "parameters": step.get("parameters"),
    }


def value(array):
    """An array as JSON."""
    if array.dtype == object:
        return [text.decode() for text in array.flatten()]
    return array.tolist()


def answered(result):
    """An answer as JSON."""
    response = result.get_response()
    outputs = {output.name: value(result.as_numpy(output.name)) for output in response.outputs}
    return {"id": response.id, "model": response.model_name, "version": response.model_version, "outputs": outputs}


def failed(error):
    """An error as JSON."""
    return {"error": {"status": error.status(), "message": error.message()}}


def stream(client, steps, headers):
    """All inferences on one stream: what came back, in the order in which it came."""
    came = []

    def callback(result, error):
        came.append(failed(error) if error else answered(result))

    client.start_stream(callback, headers=headers)
    try:
        for step in steps:
            client.async_stream_infer(**request(step))
    except InferenceServerException:
        pass  # The stream has ended already, and the callback was told why.
    client.stop_stream()
    return came


def perform(client, step, headers):
    """What came of one step."""
    what = step["do"]
    if what == "live":
        return client.is_server_live(headers=headers)
    if what == "ready":
        return client.is_server_ready(headers=headers)
    if what == "model_ready":
        return client.is_model_ready(step["model"], step.get("version", ""), headers=headers)
    if what == "server_metadata":
        return client.get_server_metadata(headers=headers, as_json=True)
    if what == "model_metadata":
        return client.get_model_metadata(step["model"], step.get("version", ""), headers=headers, as_json=True)
    if what == "infer":
        return answered(client.infer(**request(step), headers=headers))
    if what == "stream":
        return stream(client, step["requests"], headers)
    raise ValueError(what)


def main():
    """Reads, does and writes."""
    task = json.load(sys.stdin)
    headers = {"authorization": f"Bearer {task['token']}"} if task.get("token") else None
    results = []
    with triton.InferenceServerClient(task["address"]) as client:
        for step in task["steps"]:
            try:
                results.append(perform(client, step, headers))
            except InferenceServerException as error:
                results.append(failed(error))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
