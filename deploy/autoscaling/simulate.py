"""Simulates how the inference role is scaled, draws it, and fails if the parameters are bad. Called by deploy/autoscaling/run.

What is modelled: callers that arrive at random whether or not others were answered; replicas with the costs of
deploy/BENCHMARKS.md and the bounded queue of services/inference; scrapes, Prometheus' rate() and histogram_quantile() over
them; the HorizontalPodAutoscaler's algorithm with its tolerance, windows and policies; KEDA between zero and one; the time
that a pod takes to start. With a Prometheus at hand, the series are given to it, and the expressions of
helm/chorale/files/rules.yaml must have the values there that the simulation acted upon.
"""

import collections
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import numpy
import yaml

DEPLOY = pathlib.Path(__file__).parents[1]
RULES = DEPLOY.parent / "helm/chorale/files/rules.yaml"
PICTURE = DEPLOY / "autoscaling.svg"

# A replica with two cores (BENCHMARKS.md): 0.36 ms a chunk with gRPC, 14 chunks for a track of 30 s.
CHUNK_SECONDS = 0.00036
CHUNKS_IN_TRACK = 14
MAX_BATCH = 32
QUEUE_CAPACITY = 1024
# A track fails if none of the replicas takes its chunks for so long (feature.dispatch.overload_patience).
PATIENCE = 30.0
# Without any replica a call fails after this (feature.dispatch.connect_patience), and comes again.
CONNECT_PATIENCE = 5.0
# From the wish for a pod until chunks reach it: scheduling, an image that the node has, weights, a forward pass, DNS.
START_SECONDS = 25.0

STEP = 0.05
SCRAPE = RULE = SYNC = POLL = 15
RATE_WINDOW = 60.0
MINUTES = 66
# Bounds of `queue_wait_seconds`, from services/inference/src/metrics.rs.
BOUNDS = 0.0001 * 2.0 ** numpy.arange(18)


def load(at: float) -> float:
    """Tracks a second that callers send at a time: a ramp, a plateau, a spike, a ramp to nothing, and from nothing."""
    minutes = numpy.array([0, 3, 15, 25, 25.01, 31, 31.01, 38, 46, 58, 58.01, 66])
    tracks = numpy.array([0, 0, 1000, 1000, 2000, 2000, 1000, 1000, 0, 0, 200, 200])
    return float(numpy.interp(at / 60, minutes, tracks))


def ideal(at: float) -> int:
    """Replicas that know the load in advance, and are 70 % busy."""
    return math.ceil(load(at) * CHUNKS_IN_TRACK * CHUNK_SECONDS / 0.7)


class Pod:
    """A replica: its queue, what it counts, and what was scraped of it."""

    def __init__(self, number: int, ready_at: float, phase: float):
        self.number, self.ready_at, self.phase = number, ready_at, phase
        self.backlog, self.busy = 0.0, 0.0
        self.buckets = numpy.zeros(len(BOUNDS) + 1)
        self.scraped: list[tuple[float, numpy.ndarray]] = []

    def series(self) -> numpy.ndarray:
        """Cumulative buckets, the last of which is the count, and seconds busy."""
        return numpy.append(numpy.cumsum(self.buckets), self.busy)


def rate(scraped: list[tuple[float, numpy.ndarray]], now: float, window: float = RATE_WINDOW) -> numpy.ndarray | None:
    """Prometheus' rate() of counters that never fall: extrapolated towards the ends of the window, but not below zero."""
    samples = [(at, values) for at, values in scraped[-12:] if now - window <= at <= now]
    if len(samples) < 2:
        return None
    (first_at, first), (last_at, last) = samples[0], samples[-1]
    increase, sampled = last - first, last_at - first_at
    average = sampled / (len(samples) - 1)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        to_zero = numpy.where(increase > 0, sampled * first / increase, numpy.inf)
    to_start = numpy.minimum(first_at - (now - window), to_zero)
    to_end = now - last_at
    covered = sampled + numpy.where(to_start < 1.1 * average, to_start, average / 2)
    covered = covered + (to_end if to_end < 1.1 * average else average / 2)
    return increase * covered / sampled / window


def quantile(share: float, cumulative: numpy.ndarray) -> float:
    """Prometheus' histogram_quantile(): linear within a bucket."""
    if cumulative[-1] <= 0:
        return math.nan
    rank = share * cumulative[-1]
    bucket = int(numpy.searchsorted(cumulative[:-1], rank))
    if bucket == len(BOUNDS):
        return BOUNDS[-1]
    low, below = (BOUNDS[bucket - 1], cumulative[bucket - 1]) if bucket else (0.0, 0.0)
    return low + (BOUNDS[bucket] - low) * (rank - below) / (cumulative[bucket] - below)


class Autoscaler:
    """The HorizontalPodAutoscaler of Kubernetes 1.35: the most that any metric asks for, stabilised, within policies."""

    TOLERANCE = 0.1

    def __init__(self, *, least, most, up_window, up, down_window, down):
        self.least, self.most = least, most
        self.up_window, self.up, self.down_window, self.down = up_window, up, down_window, down
        self.recommended, self.events = collections.deque(), collections.deque()

    def by_value(self, value: float, target: float, wanted: int, ready: int) -> int:
        """A metric that does not add up over replicas (type Value, or Utilization)."""
        ratio = value / target
        return wanted if abs(1 - ratio) <= self.TOLERANCE else math.ceil(ratio * ready)

    def by_average(self, value: float, target: float, wanted: int) -> int:
        """A metric that the replicas share (type AverageValue)."""
        return wanted if abs(1 - value / (target * wanted)) <= self.TOLERANCE else math.ceil(value / target)

    def sync(self, now: float, wanted: int, asked: list[int]) -> int:
        desired = max(asked, default=wanted)
        self.recommended.append((now, desired))
        recent = lambda window: [count for at, count in self.recommended if at > now - window] or [desired]  # noqa: E731
        if desired > wanted:
            desired = max(wanted, min(recent(self.up_window)))
            start = lambda period: wanted - sum(c for at, c in self.events if at > now - period and c > 0)  # noqa: E731
            limits = [start(p) + n if kind == "pods" else math.ceil(start(p) * (1 + n / 100)) for kind, n, p in self.up]
            desired = min(desired, max(max(limits), wanted))
        elif desired < wanted:
            desired = min(wanted, max(recent(self.down_window)))
            start = lambda period: wanted - sum(c for at, c in self.events if at > now - period and c < 0)  # noqa: E731
            limits = [start(p) - n if kind == "pods" else int(start(p) * (1 - n / 100)) for kind, n, p in self.down]
            desired = max(desired, min(min(limits), wanted))
        desired = min(max(desired, self.least), self.most)
        if desired != wanted:
            self.events.append((now, desired - wanted))
        return desired


class Chorale:
    """What the chart asks for (deploy/AUTOSCALING.md)."""

    WAIT_TARGET, BUSY_TARGET, COOLDOWN = 0.2, 0.7, 300

    def __init__(self):
        self.hpa = Autoscaler(
            least=1, most=24, up_window=0, up=[("percent", 100, 120), ("pods", 4, 120)], down_window=300, down=[("percent", 25, 60)]
        )
        self.active_at = -math.inf

    first = 0

    def decide(self, now, wanted, ready, seen, _cpu):
        if seen["demand"] > 0:
            self.active_at = now
        if wanted == 0:
            return int(seen["demand"] > 0)
        if now - self.active_at > self.COOLDOWN:
            return 0
        asked = [self.hpa.by_average(seen["busy"], self.BUSY_TARGET, wanted)]
        if seen["p90"] is not None:
            asked.append(self.hpa.by_value(seen["p90"], self.WAIT_TARGET, wanted, ready))
        return self.hpa.sync(now, wanted, asked)


class Naive:
    """CPU at 70 % and the defaults of Kubernetes, as charts usually have it."""

    def __init__(self):
        self.hpa = Autoscaler(
            least=2, most=24, up_window=0, up=[("percent", 100, 15), ("pods", 4, 15)], down_window=300, down=[("percent", 100, 15)]
        )

    first = 2

    def decide(self, now, wanted, ready, _seen, cpu):
        return self.hpa.sync(now, wanted, [self.hpa.by_value(cpu, 0.7, wanted, ready)] if ready else [])


def simulate(scaler, seed: int = 1):
    """Runs an hour. Returns rows of (time, wanted, ready, p90 of these 15 s), what rules saw, the pods, and failed tracks."""
    random = numpy.random.default_rng(seed)
    pods, gone = [], []
    number = 0

    def start(ready_at):
        nonlocal number
        number += 1
        pods.append(Pod(number, ready_at, float(random.uniform(0.1, SCRAPE - 0.1))))

    wanted = scaler.first
    for _ in range(wanted):
        start(0.0)
    upstream: collections.deque = collections.deque()  # [time, chunks] that no replica took yet
    rows, seen_rows, waits = [], [], []
    calls, calls_scraped, offered, failed, ended = 0.0, [], 0.0, 0.0, collections.deque()
    busy_before, tick_every = {}, round(SYNC / STEP)
    serves = STEP / CHUNK_SECONDS
    thirds = numpy.array([1 / 6, 3 / 6, 5 / 6])
    for tick in range(int(MINUTES * 60 / STEP) + 1):
        now = tick * STEP
        arrived = int(random.poisson(load(now) * STEP))
        offered += arrived
        ready = [pod for pod in pods if pod.ready_at <= now]
        if arrived:
            upstream.append([now, arrived * CHUNKS_IN_TRACK])
            ended.append((now if ready else now + CONNECT_PATIENCE, arrived))
        while ended and ended[0][0] <= now:
            calls += ended.popleft()[1]
        # Who waited for too long fails, if there was somebody to refuse it; without any replica it comes again.
        while upstream and ready and upstream[0][0] < now - PATIENCE - START_SECONDS:
            failed += upstream.popleft()[1] / CHUNKS_IN_TRACK
        if ready:
            backlog = numpy.array([pod.backlog for pod in ready])
            room = float(numpy.sum(QUEUE_CAPACITY - backlog))
            came, entered = 0.0, []
            while upstream and room > 0:
                take = min(upstream[0][1], room)
                entered.append((upstream[0][0], take))
                came, room = came + take, room - take
                upstream[0][1] -= take
                if upstream[0][1] <= 0:
                    upstream.popleft()
            # The less loaded of two: nearly an even level, with the noise of chance.
            level = (backlog.sum() + came) / len(ready)
            space = numpy.clip(level - backlog, 0, None) + 1e-9
            new = random.multinomial(int(came), space / space.sum()) if came else numpy.zeros(len(ready))
            share = numpy.clip((backlog + new) / serves, 0, 1)
            # A chunk that finds a device at work waits for what is left of that batch.
            residual = share * numpy.minimum(MAX_BATCH, 1 + backlog + new * 0.2) * CHUNK_SECONDS / 2
            for pod, extra, chunks in zip(ready, residual, new, strict=True):
                if chunks:
                    waited = (pod.backlog + thirds * chunks * 0.5) * CHUNK_SECONDS + extra * random.uniform(0, 2, 3)
                    places = numpy.searchsorted(BOUNDS, waited)
                    numpy.add.at(pod.buckets, places, chunks / 3)
                    # What callers feel is the wait before the queue as well.
                    waits.append((waited.mean() + (now - entered[0][0]), chunks))
                pod.backlog += chunks
                done = min(pod.backlog, serves)
                pod.backlog -= done
                pod.busy += done * CHUNK_SECONDS
        if tick % 2 == 0:
            for pod in ready:
                if not pod.scraped and now >= pod.ready_at or pod.scraped and now - pod.scraped[-1][0] >= SCRAPE - 1e-9:
                    if pod.scraped or (now - pod.phase) % SCRAPE < 0.1:
                        pod.scraped.append((now, pod.series()))
            if not calls_scraped or now - calls_scraped[-1][0] >= SCRAPE - 1e-9:
                calls_scraped.append((now, numpy.array([calls])))
        if tick % tick_every or tick == 0:
            continue
        # Rules, then whoever asks for what they recorded.
        rates = [found for pod in pods + gone[-30:] if (found := rate(pod.scraped, now)) is not None]
        total = numpy.sum(rates, axis=0) if rates else numpy.zeros(len(BOUNDS) + 2)
        wait = quantile(0.9, total[:-1])
        called = rate(calls_scraped, now)
        seen = {
            "p90": None if not rates and not ready else 0.0 if math.isnan(wait) else wait,
            "busy": float(total[-1]) if rates else 0.0,
            "demand": float(called[0]) if called is not None else 0.0,
            "measured": bool(rates) and not math.isnan(wait),
        }
        seen_rows.append((now, seen))
        used = [(pod.busy - busy_before.get(pod.number, 0.0)) / SYNC for pod in ready]
        busy_before = {pod.number: pod.busy for pod in pods}
        felt = [at for at, _ in waits]
        rows.append((now, wanted, len(ready), float(numpy.quantile(felt, 0.9)) if felt else 0.0))
        waits = []
        wanted = scaler.decide(now, wanted, len(ready), seen, float(numpy.mean(used)) if used else 0.0)
        while len(pods) < wanted:
            start(now + START_SECONDS)
        while len(pods) > wanted:
            # The youngest goes, and finishes what it accepted: others take its place in the queue.
            pod = pods.pop()
            gone.append(pod)
            if pod.backlog:
                upstream.appendleft([now, pod.backlog])
    return rows, seen_rows, sorted(gone + pods, key=lambda pod: pod.number), failed / offered


def directions(rows) -> int:
    """How often the number of replicas turned from growing to shrinking, or back."""
    steps = [after[1] - before[1] for before, after in zip(rows, rows[1:]) if after[1] != before[1]]
    return sum((one > 0) != (other > 0) for one, other in zip(steps, steps[1:]))


def recovery(rows, since: float, bound: float = 0.1) -> float:
    """Seconds from a time until the wait is below `bound` and stays there for two minutes."""
    late = [at for at, _, _, wait in rows if since < at <= since + 300 and wait > bound]
    return (max(late) - since) if late else 0.0


def replica_hours(rows) -> float:
    return sum(wanted for _, wanted, _, _ in rows) * SYNC / 3600


def compare_with_prometheus(pods, seen_rows) -> int:
    """Asks a real Prometheus for the rules' expressions over the series of the simulation. Returns the values compared."""
    expressions = {
        rule["record"]: rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "record" in rule
    }
    epoch = (1_760_000_000 // 7200) * 7200
    with tempfile.TemporaryDirectory() as scratch:
        lines = ["# TYPE chorale_inference_queue_wait_seconds histogram"]
        name = "chorale_inference_queue_wait_seconds"
        for pod in pods:
            labels = f'namespace="music",pod="inference-{pod.number}"'
            for at, values in pod.scraped:
                for bound, count in zip([*map(repr, BOUNDS.tolist()), "+Inf"], values, strict=False):
                    lines.append(f'{name}_bucket{{{labels},priority="interactive",le="{bound}"}} {count} {epoch + at:.3f}')
        lines.append("# TYPE chorale_inference_device_busy_seconds counter")
        for pod in pods:
            for at, values in pod.scraped:
                labels = f'namespace="music",pod="inference-{pod.number}",device="cpu"'
                lines.append(f"chorale_inference_device_busy_seconds_total{{{labels}}} {values[-1]} {epoch + at:.3f}")
        metrics = pathlib.Path(scratch, "metrics")
        metrics.write_text("\n".join(lines) + "\n# EOF\n")
        blocks = f"{scratch}/blocks"
        made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(metrics), blocks]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        pathlib.Path(scratch, "prometheus.yaml").write_text("")
        address = "127.0.0.1:19099"
        server = subprocess.Popen(
            ["prometheus", f"--config.file={scratch}/prometheus.yaml", f"--storage.tsdb.path={blocks}", "--log.level=error"]
            + ["--storage.tsdb.retention.time=100y", f"--web.listen-address={address}"]
        )
        try:

            def values(record: str) -> dict[float, float]:
                query = {"query": expressions[record], "start": epoch, "end": epoch + MINUTES * 60, "step": RULE}
                url = f"http://{address}/api/v1/query_range?{urllib.parse.urlencode(query)}"
                for _ in range(100):
                    try:
                        with urllib.request.urlopen(url, timeout=30) as response:
                            result = json.load(response)["data"]["result"]
                        return {at - epoch: float(value) for series in result for at, value in series["values"]}
                    except (urllib.error.URLError, ConnectionError):
                        time.sleep(0.1)
                raise TimeoutError("Prometheus does not answer")

            waits = values("chorale:inference_queue_wait_seconds:p90")
            busy = values("chorale:inference_devices_busy:rate1m")
        finally:
            server.terminate()
            server.wait()
    compared = 0
    for at, seen in seen_rows:
        if seen["measured"]:
            assert math.isclose(waits[at], seen["p90"], rel_tol=1e-6), f"p90 at {at}: {waits[at]}, not {seen['p90']}"
            assert math.isclose(busy[at], seen["busy"], rel_tol=1e-6), f"busy at {at}: {busy[at]}, not {seen['busy']}"
            compared += 2
    return compared


def draw(ours, naive) -> None:
    """Three pictures above one time: load, replicas, waits."""
    width, left, right = 860, 70, 20
    across = lambda at: left + (width - left - right) * at / (MINUTES * 60)  # noqa: E731
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 560" font-family="sans-serif" font-size="12">',
        # Greys that can be read on white and on black.
        "<style>text{fill:#7d8590}.grid{stroke:#7d8590;stroke-opacity:.3}path{fill:none;stroke-width:1.6}.load,.ideal{stroke:#8b949e}"
        ".ideal{stroke-dasharray:4 3}.ours{stroke:#2f81f7}.naive{stroke:#db6d28}.o{fill:#2f81f7}.n{fill:#db6d28}</style>",
    ]

    def frame(top, height, title, marks, scale):
        parts.append(f'<text x="{left}" y="{top - 8}">{title}</text>')
        for mark, label in marks:
            y = top + height - height * scale(mark)
            parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.0f}" y2="{y:.0f}"/>')
            parts.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{label}</text>')

    def line(kind, top, height, points, scale, stepped=False):
        path, before = [], None
        for at, value in points:
            x, y = across(at), top + height - height * min(max(scale(value), 0), 1)
            if before is None:
                path.append(f"M{x:.0f} {y:.0f}")
            elif f"{y:.0f}" != before or not stepped:
                path.append(f"H{x:.0f}V{y:.0f}" if stepped else f"L{x:.0f} {y:.0f}")
            before = f"{y:.0f}"
        if stepped:
            path.append(f"H{across(points[-1][0]):.0f}")
        parts.append(f'<path class="{kind}" d="{"".join(path)}"/>')

    scale = lambda value: value / 2000  # noqa: E731
    frame(30, 90, "tracks a second that callers send", [(0, "0"), (1000, "1,000"), (2000, "2,000")], scale)
    line("load", 30, 90, [(minute * 30, load(minute * 30)) for minute in range(MINUTES * 2 + 1)], scale)
    scale = lambda value: value / 24  # noqa: E731
    frame(
        160, 170,
        'replicas of inference: <tspan class="o">waits and busy devices (Chorale)</tspan>, <tspan class="n">CPU alone</tspan>, '
        "dashed: who knows the load, at 70 %",
        [(0, "0"), (8, "8"), (16, "16"), (24, "24")], scale,
    )
    line("ideal", 160, 170, [(at, ideal(at)) for at, *_ in ours], scale, stepped=True)
    line("naive", 160, 170, [(at, wanted) for at, wanted, *_ in naive], scale, stepped=True)
    line("ours", 160, 170, [(at, wanted) for at, wanted, *_ in ours], scale, stepped=True)
    scale = lambda value: (math.log10(max(value, 0.001)) + 3) / 5  # noqa: E731
    marks = [(0.001, "1 ms"), (0.01, "10 ms"), (0.1, "0.1 s"), (1, "1 s"), (10, "10 s"), (100, "100 s")]
    frame(370, 140, "what one chunk in ten waits, or longer", marks, scale)
    line("naive", 370, 140, [(at, wait) for at, _, _, wait in naive], scale)
    line("ours", 370, 140, [(at, wait) for at, _, _, wait in ours], scale)
    for minute in range(0, MINUTES + 1, 6):
        parts.append(f'<text x="{across(minute * 60):.0f}" y="530" text-anchor="middle">{minute}</text>')
    parts.append(f'<text x="{(left + width - right) / 2:.0f}" y="552" text-anchor="middle">minutes</text></svg>')
    PICTURE.write_text("\n".join(parts) + "\n")


def main() -> None:
    spike, from_zero = 25 * 60, 58 * 60
    rows, seen_rows, pods, failed = simulate(Chorale())
    naive_rows, _, _, naive_failed = simulate(Naive())
    hours = sum(ideal(at) for at, *_ in rows) * SYNC / 3600
    for name, found, lost in [("Chorale", rows, failed), ("CPU alone", naive_rows, naive_failed)]:
        print(
            f"{name:10} {directions(found)} turns, at most {max(row[1] for row in found)} replicas, "
            f"{replica_hours(found):.1f} replica-hours (ideal {hours:.1f}), waits below 0.1 s again "
            f"{recovery(found, spike):.0f} s after the spike and {recovery(found, from_zero):.0f} s after calls came to an idle "
            f"cluster, {lost:.2%} of tracks failed"
        )
    if "--no-picture" not in sys.argv:
        draw(rows, naive_rows)
    print(f"{compare_with_prometheus(pods, seen_rows)} values are those of Prometheus over the same series")

    # The load turns twice: down after the spike, and up from nothing. One overshoot more is allowed.
    assert directions(rows) <= 3, "replicas flap"
    assert recovery(rows, spike) <= 120, "waits last after a spike"
    assert recovery(rows, from_zero) <= 150, "waits last after a start from nothing"
    ramp = [wait for at, _, _, wait in rows if 6 * 60 < at < spike]
    assert sorted(ramp)[len(ramp) * 9 // 10] < 0.1, "waits are long while load grows slowly"
    assert max(wanted for at, wanted, *_ in rows) <= 1.6 * ideal(spike + 60), "far too many replicas for the spike"
    assert replica_hours(rows) <= 1.6 * hours, "far too many replicas on the whole"
    assert rows[[at for at, *_ in rows].index(57 * 60)][1] == 0, "replicas are left when nobody calls"
    assert failed < 0.001, "tracks fail"
    print("replicas follow the load")


main()
