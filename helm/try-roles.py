#!/usr/bin/env python3
"""Starts the three roles as a rendered chart says, on the loopback interface, and has them classify what `helm test` does.

    try-roles.py CHORALE track.mp3 rendered.yaml...

A misspelt variable, a file that is not where a variable says, or a certificate for the wrong name is an error here, and not in
somebody's cluster. Certificates are made with openssl; GPUs, Redis and tokens are not tried, and nobody takes the traces.
"""

import sys
import tempfile
from pathlib import Path

import yaml

from roles import Cluster, make_certificates


def main():
    binary, track, *charts = sys.argv[1:]
    for chart in charts:
        with open(chart, encoding="utf-8") as file:
            objects = [found for found in yaml.safe_load_all(file) if found]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_certificates(folder / "tls")
            verdict = Cluster(str(Path(binary).resolve()), track, objects, folder).run()
        print(f"{Path(chart).stem}: {verdict[:120].strip()}…")


if __name__ == "__main__":
    main()
