"""The three roles as a rendered chart says, as processes on the loopback interface."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROLES = ("inference", "feature", "gateway")
ADMIN = "0.0.0.0:9090"
READY_WITHIN = 60
# What is in volumes whose manifests name no files.
WHOLE = {"track": ["track.mp3"], "models": ["serving.toml"]}
# What others than Chorale's configuration read.
OTHERS = {"RAYON_NUM_THREADS", "CUDA_DEVICE_ORDER", "NVIDIA_DRIVER_CAPABILITIES"}
SECRET = ["ca.crt", "tls.crt", "tls.key"]
# A key of an identity provider (RFC 7517, A.1).
JWKS = {"keys": [{
    "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}]}


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


def http_health(admin, path):
    """As ask: what the admin port says."""
    try:
        with urllib.request.urlopen(f"http://{admin}{path}", timeout=3) as answer:
            return "ready" if answer.status == 200 else None
    except urllib.error.HTTPError as error:
        return "not ready" if error.code == 503 else None
    except OSError:
        return None


def grpc_health(address, service):
    """As ask: what the gRPC health service says of a service."""
    asked = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
    command = ["curl", "--silent", "--max-time", "3", "--http2-prior-knowledge", "--data-binary", "@-"]
    headers = ["--header", "content-type: application/grpc", "--header", "te: trailers"]
    answer = subprocess.run(
        [*command, *headers, f"http://{address}/grpc.health.v1.Health/Check"],
        input=b"\0" + len(asked).to_bytes(4, "big") + asked, capture_output=True, check=False).stdout
    # One message in either case, whose only field is the status; none for a service that it does not know.
    return {b"\0\0\0\0\2\x08\1": "ready", b"\0\0\0\0\2\x08\2": "not ready"}.get(answer)


def ready(admin):
    return http_health(admin, "/readyz") == "ready"


def paths(volume):
    """The files of a volume, or None if a pod starts with an empty one."""
    if "emptyDir" in volume:
        return None
    sources = [source["secret"] for source in volume.get("projected", {}).get("sources", [])] or [volume.get("secret", {})]
    named = [item["path"] for source in sources for item in source.get("items", [])]
    return named or WHOLE.get(volume["name"], SECRET)


class Cluster:
    """The roles of one rendered chart."""

    def __init__(self, binary, track, objects, folder):
        self.binary, self.folder = binary, folder
        deployments = {o["metadata"]["labels"]["app.kubernetes.io/component"]: o for o in objects if o["kind"] == "Deployment"}
        self.pods = {role: deployments[role]["spec"]["template"]["spec"] for role in ROLES}
        self.pods |= {"test": o["spec"] for o in objects if o["kind"] == "Pod"}
        self.names = {role: deployments[role]["metadata"]["name"] for role in ROLES}
        self.addresses, self.admins, self.processes = {}, {}, {}
        authority = folder / "authority"
        make_certificates(authority)
        token = subprocess.run([binary, "token", "tester"], capture_output=True, text=True, check=True)
        self.files = {name: (authority / name).read_bytes() for name in SECRET} | {
            "track.mp3": Path(track).read_bytes(),
            "serving.toml": b'[[serve]]\nmodel = "small"\n',
            "password": b"word",
            "seal": bytes(range(32)),
            "token": token.stdout.encode(),
            "callers.toml": token.stderr.split("\n\n")[1].encode(),
            "jwks.json": json.dumps(JWKS).encode(),
        }

    def mounts(self, role):
        """Lays out the files that a pod finds. Returns where its mounts are here."""
        pod, places = self.pods[role], {}
        volumes = {volume["name"]: paths(volume) for volume in pod.get("volumes", [])}
        for mount in pod["containers"][0].get("volumeMounts", []):
            if volumes[mount["name"]] is None:
                continue
            place = self.folder / role / mount["mountPath"].lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            for path in volumes[mount["name"]]:
                (place / path).write_bytes(self.files[path])
            places[mount["mountPath"]] = str(place)
        return places

    def here(self, text, places):
        """What stands in a manifest, where the pods are processes on this machine."""
        for role, address in self.addresses.items():
            text = re.sub(rf"//{re.escape(self.names[role])}:\d+", f"//localhost:{address.rsplit(':', 1)[1]}", text)
        for mount, place in places.items():
            text = re.sub(rf"(^|=){re.escape(mount)}(?=/|$)", rf"\g<1>{place}", text)
        return text

    def environment(self, role):
        """The variables of a role's container, with addresses and files of this machine."""
        places, variables = self.mounts(role), {}
        for variable in self.pods[role]["containers"][0]["env"]:
            name = variable["name"]
            if name.startswith("CHORALE_"):
                # Without a section it is no configuration to the binary, which would not say so.
                assert "__" in name, f"{role}: {name} sets nothing"
                # The only one out of a Secret is the address of Redis. Nobody is there.
                variables[name] = self.here(variable.get("value", "redis://127.0.0.1:9"), places)
            else:
                assert name in OTHERS, f"{role}: who reads {name}?"
        # There are no GPUs here.
        if "CHORALE_INFERENCE__DEVICES" in variables:
            assert re.fullmatch(r"cuda:\d+(,cuda:\d+)*", variables["CHORALE_INFERENCE__DEVICES"])
            variables["CHORALE_INFERENCE__DEVICES"] = "cpu"
        return variables

    def start(self, role):
        variables = self.environment(role)
        listen = f"CHORALE_{role.upper()}__LISTEN"
        assert variables[listen].startswith("0.0.0.0:") and variables["CHORALE_ADMIN__LISTEN"] == ADMIN
        variables |= {listen: "127.0.0.1:0", "CHORALE_ADMIN__LISTEN": "127.0.0.1:0", "RAYON_NUM_THREADS": "1"}
        if "CHORALE_GATEWAY__HTTP__LISTEN" in variables:
            variables["CHORALE_GATEWAY__HTTP__LISTEN"] = "127.0.0.1:0"
        log = open(self.folder / f"{role}.log", "w", encoding="utf-8")
        process = subprocess.Popen(
            [self.binary, *self.pods[role]["containers"][0]["args"]],
            env={"PATH": os.environ["PATH"], **variables},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self.processes[role] = process
        announced = process.stdout.readline().strip()
        if not announced:
            said = Path(log.name).read_text(encoding="utf-8").strip()
            raise SystemExit(f"{role} did not start: {said}")
        self.addresses[role] = announced.rsplit("/", 1)[1]
        events = map(json.loads, Path(log.name).read_text(encoding="utf-8").splitlines())
        self.admins[role] = next(event["address"] for event in events if event["message"] == "admin port listening")

    def probes(self, role):
        """What each probe of a role is told: "ready", "not ready", or None by a process that knows nothing of it."""
        container = self.pods[role]["containers"][0]
        listen = next(v["value"] for v in container["env"] if v["name"] == f"CHORALE_{role.upper()}__LISTEN")
        answers = {}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if grpc := container[kind].get("grpc"):
                assert listen == f"0.0.0.0:{grpc['port']}", f"{role}: {kind}: nobody listens on port {grpc['port']}"
                answers[kind] = grpc_health(self.addresses[role], grpc.get("service", ""))
            else:
                http = container[kind]["httpGet"]
                port = next(port["containerPort"] for port in container["ports"] if port["name"] == http["port"])
                assert ADMIN == f"0.0.0.0:{port}", f"{role}: {kind}: port {port} is not the admin port"
                answers[kind] = http_health(self.admins[role], http["path"])
        return answers

    def classify(self):
        places = self.mounts("test")
        arguments = [self.here(argument, places) for argument in self.pods["test"]["containers"][0]["args"]]
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
            for role in ROLES:
                answers = self.probes(role)
                if set(answers.values()) != {"ready"}:
                    raise SystemExit(f"{role} is ready, and tells its probes something else: {answers}")
            verdict = self.classify()
            for role in reversed(ROLES):
                self.processes[role].send_signal(signal.SIGTERM)
                if self.processes[role].wait(90):
                    raise SystemExit(f"{role} did not drain")
            return verdict
        finally:
            for process in self.processes.values():
                process.kill()
