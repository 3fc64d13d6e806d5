#!/usr/bin/env python3
"""Writes the Grafana dashboard, helm/chorale/files/dashboard.json. With --check, says whether that file is what it writes.

The chart installs the file as a ConfigMap for Grafana's sidecar, the compose file mounts it. A panel is one call of `panel`
below: change it here, run this, and commit both.
"""

import json
import pathlib
import sys

OUTPUT = pathlib.Path(__file__).parents[2] / "helm/chorale/files/dashboard.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
# Every series of Chorale that a panel shows is of the namespaces that were chosen.
CHOSEN = 'namespace=~"$namespace"'

panels: list[dict] = []
cursor = {"x": 0, "y": 0, "height": 0}


def row(title: str) -> None:
    """Begins a row."""
    cursor.update(x=0, y=cursor["y"] + cursor["height"], height=1)
    panels.append(
        {"type": "row", "id": len(panels) + 1, "title": title, "collapsed": False, "panels": []}
        | {"gridPos": {"x": 0, "y": cursor["y"], "w": WIDTH, "h": 1}}
    )
    cursor.update(y=cursor["y"] + 1, height=0)


def panel(title: str, description: str, queries: dict[str, str], unit: str = "short", **options) -> None:
    """Adds a panel, eight columns wide if `width` says nothing else. `queries` are expressions by their legend."""
    width, height = options.get("width", 8), options.get("height", 8)
    if cursor["x"] + width > WIDTH:
        cursor.update(x=0, y=cursor["y"] + cursor["height"], height=0)
    kind = options.get("kind", "timeseries")
    stacked = options.get("stacked", False)
    custom = {"lineWidth": 1, "fillOpacity": 30 if stacked else 5, "showPoints": "never", "spanNulls": False}
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    if options.get("logarithmic"):
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    defaults = {"unit": unit, "custom": custom if kind == "timeseries" else {}, "color": {"mode": "palette-classic"}}
    for bound in ("min", "max"):
        if bound in options:
            defaults[bound] = options[bound]
    steps = options.get("steps")
    if steps:
        # From the colour without a bound upwards.
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": c, "value": v} for v, c in steps]}
        if kind == "timeseries":
            custom["thresholdsStyle"] = {"mode": "line"}
        else:
            defaults["color"] = {"mode": "thresholds"}
    shown = {
        "timeseries": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "stat": {
            "colorMode": "value",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        "table": {"showHeader": True},
    }[kind]
    targets = [
        {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expression.strip(), "legendFormat": legend}
        | ({"format": "table", "instant": True} if kind == "table" else {})
        # Dots that lead to traces, where the histogram has them.
        | ({"exemplar": True} if "histogram_quantile(" in expression and unit == "s" else {})
        for index, (legend, expression) in enumerate(queries.items())
    ]
    panels.append(
        {"type": kind, "id": len(panels) + 1, "title": title, "description": description, "datasource": DATASOURCE}
        | {"gridPos": {"x": cursor["x"], "y": cursor["y"], "w": width, "h": height}, "targets": targets}
        | {"fieldConfig": {"defaults": defaults, "overrides": []}, "options": shown}
    )
    cursor.update(x=cursor["x"] + width, height=max(cursor["height"], height))


def rate(metric: str, labels: str = "", by: str = "", window: str = "$__rate_interval") -> str:
    """How much a counter grows in a second, over all replicas."""
    selector = ", ".join(filter(None, [CHOSEN, labels]))
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{selector}}}[{window}]))"


def quantile(share: float, histogram: str, labels: str = "", by: str = "") -> str:
    """A quantile over all replicas."""
    groups = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', labels, groups)})"


def quantiles(histogram: str, labels: str = "") -> dict[str, str]:
    """The usual three."""
    return {name: quantile(share, histogram, labels) for name, share in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)]}


def total(gauge: str, by: str = "") -> str:
    """A gauge over all replicas."""
    return f"sum{f' by ({by})' if by else ''} ({gauge}{{{CHOSEN}}})"


def recorded(rule: str) -> str:
    """What a rule of rules.yaml records."""
    return f"{rule}{{{CHOSEN}}}"


row("Users")
panel(
    "Error budget left: availability",
    "Of 30 days' failures that 99.9 % allows. Above 50 % is normal; below 0 the objective is missed.",
    {"{{namespace}}": recorded("chorale:gateway_availability:budget_left")},
    "percentunit", kind="stat", width=4, height=6, steps=[(None, "red"), (0, "orange"), (0.5, "green")],
)
panel(
    "Error budget left: latency",
    "Of 30 days' slow verdicts that 95 % within 2 s allows. Above 50 % is normal.",
    {"{{namespace}}": recorded("chorale:gateway_latency:budget_left")},
    "percentunit", kind="stat", width=4, height=6, steps=[(None, "red"), (0, "orange"), (0.5, "green")],
)
panel(
    "How fast the budgets burn",
    "1 uses up 30 days' budget in 30 days. Below 1 is normal; a page comes at 14.4 over an hour.",
    {
        "availability, 1 h": recorded("chorale:gateway_failures:ratio_rate1h") + " / 0.001",
        "availability, 6 h": recorded("chorale:gateway_failures:ratio_rate6h") + " / 0.001",
        "latency, 1 h": recorded("chorale:gateway_slowness:ratio_rate1h") + " / 0.05",
        "latency, 6 h": recorded("chorale:gateway_slowness:ratio_rate6h") + " / 0.05",
    },
    width=8, height=6, min=0, steps=[(None, "green"), (1, "orange"), (14.4, "red")],
)
panel(
    "Verdicts by where they came from",
    "What is cached costs next to nothing; a sudden fall of its share is load for everything behind.",
    {
        "cached": rate("chorale_gateway_cache_lookups_total", 'result="hit"'),
        "shared with an equal call": rate("chorale_gateway_flights_shared_total"),
        "before the end of the track": rate("chorale_gateway_early_verdicts_total"),
        "all": rate("chorale_gateway_calls_total", 'code="OK"'),
    },
    "reqps", height=6, min=0,
)
panel(
    "Calls, by RPC",
    "Calls that ended. Follows the day; a fall to zero while callers are there is an outage.",
    {"{{rpc}}": rate("chorale_gateway_calls_total", by="rpc")},
    "reqps", stacked=True, min=0,
)
panel(
    "Calls that failed, by reason",
    "OVERLOADED, DEPENDENCY_UNAVAILABLE, DRAINING, FEATURE_MISMATCH and INTERNAL are ours, and normally none; short bursts of "
    "DRAINING come with a rollout. The others are the callers' (proto/chorale/v1/classifier.proto).",
    {"{{code}}": rate("chorale_gateway_calls_total", 'code!="OK"', "code")},
    "reqps", stacked=True, min=0,
)
panel(
    "Duration of calls that were answered",
    "From the first message to the verdict, the caller's upload included; without audio that is classified while it is made, "
    "which takes as long as it plays. For tracks of 30 s, p50 is some tens of milliseconds "
    "and p99 under 0.3 s up to 85 % of what the cluster can do; the objective's bound is 2.048 s.",
    quantiles("chorale_gateway_call_seconds", 'rpc!="HttpLive", code="OK"'),
    "s", logarithmic=True, steps=[(None, "green"), (2.048, "red")],
)

row("Gateway")
panel(
    "Open streams, by replica",
    "Calls that are being classified. A replica refuses calls beyond 1,024 (max_concurrent_streams), and is given company at "
    "256 on average.",
    {"{{pod}} {{instance}}": total("chorale_gateway_open_streams", "pod, instance")},
    min=0, steps=[(None, "green"), (256, "orange"), (1024, "red")],
)
panel(
    "Cache lookups, by result",
    "timeout and error mean that Redis is slow or away: tracks are computed instead. corrupt is never normal: somebody else "
    "writes to it.",
    {"{{backend}} {{result}}": rate("chorale_gateway_cache_lookups_total", by="backend, result")},
    "ops", stacked=True, min=0,
)
panel(
    "Cache operations, p99",
    "Below 5 ms is normal; an operation is given up after 50 ms.",
    {"{{operation}}": quantile(0.99, "chorale_gateway_cache_seconds", by="operation")},
    "s", min=0, steps=[(None, "green"), (0.05, "red")],
)
panel(
    "Gateways that do not ask their cache",
    "Normally none. A gateway leaves a cache alone that keeps failing, and tries it again by itself.",
    {"without cache": total("chorale_gateway_cache_breaker_open"), "failed writes": rate("chorale_gateway_cache_failed_writes_total")},
    min=0,
)
panel(
    "Calls that failed at a limit, by limit",
    "max_streams_per_caller is one caller that sends too much, max_concurrent_streams are too few gateways; the others are the "
    "callers' audio. SECURITY.md lists them.",
    {"{{limit}}": rate("chorale_gateway_limits_hit_total", by="limit")},
    "reqps", stacked=True, min=0,
)
panel(
    "Work done again",
    "Feature calls that another replica was asked for, and tracks that were sent again as theirs went away. Normal during "
    "rollouts only.",
    {"asked again": rate("chorale_gateway_feature_retries_total"), "sent again": rate("chorale_gateway_replays_total")},
    "reqps", min=0,
)
panel(
    "Connections",
    "Refused ones are beyond gateway.connections.max. Failed handshakes are certificates that do not fit, or scanners.",
    {
        "open": total("chorale_gateway_connections"),
        "refused a second": rate("chorale_gateway_connections_refused_total"),
        "failed handshakes a second": rate("chorale_gateway_failed_handshakes_total"),
    },
    min=0,
)
panel(
    "Audio received",
    "Bytes into gateways, and from them to feature. A link of 10 Gbit/s carries 1.25 GB a second.",
    {"gateway": rate("chorale_gateway_audio_bytes_total"), "feature": rate("chorale_feature_audio_bytes_total")},
    "Bps", min=0,
)
panel(
    "Builds",
    "Replicas by version of Chorale. More than one line is a rollout.",
    {"{{version}} {{revision}}": f"count by (version, revision) (chorale_build_info{{{CHOSEN}}})"},
    min=0,
)

row("Feature")
panel(
    "Wait for a core, p90",
    "Interactive tracks wait for tens of milliseconds, bulk ones up to 2 s behind them. From 2 s on average, tracks are refused.",
    {"{{priority}}": quantile(0.9, "chorale_feature_turn_wait_seconds", by="priority")},
    "s", min=0, steps=[(None, "green"), (1, "orange"), (2, "red")],
)
panel(
    "Open analyses, and how many may wait",
    "The limit falls when waits are long: then load is shed, and replicas are too few.",
    {"open": total("chorale_feature_open_streams"), "may wait": total("chorale_feature_turn_limit_streams")},
    min=0,
)
panel(
    "Analyses that ended, by how",
    "What is not OK is what callers see in their errors, or what a gateway tried elsewhere.",
    {"{{code}}": rate("chorale_feature_calls_total", 'rpc="Analyze"', "code")},
    "reqps", stacked=True, min=0,
)
panel(
    "Time to decode a track",
    "In proportion to its length: 20 ms for 30 s of mp3. Decoding is most of what feature does, and so what it scales on.",
    quantiles("chorale_feature_decode_seconds"),
    "s", logarithmic=True,
)
panel(
    "Time for the features of a track",
    "About a tenth of the time to decode it.",
    quantiles("chorale_feature_mel_seconds"),
    "s", logarithmic=True,
)
panel(
    "Audio that could not be used, by codec and reason",
    "A few are normal. A new line is a caller with another format, INTERNAL a decoder that panicked.",
    {"{{codec}} {{kind}}": rate("chorale_feature_decode_errors_total", by="codec, kind")},
    "reqps", stacked=True, min=0,
)
panel(
    "Music heard",
    "Seconds of audio that are decoded in a second, over all replicas.",
    {"seconds a second": rate("chorale_feature_audio_seconds_total")},
    min=0, width=12,
)
panel(
    "Chunks, voiced and silent",
    "Silent ones do not go to inference. Many of them are a caller whose audio is empty.",
    {"{{kind}}": rate("chorale_feature_chunks_total", by="kind")},
    "ops", stacked=True, min=0, width=12,
)
panel(
    "Chunks sent again, by reason",
    "unavailable and lost are replicas that went away, overloaded ones that are full, lacking ones without the version. Normal "
    "during rollouts, switches and scaling only.",
    {"{{reason}}": rate("chorale_feature_dispatch_retries_total", by="reason")},
    "ops", stacked=True, min=0, width=12,
)

panel(
    "Duration of analyses that were answered",
    "A track's call to feature, with its upload and inference. Much longer than decoding and the waits together: slow uploads.",
    quantiles("chorale_feature_call_seconds", 'rpc="Analyze", code="OK"'),
    "s", logarithmic=True, width=12,
)

row("Inference")
panel(
    "Wait for a device, p90",
    "What inference scales on: below 30 ms is normal on CPUs. Replicas are added from 0.2 s on CPUs, the line, and from 0.01 s "
    "on GPUs. Bulk chunks may wait 2 s longer. An alert comes when interactive ones wait for 0.25 s, or for 0.7 of what a full "
    "queue takes, which without load is shown too long.",
    {
        "{{priority}}": quantile(0.9, "chorale_inference_queue_wait_seconds", by="priority"),
        "a full queue": recorded("chorale:inference_full_queue_seconds:rate5m"),
    },
    "s", min=0, steps=[(None, "green"), (0.2, "orange"), (1, "red")],
)
panel(
    "Time from chunk to answer",
    "The wait, the forward pass, and the way back: what a chunk costs its track. Of those that were classified.",
    quantiles("chorale_inference_chunk_seconds", 'result="OK"'),
    "s", logarithmic=True,
)
panel(
    "Devices that are busy, and that serve",
    "Replicas are added when 70 % of the devices are busy on average.",
    {"busy": recorded("chorale:inference_devices_busy:rate1m"), "serving": recorded("chorale:inference_devices:sum")},
    min=0,
)
panel(
    "Busy share of each device",
    "About the same on all: chunks go to the less loaded of two. One that is always idle has lost its callers.",
    {"{{pod}} {{instance}} {{device}}": rate("chorale_inference_device_busy_seconds_total", by="pod, instance, device")},
    "percentunit", min=0, max=1,
)
panel(
    "Chunks that wait, and how many may",
    "The limit falls when waits are above inference.target_wait (1 s).",
    {"waiting": total("chorale_inference_queue_depth_chunks"), "may wait": total("chorale_inference_queue_limit_chunks")},
    min=0,
)
panel(
    "Chunks in a batch",
    "Small when idle; at max_batch (32 unless configured) the devices are saturated.",
    quantiles("chorale_inference_batch_size_chunks"),
    min=0,
)
panel(
    "Why batches left the queue",
    "delay is an idle device, full a busy one, drain a replica that ends.",
    {"{{release}}": rate("chorale_inference_batches_total", by="release")},
    "ops", stacked=True, min=0,
)
panel(
    "Forward passes",
    "On a CPU, a chunk takes 0.7 ms of a core and a full batch of 32 ten to twenty milliseconds. Longer than usual at the same "
    "batch size is a throttled device.",
    quantiles("chorale_inference_forward_seconds"),
    "s", logarithmic=True,
)
panel(
    "Forward passes that failed, by device",
    "Normally none. After three in a row a device takes no chunks until one succeeds.",
    {"{{pod}} {{instance}} {{device}}": rate("chorale_inference_forward_failures_total", by="pod, instance, device")},
    "ops", min=0,
)
panel(
    "Chunks without an answer, by reason",
    "CANCELLED and DEADLINE_EXCEEDED are callers that left. OVERLOADED is a full queue; feature tries elsewhere.",
    {"{{result}}": rate("chorale_inference_chunks_total", 'result!="OK"', "result") + " > 0"},
    "ops", stacked=True, min=0, width=12,
)
panel(
    "Device memory",
    "GPUs only. Constant after the first full batch; steps are models that come and go.",
    {"{{pod}} {{instance}} {{device}}": total("chorale_inference_device_memory_bytes", "pod, instance, device")},
    "bytes", min=0, width=12,
)
panel(
    "Models and their weights, by replicas",
    "Each version on all replicas, but during a switch. A weight of 0 answers only who names it.",
    {"": f"count by (name, version) (chorale_inference_model_info{{{CHOSEN}}})"},
    kind="table", width=12,
)
panel(
    "Sets of models found, by what became of them",
    "refused is never normal: the log of that replica says why.",
    {"{{result}}": f"sum by (result) (increase(chorale_inference_model_loads_total{{{CHOSEN}}}[$__rate_interval]))"},
    min=0, width=12,
)

row("RPCs of every role")
ROLES = ["gateway", "feature", "inference"]
panel(
    "RPCs that ended",
    "Streams count when they end: Infer is one for a connection between replicas and lasts as long, chunks are counted above. "
    "Health is what Kubernetes asks.",
    {f"{role} {{{{rpc}}}}": rate(f"chorale_{role}_rpcs_total", by="rpc") + " > 0" for role in ROLES},
    "reqps", stacked=True, min=0,
)
panel(
    "RPCs that failed, by gRPC code",
    "CANCELLED are callers that left, and replicas that end. UNIMPLEMENTED of unknown is somebody who speaks another protocol.",
    {
        f"{role} {{{{rpc}}}} {{{{code}}}}": rate(f"chorale_{role}_rpcs_total", 'code!="OK"', "rpc, code") + " > 0"
        for role in ROLES
    },
    "reqps", stacked=True, min=0,
)
panel(
    "Duration of RPCs, p99",
    "Streams until their end: an upload lasts as long as its caller takes. What describes or probes takes milliseconds.",
    {f"{role} {{{{rpc}}}}": quantile(0.99, f"chorale_{role}_rpc_seconds", by="rpc") + " >= 0" for role in ROLES},
    "s", logarithmic=True,
)

row("Genres")
panel(
    "Votes of chunks, by genre",
    "Shares of the last hour. Lines that cross without a new caller or model are a drift.",
    {"{{genre}}": recorded("chorale:gateway_chunk_votes:share1h")},
    "percentunit", stacked=True, min=0, max=1, width=12,
)
panel(
    "How far the genres drifted",
    "The share of the last hour's votes that would have to change to be as in the last 7 days. Below 10 % is normal with many "
    "callers; an alert comes at 25 %.",
    {"{{namespace}}": recorded("chorale:gateway_chunk_votes:drift1h")},
    "percentunit", min=0, width=12, steps=[(None, "green"), (0.25, "red")],
)
panel(
    "Verdicts, by genre",
    "unknown is silence, and what is like no genre. Its share should be constant.",
    {"{{genre}}": rate("chorale_gateway_verdicts_total", by="genre")},
    "reqps", stacked=True, min=0, width=12,
)
panel(
    "Verdicts, by version of the model",
    "Follows the weights of serving.toml. A canary that does not show here gets no tracks.",
    {"{{version}}": rate("chorale_gateway_model_verdicts_total", by="version")},
    "reqps", stacked=True, min=0, width=12,
)

row("Pods")
# From kubelets (cAdvisor) and kube-state-metrics; empty outside Kubernetes. The chart calls containers after their roles, and
# ends the names of Deployments with them.
CONTAINERS = f'{CHOSEN}, pod=~".+-(gateway|feature|inference)-.+", container=~"gateway|feature|inference"'
DEPLOYMENTS = f'{CHOSEN}, deployment=~".+-(gateway|feature|inference)"'
panel(
    "CPU, by pod",
    "Cores in use. feature follows its load, an inference pod on CPUs takes what it requests when it is busy, a gateway takes "
    "little.",
    {"{{pod}}": f"sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{{{CONTAINERS}}}[$__rate_interval]))"},
    min=0,
)
panel(
    "Memory, by pod",
    "What counts against the limit. Constant after the first full load; a line that ends at its limit and starts anew was "
    "killed for it.",
    {"{{pod}}": f"sum by (namespace, pod) (container_memory_working_set_bytes{{{CONTAINERS}}})"},
    "bytes", min=0,
)
panel(
    "Replicas that are ready, and that are wanted",
    "Equal, but for the minute or two that a new one takes. Wanted and never ready: kubectl describe pod.",
    {
        "{{deployment}}": f"sum by (namespace, deployment) (kube_deployment_status_replicas_available{{{DEPLOYMENTS}}})",
        "{{deployment}}, wanted": f"sum by (namespace, deployment) (kube_deployment_spec_replicas{{{DEPLOYMENTS}}})",
    },
    min=0,
)

dashboard = {
    "uid": "chorale",
    "title": "Chorale",
    "description": "What callers see, what each role does, and what the music is. deploy/RUNBOOK.md says what to do.",
    "tags": ["chorale"],
    "schemaVersion": 38,
    "editable": True,
    "graphTooltip": 1,
    "refresh": "30s",
    "time": {"from": "now-3h", "to": "now"},
    "annotations": {
        "list": [
            {
                "name": "Alerts",
                "enable": True,
                "iconColor": "red",
                "datasource": DATASOURCE,
                "expr": 'ALERTS{alertname=~"Chorale.*", alertstate="firing", severity="page"}',
                "titleFormat": "{{alertname}}",
            }
        ]
    },
    "templating": {
        "list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source", "current": {}},
            {
                "name": "namespace",
                "type": "query",
                "label": "Namespace",
                "datasource": DATASOURCE,
                "query": {"query": "label_values(chorale_build_info, namespace)", "refId": "namespaces"},
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                # Also where there is no such label.
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            },
        ]
    },
    "panels": panels,
}

text = json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"
if "--check" in sys.argv:
    if not OUTPUT.exists() or OUTPUT.read_text() != text:
        sys.exit(f"{OUTPUT.name} is not what deploy/monitoring/dashboard.py writes: run it")
else:
    OUTPUT.write_text(text)
    print(f"wrote {len([p for p in panels if p['type'] != 'row'])} panels")
