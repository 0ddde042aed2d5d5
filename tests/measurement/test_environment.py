import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from redline.core.plain import from_plain, to_line
from redline.measurement.disturbance import steal_share
from redline.measurement.environment import (
    Environment,
    comparable,
    fingerprint,
    judge_noise,
    noise_check,
    usable_cores,
)
from redline.measurement.limits import container_limits

EPYC = """processor : 0
model name : AMD EPYC 9B14
cpu MHz : 2596.1
flags : fpu sse2 avx2 avx512f avx512_vnni avx512_bf16 hypervisor

processor : 1
model name : AMD EPYC 9B14
"""
GRAVITON = """processor : 0
Features : fp asimd asimddp i8mm bf16 fphp
CPU part : 0xd40
"""


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("·", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_this_machine_and_back_through_json():
    here = fingerprint(noise=judge_noise(0.02, 0.0))
    value = json.loads(to_line(here))
    assert from_plain(Environment, value, where="here") == here
    assert comparable(here, from_plain(Environment, value, where="here")) == []
    assert here.cores_available >= 1
    assert here.memory_bytes > 1 << 28
    assert {"numpy", "redline"} <= set(here.versions)


def test_x86_virtual_machine(tmp_path: Path):
    root = tree(
        tmp_path,
        proc__cpuinfo=EPYC,
        sys__class__dmi__id__sys_vendor="Google",
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="powersave",
        sys__devices__system__cpu__intel_pstate__no_turbo="1",
    )
    tree(root, **{"etc__os-release": 'NAME="x"\nPRETTY_NAME="Debian 13"'})
    found = fingerprint(root=root)
    assert found.cpu == "AMD EPYC 9B14"
    assert found.flags == ("avx2", "avx512_bf16", "avx512_vnni", "avx512f")
    assert (found.hypervisor, found.governor, found.turbo) == ("Google", "powersave", False)
    assert found.frequency_hz == 2_596_100_000
    assert found.os == "Debian 13"


def test_arm_and_a_system_without_proc(tmp_path: Path):
    arm = fingerprint(root=tree(tmp_path / "arm", proc__cpuinfo=GRAVITON))
    assert arm.flags == ("asimd", "asimddp", "bf16", "fphp", "i8mm")
    mac = fingerprint(root=tmp_path / "nothing")
    assert mac.flags == ()
    assert mac.cpu
    assert mac.container_cpu_limit is None


def test_limits_of_control_groups_version_2(tmp_path: Path):
    root = tree(
        tmp_path,
        proc__self__cgroup="0::/a/b",
        sys__fs__cgroup__a__cpu·max="150000 100000",
        sys__fs__cgroup__a__b__cpu·max="max 100000",
        sys__fs__cgroup__a__b__memory·max="1073741824",
    )
    limits = container_limits(root)
    assert (limits.cpus, limits.memory_bytes) == (1.5, 1 << 30)
    assert usable_cores(replace(fingerprint(root=root), cores_available=8)) == 2


def test_limits_of_version_1_with_the_hosts_path(tmp_path: Path):
    root = tree(
        tmp_path,
        proc__self__cgroup="4:memory:/docker/0123\n1:cpu,cpuacct:/docker/0123",
        sys__fs__cgroup__cpu__cpu·cfs_quota_us="50000",
        sys__fs__cgroup__cpu__cpu·cfs_period_us="100000",
        sys__fs__cgroup__memory__memory·limit_in_bytes="9223372036854771712",
    )
    limits = container_limits(root)
    assert (limits.cpus, limits.memory_bytes) == (0.5, None)


@pytest.mark.parametrize("text", ["", "nonsense", "max 100000", "-1 100000", "100 0"])
def test_limits_that_are_none(tmp_path: Path, text: str):
    assert container_limits(tree(tmp_path, sys__fs__cgroup__cpu·max=text)).cpus is None


def test_another_machine_or_version_is_not_comparable():
    here = fingerprint()
    other = replace(here, cpu="Z80", versions={**here.versions, "onnxruntime": "0.1"}, load_average=(9.0, 9.0, 9.0))
    reasons = comparable(here, other)
    assert len(reasons) == 2
    assert reasons[0].endswith("is Z80")
    assert "onnxruntime" in reasons[1]
    assert "not installed" in comparable(here, replace(here, versions={}))[0]
    assert "OMP_NUM_THREADS" in comparable(here, replace(here, variables={"OMP_NUM_THREADS": "77"}))[0]


def test_noise_with_a_fake_clock():
    steady = noise_check(clock=itertools.count(0, 0.001).__next__, duration_s=0.5, cpu_times=lambda: None)
    assert (steady.spread, steady.steal, steady.noisy, steady.warning) == (0, None, False, None)
    steps = itertools.cycle([0.001, 0.001, 0.005])
    uneven = noise_check(clock=itertools.accumulate(steps).__next__, duration_s=0.5, cpu_times=lambda: None)
    assert uneven.noisy
    assert "noisy machine" in str(uneven.warning)


def test_steal():
    before = "cpu  100 0 0 900 0 0 0 0 0 0\ncpu0 1"
    assert steal_share(before, "cpu  150 0 0 940 0 0 0 10 0 0") == 0.1
    assert steal_share(before, before) is None
    assert steal_share(None, before) is None
    assert "hypervisor took 10.0 %" in str(judge_noise(0.0, 0.1).warning)
