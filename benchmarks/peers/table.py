"""The peers by name, and how to run one: in its own environment, with a time limit, always ending in a result."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / ".peers"
GRACE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A peer: its script here, and its environment under `.peers/` (None: the project's own)."""

    name: str
    script: str
    environment: str | None = None
    needs_torch: bool = False
    limit_s: float = 360.0

    @property
    def python(self) -> Path:
        """The interpreter that runs it."""
        return Path(sys.executable) if self.environment is None else ENVIRONMENTS / self.environment / "bin" / "python"


PEERS = (
    Peer(name="onnxruntime", script="with_onnxruntime.py"),
    Peer(name="ultralytics-recipe", script="with_ultralytics_recipe.py"),
    Peer(name="experts", script="with_experts.py"),
    Peer(name="olive", script="with_olive.py", environment="olive"),
    Peer(name="optimum", script="with_optimum.py", environment="optimum"),
    Peer(name="torchao", script="with_torchao.py", environment="torchao", needs_torch=True),
    Peer(
        name="model-navigator",
        script="with_model_navigator.py",
        environment="model_navigator",
        needs_torch=True,
        limit_s=200.0,
    ),
)


def run_peer(peer: Peer, *, model: Path, torch: str | None, calibration: Path, out: Path) -> dict[str, Any]:
    """Run one peer and return its `result.json`; a crash, a missing environment or a time-out is a result as well.

    Args:
        peer: one of `PEERS`.
        model: fp32 ONNX file with one input and a dynamic batch.
        torch: the same model for the peers that start from PyTorch, as FILE.py:FACTORY.
        calibration: .npz with x: float32 (samples, 3, height, width), preprocessed.
        out: the peer's folder; its output is kept in `out.txt` there.
    """
    out.mkdir(parents=True, exist_ok=True)
    result = out / "result.json"
    result.unlink(missing_ok=True)
    if not peer.python.exists():
        return _failed(peer, result, f"{peer.python} is missing: run scripts/setup-peers")
    command = [str(peer.python), "-W", "ignore", str(HERE / peer.script), "--model", str(model), "--calibration",
               str(calibration), "--out", str(out), "--limit-s", str(peer.limit_s)]  # fmt: skip
    if peer.needs_torch and torch is not None:
        command += ["--torch", torch]
    code = _run(command, out / "out.txt", peer.limit_s * 4 + GRACE_S)
    if not result.exists():
        why = "did not end in time" if code is None else f"exit {code} before it could write a result"
        return _failed(peer, result, f"{why}; see {out.name}/out.txt")
    document: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return document


def _run(command: list[str], log: Path, limit_s: float) -> int | None:
    """Exit code, or None after `limit_s`. Its whole process group is ended then: peers start processes."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _failed(peer: Peer, result: Path, reason: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "peer": peer.name,
        "version": "unknown",
        "command": peer.script,
        "seconds": 0.0,
        "products": [],
        "attempts": [],
        "failed": reason,
    }
    result.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document
