"""The three roles as a rendered chart says, as processes on the loopback interface."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

ROLES = ("inference", "feature", "gateway")
ADMIN = "0.0.0.0:9090"
READY_WITHIN = 60


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder):
    """An authority, and a certificate for `localhost` that servers and clients may show."""
    folder.mkdir(parents=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"]
    openssl(folder, "req", "-x509", *key, "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=authority")
    openssl(folder, "req", *key, "tls.key", "-out", "request", "-subj", "/CN=role")
    (folder / "extensions").write_text("subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
    signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions", "-days", "2"]
    openssl(folder, "x509", "-req", "-in", "request", *signing, "-out", "tls.crt")


def ready(admin):
    try:
        with urllib.request.urlopen(f"http://{admin}/readyz", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


class Cluster:
    """The roles of one rendered chart."""

    def __init__(self, binary, track, objects, folder):
        self.binary, self.track, self.folder = binary, track, folder
        deployments = {o["metadata"]["labels"]["app.kubernetes.io/component"]: o for o in objects if o["kind"] == "Deployment"}
        self.containers = {role: deployments[role]["spec"]["template"]["spec"]["containers"][0] for role in ROLES}
        self.test = next((o["spec"]["containers"][0] for o in objects if o["kind"] == "Pod"), None)
        self.names = {role: deployments[role]["metadata"]["name"] for role in ROLES}
        self.addresses, self.admins, self.processes = {}, {}, {}

    def here(self, text):
        """What stands in a manifest, where the pods are processes on this machine."""
        for role, address in self.addresses.items():
            text = re.sub(rf"//{re.escape(self.names[role])}:\d+", f"//localhost:{address.rsplit(':', 1)[1]}", text)
        text = re.sub(r"(^|=)/tls/\w+/", rf"\1{self.folder}/tls/", text)
        return text.replace("/track/track.mp3", self.track)

    def start(self, role):
        container = self.containers[role]
        variables = {v["name"]: self.here(v["value"]) for v in container["env"] if "value" in v}
        listen = f"CHORALE_{role.upper()}__LISTEN"
        assert variables[listen].startswith("0.0.0.0:") and variables["CHORALE_ADMIN__LISTEN"] == ADMIN
        variables |= {listen: "127.0.0.1:0", "CHORALE_ADMIN__LISTEN": "127.0.0.1:0", "RAYON_NUM_THREADS": "1"}
        log = open(self.folder / f"{role}.log", "w", encoding="utf-8")
        process = subprocess.Popen(
            [self.binary, *container["args"]],
            env={"PATH": os.environ["PATH"], **variables},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self.processes[role] = process
        announced = process.stdout.readline().strip()
        if not announced:
            raise SystemExit(f"{role} did not start: {Path(log.name).read_text(encoding='utf-8')}")
        self.addresses[role] = announced.rsplit("/", 1)[1]
        events = map(json.loads, Path(log.name).read_text(encoding="utf-8").splitlines())
        self.admins[role] = next(event["address"] for event in events if event["message"] == "admin port listening")

    def classify(self):
        arguments = [self.here(argument) for argument in self.test["args"]]
        answer = subprocess.run([self.binary, *arguments], capture_output=True, text=True, timeout=150, check=False)
        if answer.returncode:
            raise SystemExit(f"{arguments}: {answer.stdout}{answer.stderr}")
        return answer.stdout

    def run(self):
        try:
            for role in ROLES:
                self.start(role)
            deadline = time.monotonic() + READY_WITHIN
            while not all(map(ready, self.admins.values())):
                if time.monotonic() > deadline:
                    raise SystemExit(f"not ready within {READY_WITHIN} s: {self.admins}")
                time.sleep(0.1)
            verdict = self.classify()
            for role in reversed(ROLES):
                self.processes[role].send_signal(signal.SIGTERM)
                if self.processes[role].wait(90):
                    raise SystemExit(f"{role} did not drain")
            return verdict
        finally:
            for process in self.processes.values():
                process.kill()
