#!/usr/bin/env python3
"""Checks what no schema can say of rendered charts: that pods have the time to drain, and who may talk to whom.

    check-meaning.py VALUES rendered.yaml=values.yaml...

VALUES are the chart's own, and each rendered chart comes with those that it was made with. The arrows of the picture are
computed as a network plugin would: by the labels of the pods that the chart makes, and from both ends.
"""

import sys
from pathlib import Path

import yaml

ROLES = {"gateway": 50051, "feature": 50052, "inference": 50053}
ADMIN, REDIS = 9090, 6379
EVERYBODY = "everybody"


def merged(base, over):
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {key: merged(base.get(key), value) for key, value in over.items()}


def seconds(text):
    assert text.endswith("s") and text[:-1].isdigit(), f"{text}: not in whole seconds"
    return int(text[:-1])


def check_drain(role, pod):
    """The kubelet's patience must not end before a role's own."""
    container = pod["containers"][0]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    waits = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drains = seconds(variables["CHORALE_SHUTDOWN__DELAY"]) + seconds(variables["CHORALE_SHUTDOWN__GRACE"])
    given = pod.get("terminationGracePeriodSeconds", 30)
    assert given >= waits + drains, f"{role}: {given} s to end in, and it takes {waits} + {drains} s"


def selects(selector, labels):
    """Whether a label selector selects these labels. The chart's own are all equalities."""
    assert set(selector) <= {"matchLabels"}, f"a selector that is not understood: {selector}"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def rules(policies, component, labels, direction):
    """Peers and ports that the policies of a pod allow: everything if none is for it."""
    found = [policy["spec"] for policy in policies if selects(policy["spec"]["podSelector"], labels)]
    assert found and all(direction in spec["policyTypes"] for spec in found), f"{component}: {direction} is free"
    key, peers = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}[direction]
    return [(rule.get(peers) or [EVERYBODY], [port["port"] for port in rule.get("ports", [])] or None)
            for spec in found for rule in spec.get(key) or []]


def is_pod(peer, labels):
    """Whether a peer is the pod of the chart that has these labels. Other namespaces are other pods."""
    return peer == EVERYBODY or (set(peer) == {"podSelector"} and selects(peer["podSelector"], labels))


def allows(found, labels, port):
    return any((ports is None or port in ports) and any(is_pod(peer, labels) for peer in peers) for peers, ports in found)


def check_arrows(pods, policies, values):
    """`pods`: labels and ports by component."""
    inward = {name: rules(policies, name, labels, "Ingress") for name, (labels, _) in pods.items()}
    outward = {name: rules(policies, name, labels, "Egress") for name, (labels, _) in pods.items()}
    arrows = {
        (start, end, port)
        for start in pods for end, (labels, ports) in pods.items() if start != end for port in ports
        if allows(outward[start], labels, port) and allows(inward[end], pods[start][0], port)
    }
    public = [ROLES["gateway"]] + [values["gateway"]["page"]["port"]] * values["gateway"]["page"]["enabled"]
    wanted = {("gateway", "feature", ROLES["feature"]), ("feature", "inference", ROLES["inference"])}
    if "redis" in pods:
        wanted.add(("gateway", "redis", REDIS))
    if "test" in pods:
        # To an endpoint of any kind, it may go anywhere.
        wanted |= {("test", "gateway", port) for port in (public if values["test"]["endpoint"] else public[:1])}
    assert arrows == wanted, f"arrows that the picture has not: {arrows - wanted}; that are missing: {wanted - arrows}"

    # Who is no pod of the chart.
    policy = values["networkPolicy"]
    outside = {
        (name, str(peer), port)
        for name, (_, all_ports) in pods.items() for peers, ports in inward[name] for peer in peers
        if not any(is_pod(peer, labels) for labels, _ in pods.values()) or peer == EVERYBODY
        for port in ports or all_ports
    }
    wanted = {(role, str(peer), ADMIN) for role in ROLES for peer in policy["monitoring"]}
    wanted |= {("gateway", str(peer), port) for peer in policy["callers"] or [EVERYBODY] for port in public}
    assert outside == wanted, f"let in and should not: {outside - wanted}; not let in and should: {wanted - outside}"


def check(objects, values):
    deployments = [o for o in objects if o["kind"] == "Deployment"]
    templates = [o["spec"]["template"] for o in deployments] + [o for o in objects if o["kind"] == "Pod"]
    pods = {}
    for template in templates:
        labels = template["metadata"]["labels"]
        component = labels["app.kubernetes.io/component"]
        ports = {port["containerPort"] for port in template["spec"]["containers"][0].get("ports", [])}
        pods[component] = (labels, ports)
        if component in ROLES:
            check_drain(component, template["spec"])
    assert ROLES.keys() <= pods.keys() <= {*ROLES, "redis", "test"}, f"pods: {sorted(pods)}"
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    if values["networkPolicy"]["enabled"]:
        check_arrows(pods, policies, values)
    else:
        assert not policies, "network policies, which were not wanted"


def main():
    defaults, *charts = sys.argv[1:]
    for chart in charts:
        rendered, own = chart.split("=")
        texts = [Path(path).read_text(encoding="utf-8") for path in (rendered, defaults, own)]
        values = merged(yaml.safe_load(texts[1]), yaml.safe_load(texts[2]))
        try:
            check([found for found in yaml.load_all(texts[0], yaml.CSafeLoader) if found], values)
        except AssertionError as why:
            raise SystemExit(f"{own}: {why}") from why


if __name__ == "__main__":
    main()
