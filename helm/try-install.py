#!/usr/bin/env python3
"""Installs the chart as its README says, by the README's own commands, where there is no cluster.

    try-install.py HELM CHORALE

An API server of our own keeps what helm sends it, and answers as Kubernetes does where helm asks: discovery, objects, lists,
watches and server-side apply. Beside it, pods are processes: every Deployment is started as its container says, and is
available once its role is ready; the pod of `helm test` runs to its end. So that what a stranger types is tried: the commands, that
`--wait` ends when roles serve, the notes, and the test. What a cluster adds, scheduling and a network, is not.
"""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import yaml

from roles import ROLES, Cluster, ready

README = Path(__file__).parent / "chorale/README.md"
# What the chart makes by default, and what helm keeps or looks at besides.
KINDS = {
    "api/v1": {
        "Namespace": "namespaces", "Secret": "secrets", "ConfigMap": "configmaps", "Service": "services",
        "ServiceAccount": "serviceaccounts", "Pod": "pods",
    },
    "apis/apps/v1": {"Deployment": "deployments", "ReplicaSet": "replicasets"},
    "apis/autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "apis/policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "apis/networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
}


# Releases are secrets, which helm sends in protocol buffers: kept as they are, but for their name and labels.
MAGIC = b"k8s\0"


def fields(message):
    """The fields of a message in protocol buffers: number and value, those with a length only."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        length = varint()
        yield key >> 3, message[at : at + length]
        at += length


def field(number, value):
    """One field with a length."""
    length, encoded = len(value), b""
    while length > 127:
        encoded += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([length]) + value


def wrapped(kind, raw):
    return MAGIC + field(1, field(1, b"v1") + field(2, kind)) + field(2, raw)


def unwrapped(data):
    raw = dict(fields(data.removeprefix(MAGIC)))[2]
    metadata = list(fields(dict(fields(raw))[1]))
    labels = [dict(fields(entry)) for number, entry in metadata if number == 11]
    return {"kind": "Secret", "raw": raw, "metadata": {
        "name": dict(metadata[:1])[1].decode(), "labels": {label[1].decode(): label[2].decode() for label in labels}}}


class Store:
    """The objects, by path, and what happened to them, in order."""

    def __init__(self):
        self.changed = threading.Condition()
        self.objects, self.events = {}, []

    def put(self, path, item):
        with self.changed:
            old = self.objects.get(path)
            metadata = item.setdefault("metadata", {})
            metadata["resourceVersion"] = str(len(self.events) + 1)
            metadata.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{len(self.events)}")
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            metadata["generation"] = 1
            self.objects[path] = item
            self.events.append((path, "MODIFIED" if old else "ADDED", item))
            self.changed.notify_all()
            return item

    def delete(self, path):
        with self.changed:
            item = self.objects.pop(path, None)
            if item:
                self.events.append((path, "DELETED", item))
                self.changed.notify_all()
            return item

    def below(self, path, selector):
        """Objects of a collection, in one namespace or in all, with these labels."""
        return [item for at, item in self.objects.items() if belongs(at, path) and selected(item, selector)]


def belongs(at, collection):
    group, _, resource = collection.rpartition("/")
    in_all = re.fullmatch(rf"{re.escape(group)}/namespaces/[^/]+/{re.escape(resource)}/[^/]+", at)
    return bool(in_all) or at.rpartition("/")[0] == collection


def selected(item, selector):
    labels = item["metadata"].get("labels", {})
    for term in filter(None, re.split(r",(?![^(]*\))", selector)):
        if match := re.fullmatch(r"(\S+) in \((.*)\)", term):
            if labels.get(match[1]) not in match[2].split(","):
                return False
        elif "!=" in term:
            key, value = term.split("!=")
            if labels.get(key) == value:
                return False
        else:
            key, _, value = term.replace("==", "=").partition("=")
            if labels.get(key) != value:
                return False
    return True


class Api(BaseHTTPRequestHandler):
    """One request of helm's."""

    protocol_version = "HTTP/1.1"
    store: Store
    logs: dict

    def log_message(self, *_):
        pass

    def answer(self, code, body, kind="application/json"):
        if isinstance(body, dict) and "raw" in body:
            data, kind = wrapped(b"Secret", body["raw"]), "application/vnd.kubernetes.protobuf"
        elif isinstance(body, dict) and any("raw" in item for item in body.get("items", [])):
            items = b"".join(field(2, item["raw"]) for item in body["items"])
            data, kind = wrapped(b"SecretList", field(1, b"") + items), "application/vnd.kubernetes.protobuf"
        else:
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, code, reason):
        self.answer(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
                           "message": f"{reason}: {self.path}"})

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return unwrapped(data) if data.startswith(MAGIC) else yaml.safe_load(data) or {}

    def do_GET(self):
        split = urlsplit(self.path)
        path, query = split.path.strip("/"), {key: values[0] for key, values in parse_qs(split.query).items()}
        if path == "version":
            return self.answer(200, {"major": "1", "minor": "35", "gitVersion": "v1.35.0"})
        if path == "api":
            return self.answer(200, {"kind": "APIVersions", "versions": ["v1"]})
        if path == "apis":
            groups = [group.split("/")[1:] for group in KINDS if group.startswith("apis/")]
            versions = [(name, {"groupVersion": f"{name}/{version}", "version": version}) for name, version in groups]
            return self.answer(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": name, "versions": [version], "preferredVersion": version} for name, version in versions]})
        if path in KINDS:
            return self.answer(200, {"kind": "APIResourceList", "groupVersion": path.split("/", 1)[1], "resources": [
                {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": kind != "Namespace",
                 "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]}
                for kind, name in KINDS[path].items()]})
        if path == "openapi/v3":
            return self.answer(200, {"paths": {group: {"serverRelativeURL": f"/openapi/v3/{group}"} for group in KINDS}})
        if path.startswith("openapi/v3/"):
            return self.answer(200, openapi(path.removeprefix("openapi/v3/")))
        if path.endswith("/log"):
            return self.answer(200, self.logs.get(path.removesuffix("/log"), ""), "text/plain")
        collection = path.rsplit("/", 1)[-1]
        if not any(collection in names.values() for names in KINDS.values()):
            found = self.store.objects.get(path)
            return self.answer(200, found) if found else self.fail(404, "NotFound")
        selector = query.get("labelSelector", "")
        if query.get("fieldSelector", "").startswith("metadata.name="):
            name = query["fieldSelector"].partition("=")[2]
            items = [item for item in self.store.below(path, selector) if item["metadata"]["name"] == name]
        else:
            items = self.store.below(path, selector)
        if query.get("watch") not in ("true", "1"):
            return self.answer(200, {"kind": "List", "apiVersion": "v1", "items": items,
                                     "metadata": {"resourceVersion": str(len(self.store.events))}})
        return self.watch(path, selector, query)

    def watch(self, path, selector, query):
        # Helm leaves when it has seen enough.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.tell_changes(path, selector, query)
        self.close_connection = True

    def tell_changes(self, path, selector, query):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        position = int(query.get("resourceVersion") or 0)
        if query.get("sendInitialEvents") == "true":
            # As a list, and the mark at its end.
            position = len(self.store.events)
            for item in self.store.below(path, selector):
                self.send_event("ADDED", item)
            group = next(group for group in KINDS if path.startswith(f"{group}/"))
            kind = next(kind for kind, resource in KINDS[group].items() if resource == path.rsplit("/", 1)[-1])
            self.send_event("BOOKMARK", {"kind": kind, "apiVersion": group.split("/", 1)[1], "metadata": {
                "resourceVersion": str(position), "annotations": {"k8s.io/initial-events-end": "true"}}})
        end = time.monotonic() + 300
        while time.monotonic() < end:
            with self.store.changed:
                self.store.changed.wait(0.2)
                new = self.store.events[position:]
                position += len(new)
            for at, what, item in new:
                if belongs(at, path) and selected(item, selector):
                    self.send_event(what, item)

    def send_event(self, what, item):
        line = json.dumps({"type": what, "object": item}).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def do_POST(self):
        item = self.body()
        path = f"{urlsplit(self.path).path.strip('/')}/{item['metadata']['name']}"
        self.answer(201, self.store.put(path, item))

    def do_PATCH(self):
        path, patch = urlsplit(self.path).path.strip("/"), self.body()
        # Server-side apply sends the whole object; a merge patch what is to change.
        whole = "apply" in self.headers.get("Content-Type", "")
        self.answer(200, self.store.put(path, patch if whole else merged(self.store.objects.get(path, {}), patch)))

    def do_PUT(self):
        self.answer(200, self.store.put(urlsplit(self.path).path.strip("/"), self.body()))

    def do_DELETE(self):
        self.body()
        found = self.store.delete(urlsplit(self.path).path.strip("/"))
        return self.answer(200, found) if found else self.fail(404, "NotFound")


def openapi(group):
    """As much of a schema as tells helm to leave validation to the server; helm/check.sh validates for itself."""
    name, version = (["", "v1"] if group == "api/v1" else group.split("/")[1:])
    validation = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    return {"openapi": "3.0.0", "info": {"title": "stand-in", "version": "1"}, "paths": {
        f"/{group}/namespaces/{{namespace}}/{resource}/{{name}}": {"patch": {
            "parameters": validation, "responses": {},
            "x-kubernetes-group-version-kind": {"group": name, "version": version, "kind": kind}}}
        for kind, resource in KINDS[group].items()}}


def merged(old, patch):
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    return {key: merged(old.get(key), patch[key]) if key in patch else old[key] for key in old | patch}


def commands():
    """What the first block of the README says, but for making the image."""
    block = README.read_text(encoding="utf-8").split("```sh\n", 1)[1].split("```", 1)[0].replace("\\\n", " ")
    return [line.partition("#")[0].strip() for line in block.splitlines() if line.startswith("helm ")]


def run_pods(store, logs, cluster_of, ended):
    """Starts the Deployments when all of them are there, says when they are ready, and runs the test's pod."""

    def find(kind):
        resource = next(names[kind] for names in KINDS.values() if kind in names)
        return {at: item for at, item in list(store.objects.items()) if f"/{resource}/" in at}

    while len(find("Deployment")) < len(ROLES):
        if ended.wait(0.05):
            return
    cluster = cluster_of([*find("Deployment").values()])
    try:
        for role in ROLES:
            cluster.start(role)
        while not all(map(ready, cluster.admins.values())):
            if ended.wait(0.1):
                return
        for at, item in find("Deployment").items():
            count = item["spec"].get("replicas", 1)
            conditions = [{"type": "Available", "status": "True"},
                          {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
            store.put(at, item | {"status": {"observedGeneration": 1, "conditions": conditions} | dict.fromkeys(
                ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"], count)})
        while not find("Pod"):
            if ended.wait(0.05):
                return
        at, pod = next(iter(find("Pod").items()))
        cluster.pods["test"] = pod["spec"]
        logs[at] = cluster.classify()
        store.put(at, pod | {"status": {"phase": "Succeeded", "conditions": []}})
        ended.wait()
    finally:
        for process in cluster.processes.values():
            process.kill()


def main():
    helm, binary = (str(Path(program).resolve()) for program in sys.argv[1:])
    store, logs = Store(), {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (Api,), {"store": store, "logs": logs}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    track = str(README.parent / "files/track.mp3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config"
        config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [{"name": "somebody", "user": {}}],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "somebody"}}],
        }), encoding="utf-8")
        ended = threading.Event()
        kubelet = threading.Thread(
            target=run_pods, args=(store, logs, lambda objects: Cluster(binary, track, objects, folder), ended))
        kubelet.start()
        environment = os.environ | {"KUBECONFIG": str(config), "HOME": name}
        try:
            for command in commands():
                words = shlex.split(command)
                print(f"$ {shlex.join(words)}", flush=True)
                done = subprocess.run([helm, *words[1:]], env=environment, timeout=180, check=False, cwd=README.parents[2])
                if done.returncode:
                    raise SystemExit(f"exit code {done.returncode}")
        finally:
            ended.set()
            kubelet.join()
    kinds = sorted(item["kind"] for item in store.objects.values() if item["kind"] != "Secret")
    print(f"installed: {', '.join(f'{kinds.count(kind)} {kind}' for kind in dict.fromkeys(kinds))}")
    if not any(logs.values()):
        raise SystemExit("the test said nothing")


if __name__ == "__main__":
    main()
