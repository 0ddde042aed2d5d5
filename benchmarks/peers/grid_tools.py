"""The benchmark tools beside `redline bench`: how each is called for one cell, and how its report is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from peers.reports import (
    Report,
    read_optimum,
    read_polygraphy,
    read_profile,
    read_torch_timer,
    read_yolo_benchmark,
)

HERE = Path(__file__).resolve().parent
SIZE_PX = 224
WARM_UP_CALLS = 10
SAME = "the same file"
SAME_WEIGHTS = "the same weights as a Hub-style folder"
OTHER_HEAD = "ResNet-18 in Ultralytics' classifier: another head, weights at random"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run is given.

    Attributes:
        work: Holds ``resnet18.onnx``, ``resnet18-b8.onnx``, ``hub/`` and ``images/``.
        folder: Its own, and where it runs.
        python: The interpreter of the tool's environment.
        seconds: What a tool that takes a duration is told.
    """

    work: Path
    folder: Path
    python: Path
    batch: int
    seconds: float

    def program(self, name: str) -> str:
        """A command that lies beside the interpreter."""
        return str(self.python.with_name(name))


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line with the variables that it needs."""

    words: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One way to ask one tool about one runtime.

    Attributes:
        environment: Whose interpreter runs it: an option of ``grid_peers.py``.
        read: Makes a report of what it printed and of its folder.
    """

    name: str
    how: str
    runtime: str
    model: str
    environment: str
    command: Callable[[Job], Command]
    read: Callable[[str, Job], Report]
    batches: tuple[int, ...] = (1, 8)
    limit_s: float = 240.0


def _optimum(job: Job, backend: str, options: str) -> Command:
    config = f"""defaults: [benchmark, {{launcher: process}}, {{backend: {backend}}}, {{scenario: inference}}, _self_]
name: cell
launcher: {{start_method: spawn}}
backend:
  device: cpu
  model: {job.work / "hub"}
  library: transformers
  task: image-classification
  {options}
scenario:
  memory: true
  latency: true
  warmup_runs: {WARM_UP_CALLS}
  iterations: 10
  duration: {job.seconds:.0f}
  input_shapes: {{batch_size: {job.batch}, num_channels: 3, height: {SIZE_PX}, width: {SIZE_PX}}}
hydra: {{run: {{dir: "."}}, job: {{chdir: true}}}}
"""
    job.folder.joinpath("cell.yaml").write_text(config, encoding="utf-8")
    words = (job.program("optimum-benchmark"), "--config-dir", ".", "--config-name", "cell")
    return Command(words=words, variables={"HF_HUB_OFFLINE": "1", "OVERRIDE_BENCHMARKS": "1"})


def optimum_torch(job: Job) -> Command:
    return _optimum(job, "pytorch", "intra_op_num_threads: 1\n  inter_op_num_threads: 1")


def optimum_onnxruntime(job: Job) -> Command:
    return _optimum(job, "onnxruntime", "export: true\n  session_options: {intra_op_num_threads: 1}")


def optimum_restored(job: Job) -> Command:
    command = optimum_onnxruntime(job)
    return Command(words=command.words, variables={**command.variables, "PYTHONPATH": str(HERE / "restored_tasks")})


def optimum_report(_: str, job: Job) -> Report:
    document = json.loads((job.folder / "benchmark_report.json").read_text(encoding="utf-8"))
    return read_optimum(document, warm_up_calls=WARM_UP_CALLS, threads="1, by its config")


def polygraphy(job: Job) -> Command:
    calls = max(20, int(job.seconds * 20 / job.batch))
    more = ("--sequential-runners", "--warm-up", str(WARM_UP_CALLS), "--iterations", str(calls))
    return _polygraphy(job, more)


def polygraphy_bare(job: Job) -> Command:
    return _polygraphy(job, ("--iterations", "20"))


def _polygraphy(job: Job, more: tuple[str, ...]) -> Command:
    # It has no option for threads and takes as many as it may run on; its own folder keeps the command short.
    shape = f"x:[{job.batch},3,{SIZE_PX},{SIZE_PX}]"
    model = str(job.work / "resnet18.onnx")
    return Command(
        words=("taskset", "-c", "0", job.program("polygraphy"), "run", model, "--onnxrt", "--input-shapes", shape,
               *more)
    )  # fmt: skip


def polygraphy_report(text: str, _: Job) -> Report:
    return read_polygraphy(text, threads="1, by affinity")


def profile(job: Job) -> Command:
    file = "resnet18.onnx" if job.batch == 1 else f"resnet18-b{job.batch}.onnx"
    return _ultralytics(job, "profile", str(job.work / file), "--seconds", f"{job.seconds:.0f}")


def profile_held(job: Job) -> Command:
    return _more(profile(job), "--threads", "1")


def yolo_torch(job: Job) -> Command:
    return _ultralytics(job, "benchmark", "--format", "-", "--data", str(job.work / "images"))


def yolo_torch_held(job: Job) -> Command:
    return _more(yolo_torch(job), "--threads", "1")


def yolo_onnx(job: Job) -> Command:
    return _ultralytics(job, "benchmark", "--format", "onnx", "--data", str(job.work / "images"))


def yolo_onnx_held(job: Job) -> Command:
    return _more(yolo_onnx(job), "--threads", "1")


def _more(command: Command, *words: str) -> Command:
    return Command(words=(*command.words, *words), variables=command.variables)


def _ultralytics(job: Job, what: str, *words: str) -> Command:
    script = str(HERE / "timed_ultralytics.py")
    return Command(
        words=(str(job.python), "-W", "ignore", script, what, *words, "--size", str(SIZE_PX)),
        variables={"YOLO_CONFIG_DIR": str(job.work / "yolo")},
    )


def timer_torch(job: Job) -> Command:
    return _timer(job, "resnet18")


def timer_onnxruntime(job: Job) -> Command:
    return _timer(job, str(job.work / "resnet18.onnx"))


def _timer(job: Job, model: str) -> Command:
    words = ("--batch", str(job.batch), "--size", str(SIZE_PX), "--seconds", f"{job.seconds:.0f}")
    return Command(words=(str(job.python), str(HERE / "timed_torch.py"), model, *words))


TORCH, ORT = "PyTorch eager", "ONNX Runtime"
AS_IT_COMES, HELD = "as it comes", "held to 1 thread"

# fmt: off
TOOLS = (
    Tool(name="torch.utils.benchmark", how="blocked_autorange", runtime=TORCH, model=SAME, environment="torch",
         command=timer_torch, read=lambda text, _: read_torch_timer(text)),
    Tool(name="torch.utils.benchmark", how="blocked_autorange around a bare session", runtime=ORT, model=SAME,
         environment="torch", command=timer_onnxruntime, read=lambda text, _: read_torch_timer(text)),
    Tool(name="optimum-benchmark", how="process launcher", runtime=TORCH, model=SAME_WEIGHTS,
         environment="optimum_benchmark", command=optimum_torch, read=optimum_report),
    Tool(name="optimum-benchmark", how="process launcher", runtime=ORT, model=SAME_WEIGHTS, batches=(1,),
         environment="optimum_benchmark", command=optimum_onnxruntime, read=optimum_report),
    Tool(name="optimum-benchmark", how="process launcher, one missing name put back", runtime=ORT, model=SAME_WEIGHTS,
         environment="optimum_benchmark", command=optimum_restored, read=optimum_report),
    Tool(name="polygraphy run", how=AS_IT_COMES, runtime=ORT, model=SAME, batches=(1,), environment="polygraphy",
         command=polygraphy_bare, read=polygraphy_report),
    Tool(name="polygraphy run", how="--sequential-runners --warm-up", runtime=ORT, model=SAME,
         environment="polygraphy", command=polygraphy, read=polygraphy_report),
    Tool(name="ultralytics ProfileModels", how=AS_IT_COMES, runtime=ORT, model=SAME, batches=(1,),
         environment="ultralytics", command=profile, read=lambda text, _: read_profile(text)),
    Tool(name="ultralytics ProfileModels", how=HELD, runtime=ORT, model=SAME,
         environment="ultralytics", command=profile_held, read=lambda text, _: read_profile(text)),
    Tool(name="ultralytics benchmark", how=AS_IT_COMES, runtime=TORCH, model=OTHER_HEAD, batches=(1,),
         environment="ultralytics", command=yolo_torch, read=lambda text, _: read_yolo_benchmark(text)),
    Tool(name="ultralytics benchmark", how=AS_IT_COMES, runtime=ORT, model=OTHER_HEAD, batches=(1,),
         environment="ultralytics", command=yolo_onnx, read=lambda text, _: read_yolo_benchmark(text)),
    Tool(name="ultralytics benchmark", how=HELD, runtime=TORCH, model=OTHER_HEAD, batches=(1,),
         environment="ultralytics", command=yolo_torch_held, read=lambda text, _: read_yolo_benchmark(text)),
    Tool(name="ultralytics benchmark", how=HELD, runtime=ORT, model=OTHER_HEAD, batches=(1,),
         environment="ultralytics", command=yolo_onnx_held, read=lambda text, _: read_yolo_benchmark(text)),
)
# fmt: on

#: What is installed in each environment and bears on a number.
PACKAGES = {
    "torch": ("torch", "onnxruntime", "numpy"),
    "optimum_benchmark": ("optimum-benchmark", "optimum", "optimum-onnx", "transformers", "torch", "onnxruntime"),
    "polygraphy": ("polygraphy", "onnxruntime", "numpy"),
    "ultralytics": ("ultralytics", "torch", "onnxruntime"),
}
