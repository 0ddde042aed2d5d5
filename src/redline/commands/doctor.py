"""What can run on this machine, and what to type where something cannot."""

from __future__ import annotations

from redline.diagnosis.diagnose import Diagnosis, diagnose


def doctor() -> Diagnosis:
    """Look at the processor and the GPUs, and try every backend and tool in a process of its own."""
    return diagnose()
