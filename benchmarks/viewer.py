"""How smooth `scale view` is with 300,000 boxes: times between frames in Chromium while a slide is dragged and zoomed.

Each phase moves the view a little in every frame, as a hand on the mouse does, once with all boxes and once with none;
what the boxes cost is the difference. The phases are run in turns, several rounds. The browser has no window and no
GPU: tiles and boxes are drawn by the processor, which the server uses too.

    python benchmarks/viewer.py -o results/cpu/viewer.json

Ends with 1 where, with the boxes, the median over the rounds of a phase's 95th percentile is above 50 ms.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.detection.results import Detections
from redline.measurement.environment import fingerprint, noise_check
from redline.serving.limits import Limits
from redline.serving.runners import Listening, Stop, serve_on
from scale.outputs import SlideInfo, open_writer
from scale.viewer.app import create_app
from scale.viewer.hosts import names_of
from scale.viewer.results import find_results
from scale.viewer.serve import make_shelf

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.scale.slides_tools import MPP, make_pyramid  # noqa: E402

LIMIT_MS = 50.0
TIMEOUT_S = 400.0
CLASSES = ("EoE", "Neutrophils", "Plasma Cells", "Crypts")
ACT = r"""
const FRAMES = %(frames)d, ROUNDS = %(rounds)d;
const wait = ms => new Promise(resolve => setTimeout(resolve, ms));
const frame = () => new Promise(requestAnimationFrame);
const { map, overlay } = scaleView;
const press = id => document.getElementById(id).click();
const size = () => [map.slide.width_px, map.slide.height_px];

// Where each phase begins, and what it does in each frame: pixels of the screen to move by, and a factor to zoom by.
const PHASES = {
  "drag, whole slide as density": { zoom: 0.05, by: at => [6 * Math.sign(Math.sin(at / 20)), 4, 1] },
  "drag, thousands of boxes": { zoom: 0.19, by: () => [7, 4, 1] },
  "drag, close": { zoom: 1, by: () => [9, 5, 1] },
  "zoom in": { zoom: 0.05, by: () => [0, 0, 1.02] },
  "zoom out": { zoom: 1.5, by: () => [0, 0, 1 / 1.02] },
};

async function phase({ zoom, by }) {
  const [width, height] = size();
  const around = 0.35;
  map.goTo({ x: width * around, y: height * around, zoom });
  await wait(1500);
  const { viewport } = map.viewer;
  const intervals = [], drawing = [], drawn = [];
  let last = await frame();
  for (let at = 0; at < FRAMES; at += 1) {
    const [dx, dy, factor] = by(at);
    if (factor !== 1) viewport.zoomBy(factor, null, true);
    if (dx || dy) viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(dx, dy)), true);
    const now = await frame();
    intervals.push(Math.round(100 * (now - last)) / 100);
    drawing.push(Math.round(100 * overlay.drawn_ms) / 100);
    drawn.push(overlay.drawn);
    last = now;
  }
  return { intervals_ms: intervals, drawing_ms: drawing, most_boxes: Math.max(...drawn) };
}

async function main() {
  while (!map.slide) await wait(50);
  await wait(2000);
  const told = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, what] of Object.entries(PHASES)) {
      for (const boxes of round %% 2 ? ["none", "all"] : ["all", "none"]) {
        press(boxes);
        told.push({ round, phase: name, boxes: boxes === "all", ...await phase(what) });
      }
    }
  }
  const screen = { width: innerWidth, height: innerHeight, ratio: devicePixelRatio, agent: navigator.userAgent };
  await fetch("told", { method: "POST", body: JSON.stringify({ screen, told }) });
}
main().catch(error => fetch("told", { method: "POST", body: JSON.stringify({ failed: String(error) }) }));
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=300_000)
    parser.add_argument("--side", type=int, default=20_480, help="of the slide, in pixels")
    parser.add_argument("--frames", type=int, default=150, help="of a phase")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        parser.error("there is no Chromium; type: apt install chromium")
    document: dict[str, Any] = {
        "benchmark": "viewer",
        "command": " ".join(["python", "benchmarks/viewer.py", *sys.argv[1:]]),
        "redline": redline.__version__,
        "environment": to_plain(fingerprint(noise=noise_check())),
        "boxes": args.boxes,
        "slide_px": args.side,
        "limit_ms": LIMIT_MS,
    }
    with tempfile.TemporaryDirectory() as folder:
        result = make_result(Path(folder), args.boxes, args.side)
        document |= measure(result, browser, Path(folder) / "profile", args.frames, args.rounds)
    document["phases"] = summary(document["told"])
    if args.out:
        write_whole(args.out, json.dumps(document) + "\n")
    return report(document)


def make_result(folder: Path, boxes: int, side: int) -> Path:
    """A result of as many boxes, in clusters as cells are, and a thousandth of them large."""
    slide = make_pyramid(folder / "slide.tif", side, side)
    rng = np.random.default_rng(0)
    clusters = rng.uniform(0.03, 0.97, (400, 2)) * side
    centers = clusters[rng.integers(0, len(clusters), boxes)] + rng.normal(0, side / 45, (boxes, 2))
    half = np.clip(rng.normal(16, 4, (boxes, 2)), 5, 60)
    classes = rng.integers(0, len(CLASSES) - 1, boxes)
    half[::1000], classes[::1000] = 300, len(CLASSES) - 1
    found = np.clip(np.concatenate([centers - half, centers + half], axis=1), 0, side).astype(np.float32)
    out = folder / "out"
    out.mkdir()
    manifest = {"slide": {"path": str(slide), "width_px": side, "height_px": side, "mpp": MPP}}
    (out / "manifest.json").write_text(json.dumps(manifest))
    info = SlideInfo(name=slide.name, width_px=side, height_px=side, mpp=MPP, class_names=CLASSES)
    scores = rng.uniform(0.2, 1, boxes).astype(np.float32)
    with open_writer("parquet", out / "detections.parquet", info) as writer:
        writer.add(Detections(boxes=found, scores=scores, classes=classes.astype(np.int32)))
    return out


def measure(result: Path, browser: str, profile: Path, frames: int, rounds: int) -> dict[str, Any]:
    """What the browser tells, and how long the server takes for an answer."""
    results, _ = find_results(result)
    shelf = make_shelf(results)
    came = threading.Event()
    told: dict[str, Any] = {}
    app = with_act(create_app(shelf, names_of("127.0.0.1")), ACT % {"frames": frames, "rounds": rounds}, told, came)
    stop, ready, urls = Stop(), threading.Event(), list[str]()
    options = {"limits": Limits(), "threads": 12, "stop": stop}

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    listening = Listening("127.0.0.1", 0)
    server = threading.Thread(target=lambda: serve_on("waitress", app, Idle(), listening, on_ready=on_ready, **options))
    server.start()
    ready.wait(30)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
    more = [f"--user-data-dir={profile}", "--window-size=1280,900", f"{urls[0]}/"]
    try:
        name = results[0].name
        answers = answer_times(f"{urls[0]}/slides/{name}", results[0].width_px)
        with subprocess.Popen([browser, *flags, *more], stderr=subprocess.DEVNULL) as shown:
            arrived = came.wait(TIMEOUT_S)
            shown.terminate()
    finally:
        stop.set()
        server.join(30)
        shelf.close()
    if not arrived or "failed" in told:
        raise SystemExit(f"the page told nothing: {told.get('failed', 'it took too long')}")
    return {**told, "answers_ms": answers}


class Idle:
    """What the runner asks at the end."""

    def begin_drain(self) -> None: ...

    def drain(self, timeout_s: float) -> bool:  # noqa: ARG002
        return True


def with_act(app: Callable[..., Any], act: str, told: dict[str, Any], came: threading.Event) -> Callable[..., Any]:
    """The viewer, and a script on its page that moves it and tells what it saw."""

    def wrapped(environ: Any, start: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        if path == "/act.js":
            start("200 OK", [("Content-Type", "text/javascript")])
            return [act.encode()]
        if path == "/told":
            told.update(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
            came.set()
            start("200 OK", [("Content-Type", "text/plain")])
            return [b""]
        body = b"".join(app(environ, start_later := Later()))
        body = body.replace(b"</head>", b'<script src="act.js" type="module"></script></head>') if path == "/" else body
        start(start_later.status, [item for item in start_later.headers if item[0] != "Content-Length"])
        return [body]

    return wrapped


class Later:
    """Takes what an application says of its answer."""

    status = ""
    headers: list[tuple[str, str]]

    def __call__(self, status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
        self.status, self.headers = status, headers


def answer_times(url: str, side: int) -> dict[str, float]:
    """Medians of what a request for the detections of a view takes, whole and as the page asks."""
    with urllib.request.urlopen(url, timeout=60) as reply:
        json.load(reply)
    rng = np.random.default_rng(1)

    def timed(path: str, width: float, height: float) -> float:
        times = []
        for _ in range(15):
            x, y = rng.uniform(0, max(1, side - width)), rng.uniform(0, max(1, side - height))
            begun = time.perf_counter()
            view = f"x0={x:.0f}&y0={y:.0f}&x1={x + width:.0f}&y1={y + height:.0f}"
            with urllib.request.urlopen(f"{url}/{path}{view}", timeout=60) as reply:
                reply.read()
            times.append(1000 * (time.perf_counter() - begun))
        return round(median(times), 2)

    return {
        "boxes, close": timed("detections?", 1700, 1400),
        "boxes, 20,000 of them": timed("detections?", 9000, 7000),
        "density of the whole slide": timed("density.png?bin=64&", side, side),
        "counts of the whole slide": timed("counts?", side, side),
    }


def summary(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each phase, with boxes and without, medians over the rounds."""
    rows = []
    for phase in dict.fromkeys(one["phase"] for one in told):
        for boxes in (True, False):
            rounds = [one for one in told if one["phase"] == phase and one["boxes"] is boxes]
            frames = [np.array(one["intervals_ms"]) for one in rounds]
            rows.append(
                {
                    "phase": phase,
                    "boxes": boxes,
                    "p50_ms": median(float(np.quantile(one, 0.5)) for one in frames),
                    "p95_ms": median(float(np.quantile(one, 0.95)) for one in frames),
                    "worst_ms": median(float(one.max()) for one in frames),
                    "drawing_p50_ms": median(median(one["drawing_ms"]) for one in rounds),
                    "most_boxes": max(one["most_boxes"] for one in rounds),
                }
            )
    return rows


def report(document: dict[str, Any]) -> int:
    print(f"{document['boxes']:,} boxes; time between frames, ms (medians over the rounds)")
    print(f"{'':34}{'boxes':>8}{'p50':>8}{'p95':>8}{'worst':>8}{'drawing':>9}")
    for row in document["phases"]:
        boxes = f"{row['most_boxes']:,}" if row["boxes"] else "none"
        numbers = "".join(f"{row[name]:8.1f}" for name in ("p50_ms", "p95_ms", "worst_ms"))
        print(f"{row['phase']:34}{boxes:>8}{numbers}{row['drawing_p50_ms']:9.2f}")
    for name, value in document["answers_ms"].items():
        print(f"the server's answer, {name}: {value} ms")
    slow = [row["phase"] for row in document["phases"] if row["boxes"] and row["p95_ms"] > LIMIT_MS]
    if slow:
        print(f"above {LIMIT_MS:g} ms: {', '.join(slow)}")
    return int(bool(slow))


if __name__ == "__main__":
    raise SystemExit(main())
