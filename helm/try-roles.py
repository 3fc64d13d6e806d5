#!/usr/bin/env python3
"""Starts the roles as rendered charts say, as processes on the loopback interface.

    try-roles.py CHORALE track.mp3 rendered.yaml... [--classify NAME...]

Every role of every chart is started for itself, with the variables and the files of its pod, and its probes are asked: a
misspelt variable, a value that is none, a file that is not where a variable says and a probe for a service that is not
served are errors here, and not in somebody's cluster. Charts that are named besides, by the name of their file without its
ending, are started as a whole, have to be ready to all their probes, and classify what `helm test` does, which finds
certificates for the wrong name, and callers who are not let in. Certificates are made with openssl, GPUs are CPUs, there is
no Redis, and nobody takes the traces.
"""

import argparse
import contextlib
import json
import tempfile
from pathlib import Path

import yaml

from roles import ROLES, Cluster


@contextlib.contextmanager
def naming(chart):
    """Whatever is wrong, it says in which chart."""
    try:
        yield
    except (AssertionError, SystemExit) as why:
        raise SystemExit(f"{chart}: {why}") from why


def try_alone(cluster, role):
    """Nobody whom a role calls is there: it must be alive nevertheless, and know what it is asked."""
    try:
        cluster.start(role)
        answers = cluster.probes(role)
    finally:
        for process in cluster.processes.values():
            process.kill()
            process.wait()
    cluster.addresses.clear()
    alive = answers["startupProbe"] == answers["livenessProbe"] == "ready"
    if not alive or answers["readinessProbe"] is None:
        raise SystemExit(f"{role} tells its probes: {answers}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("track")
    parser.add_argument("charts", nargs="+", type=Path)
    parser.add_argument("--classify", nargs="+", default=[])
    arguments = parser.parse_args()
    # Charts have much in common. Where the pod's own part is the same, one start is enough.
    started = set()
    for chart in arguments.charts:
        with open(chart, encoding="utf-8") as file:
            objects = [found for found in yaml.safe_load_all(file) if found]
        with tempfile.TemporaryDirectory() as name, naming(chart.stem):
            cluster = Cluster(arguments.binary, arguments.track, objects, Path(name))
            for role in ROLES:
                pod = json.dumps([cluster.pods[role]["containers"][0], cluster.pods[role].get("volumes")], sort_keys=True)
                if pod not in started:
                    try_alone(cluster, role)
                    started.add(pod)
            if chart.stem in arguments.classify:
                print(f"{chart.stem}: {cluster.run()[:120].strip()}…")
    print(f"{len(started)} pods of {len(arguments.charts)} charts start, and their probes are known")


if __name__ == "__main__":
    main()
