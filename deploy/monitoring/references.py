"""What rules and dashboard refer to, and whether it exists. Called by deploy/monitoring/check.

references.py runbook                   every alert's runbook_url is a heading of deploy/RUNBOOK.md
references.py series METRICS URL        every metric of Chorale and its labels are in METRICS, a file of /metrics; every panel
                                        can be asked of the Prometheus at URL
"""

import json
import pathlib
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).parents[2]
FILES = ROOT / "helm/chorale/files"

# Series that a short run of a healthy cluster on a CPU does not have. They must be registered in the code all the same.
RARE = {
    "chorale_inference_device_memory_bytes": ("inference", "device_memory_bytes", {"device"}),
    "chorale_feature_dispatch_retries_total": ("feature", "dispatch_retries", {"reason"}),
}
# What Prometheus adds when it finds a replica, and what rules and aggregations make.
ADDED = {"namespace", "pod", "instance", "job", "le", "genre", "alertname", "alertstate", "severity", "window"}


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load((FILES / "rules.yaml").read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict]:
    return json.loads((FILES / "dashboard.json").read_text())["panels"]


def runbook() -> list[str]:
    """Complaints about alerts without a place in the runbook, and places without an alert."""
    text = (ROOT / "deploy/RUNBOOK.md").read_text()
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)
    }
    complaints = []
    for rule in rules():
        if "alert" not in rule:
            continue
        page, _, anchor = rule["annotations"].get("runbook_url", "").partition("#")
        if page != "deploy/RUNBOOK.md" or anchor not in anchors:
            complaints.append(f"{rule['alert']}: {page}#{anchor} is not a heading of deploy/RUNBOOK.md")
        if f"`{rule['alert']}`" not in text:
            complaints.append(f"{rule['alert']} is not in deploy/RUNBOOK.md")
    for named in set(re.findall(r"`(Chorale[A-Z]\w+)`", text)) - {rule.get("alert") for rule in rules()}:
        complaints.append(f"deploy/RUNBOOK.md speaks of {named}, which is no alert")
    return complaints


def known_series(metrics: str) -> dict[str, set[str]]:
    """The labels of every series by its name."""
    known: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", metrics, re.M):
        known.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return known


def expressions() -> list[tuple[str, str]]:
    """Every expression, and what it belongs to."""
    found = [(rule.get("record") or rule["alert"], rule["expr"]) for rule in rules()]
    found += [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]
    return found


def missing(metrics: str) -> list[str]:
    """Complaints about names and labels that do not exist."""
    known = known_series(metrics)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    complaints = []
    for rare, (role, name, labels) in RARE.items():
        if f'"{name}"' not in (ROOT / f"services/{role}/src/metrics.rs").read_text():
            complaints.append(f"{rare} is not registered in services/{role}/src/metrics.rs")
        known.setdefault(rare, labels)
    for owner, expression in expressions():
        for name, selector in re.findall(r"\b(chorale[\w:]*)(?:\{([^}]*)\})?", re.sub(r'"[^"]*"', '""', expression)):
            if ":" in name:
                if name not in recorded:
                    complaints.append(f"{owner}: no rule records {name}")
            elif name not in known:
                complaints.append(f"{owner}: {name} does not exist")
            else:
                for label in set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", selector)) - known[name] - ADDED:
                    complaints.append(f"{owner}: {name} has no label {label}")
        # What Kubernetes measures of pods is not ours, and not here.
        if "chorale" not in expression:
            continue
        # Labels that are grouped by must be those of some series in the expression.
        names = re.findall(r"\b(chorale_\w+)", expression)
        labels = set().union(*(known.get(name, set()) for name in names)) | ADDED
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            for label in {label.strip() for label in group.split(",")} - labels:
                complaints.append(f"{owner}: nothing has a label {label}")
    return complaints


def ask(server: str, expression: str) -> list:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{server}/api/v1/query?{query}", timeout=30) as response:
        return json.load(response)["data"]["result"]


def unanswered(server: str) -> list[str]:
    """Complaints about panels that Prometheus cannot answer; says which had nothing to show."""
    complaints, empty, shown = [], [], 0
    for panel in panels():
        answers = 0
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$namespace", ".*")
            try:
                answers += len(ask(server, expression))
            except urllib.error.HTTPError as error:
                complaints.append(f"{panel['title']}: {error.read().decode()}")
        if panel.get("targets"):
            shown += answers > 0
            empty += [panel["title"]] if answers == 0 else []
    print(f"{shown} panels show something, {len(empty)} are empty after a short run: {'; '.join(empty)}")
    broken = json.load(urllib.request.urlopen(f"{server}/api/v1/rules", timeout=30))["data"]["groups"]
    for rule in (rule for group in broken for rule in group["rules"]):
        if rule.get("lastError"):
            complaints.append(f"{rule['name']}: {rule['lastError']}")
    return complaints


match sys.argv[1:]:
    case ["runbook"]:
        found = runbook()
    case ["series", metrics, server]:
        found = missing(pathlib.Path(metrics).read_text()) + unanswered(server)
    case _:
        sys.exit(__doc__)
for complaint in sorted(set(found)):
    print(complaint, file=sys.stderr)
if found:
    sys.exit(1)
print("every alert is in the runbook" if sys.argv[1] == "runbook" else "every series that is asked for exists")
