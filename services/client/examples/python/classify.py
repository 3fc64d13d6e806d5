#!/usr/bin/env python3
"""Names the genre of audio files with a Chorale server, and shows each chunk's vote while the upload runs.

    pip install -r services/client/examples/python/requirements.txt
    chorale up &
    python3 services/client/examples/python/classify.py song.mp3

A bearer token is taken from the environment variable CHORALE_TOKEN. The exit code is 0 if every file has a verdict, else 1.
"""

import argparse
import os
import pathlib
import random
import sys
import tempfile
import threading
import time
import urllib.parse

import grpc
import grpc_tools
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

MESSAGE_BYTES = 64 * 1024
# What calls end with when their connection breaks, as it does when a gateway goes. Chorale's own errors have details.
BROKEN_CONNECTION = ("CANCELLED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN")


def generate(proto, out):
    """Compiles the protocol into a folder and imports it. A service of yours would do so once, when it is built."""
    files = [str(path) for path in sorted(proto.glob("chorale/v1/*.proto"))]
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    flags = [f"--proto_path={proto}", f"--proto_path={well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if not files or protoc.main(["protoc", *flags, *files]) != 0:
        sys.exit(f"{proto}: cannot be compiled; --proto wants Chorale's folder `proto`")
    sys.path.insert(0, out)
    from chorale.v1 import classifier_pb2, classifier_pb2_grpc

    return classifier_pb2, classifier_pb2_grpc


class Problem(Exception):
    """Why a file has no verdict, with what the server says about it beside its message."""

    def __init__(self, error):
        self.code = error.code()
        self.reason, self.field, self.retry_after = "", "", None
        status = rpc_status.from_call(error)
        if status is None and self.code.name in BROKEN_CONNECTION:
            self.retry_after = 1.0
        for detail in status.details if status else []:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            request = error_details_pb2.BadRequest()
            if detail.Unpack(info):
                self.reason = info.reason
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
            elif detail.Unpack(request):
                self.field = ", ".join(violation.field for violation in request.field_violations)
        said = [self.code.name, self.reason if self.reason != self.code.name else "", self.field]
        super().__init__(f"{' '.join(filter(None, said))}: {error.details()}")


def messages(protocol, audio, options, accepted):
    """The options, and once the server has said that it wants the audio, the audio."""
    yield protocol.ClassifyStreamRequest(options=options)
    if not accepted.wait_for_upload():
        return
    while block := audio.read(MESSAGE_BYTES):
        yield protocol.ClassifyStreamRequest(audio=block)


class Accepted:
    """What the thread that reads answers tells the one that uploads."""

    def __init__(self):
        self.known, self.audio_wanted = threading.Event(), False

    def say(self, audio_wanted):
        self.audio_wanted = audio_wanted
        self.known.set()

    def wait_for_upload(self):
        self.known.wait()
        return self.audio_wanted


def classify_once(protocol, stub, audio, hint, timeout, metadata):
    # With `blake3_digest`, the digest of the file, a verdict that the server knows costs no upload.
    options = protocol.ClassifyOptions(content_type=hint, events=[protocol.EVENT_KIND_CHUNK_VOTE], top_k=3)
    accepted = Accepted()
    try:
        call = stub.ClassifyStream(messages(protocol, audio, options, accepted), timeout=timeout, metadata=metadata)
        for response in call:
            match response.WhichOneof("event"):
                case "accepted":
                    accepted.say(response.accepted.audio_wanted)
                case "chunk_vote":
                    print_vote(response.chunk_vote)
                case "verdict":
                    return response.verdict
    except grpc.RpcError as error:
        raise Problem(error) from None
    finally:
        accepted.say(False)
    sys.exit("the server ended the call without a verdict")


def classify(protocol, stub, path, timeout, metadata, attempts):
    """Tries again where that helps: no earlier than the server says, later each time, and not all callers at once."""
    deadline = time.monotonic() + timeout
    for attempt in range(1, attempts + 1):
        try:
            with open(path, "rb") as audio:
                left = deadline - time.monotonic()
                return classify_once(protocol, stub, audio, path.suffix.lstrip("."), left, metadata)
        except Problem as problem:
            if problem.retry_after is None or attempt == attempts:
                raise
            delay = max(problem.retry_after, 0.2 * 2**attempt) * random.uniform(1.0, 1.5)
            if time.monotonic() + delay > deadline:
                raise
            print(f"{path}: {problem}; again in {delay:.1f} s", file=sys.stderr)
            time.sleep(delay)


def print_vote(vote):
    when = f"  {clock(vote.start_seconds)} to {clock(vote.end_seconds)}"
    if vote.silent:
        print(f"{when}  silence", flush=True)
    else:
        print(f"{when}  {vote.genre:<10}{100 * max(vote.probabilities):5.1f} %", flush=True)


def print_verdict(path, verdict):
    known = ", known already" if verdict.cached else ""
    print(f"{path}: {verdict.genre}, {100 * verdict.confidence:.0f} % sure ({clock(verdict.duration_seconds)}, "
          f"{verdict.chunk_count} chunks, model {verdict.model_version}{known})")
    for warning in verdict.warnings:
        print(f"  warning: {warning.message}")


def clock(seconds):
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{seconds:02}"


def connect(endpoint, ca):
    """A channel to http://HOST:PORT or https://HOST:PORT. One serves any number of calls at the same time."""
    url = urllib.parse.urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        sys.exit(f"{endpoint}: expected http://HOST:PORT or https://HOST:PORT")
    if url.scheme == "http":
        return grpc.insecure_channel(url.netloc)
    try:
        return grpc.secure_channel(url.netloc, grpc.ssl_channel_credentials(ca.read_bytes() if ca else None))
    except OSError as error:
        sys.exit(f"{ca}: {error.strerror}")


def arguments():
    checkout = pathlib.Path(__file__).resolve().parents[4]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, path, default = parser.add_argument, pathlib.Path, "default: %(default)s"
    add("files", nargs="+", type=path, metavar="FILE", help="audio of any format that Chorale reads")
    add("--endpoint", default="http://127.0.0.1:50051", metavar="URL", help=default)
    add("--ca", type=path, metavar="FILE", help="certificates (PEM) that an https:// server is believed by")
    add("--timeout", type=float, default=60, metavar="SECONDS", help=f"give up on a file after this long; {default}")
    add("--attempts", type=int, default=5, metavar="N", help=default)
    add("--proto", type=path, default=checkout / "proto", metavar="DIR", help="default: the folder of this checkout")
    return parser.parse_args()


def main():
    chosen = arguments()
    with tempfile.TemporaryDirectory(prefix="chorale-proto-") as out:
        protocol, services = generate(chosen.proto, out)
    token = os.environ.get("CHORALE_TOKEN", "").strip()
    metadata = [("authorization", f"Bearer {token}")] if token else []
    failed = False
    with connect(chosen.endpoint, chosen.ca) as channel:
        stub = services.ClassifierServiceStub(channel)
        for path in chosen.files:
            try:
                print_verdict(path, classify(protocol, stub, path, chosen.timeout, metadata, chosen.attempts))
            except Problem as problem:
                failed = True
                print(f"{path}: {problem}", file=sys.stderr)
            except OSError as error:
                failed = True
                print(f"{path}: {error.strerror}", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
