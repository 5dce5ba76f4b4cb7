"""CPU and memory limits are read from cgroup v2 and v1."""

import os

import pytest

from finetune_trainer.computing.limits import cpu_threads, free_memory, memory_limit

CPUS = len(os.sched_getaffinity(0))


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("files", "environment", "threads"),
    [
        pytest.param({}, {}, CPUS, id="no cgroup"),
        pytest.param({"cpu.max": "max 100000"}, {}, CPUS, id="v2 without limit"),
        pytest.param({"cpu.max": "100000 100000"}, {}, 1, id="v2, one CPU"),
        pytest.param({"cpu.max": "20000 100000"}, {}, 1, id="v2, a fifth of a CPU"),
        pytest.param({"cpu.max": "150000 100000"}, {}, min(2, CPUS), id="v2, one and a half"),
        pytest.param({"cpu.max": "9900000 100000"}, {}, CPUS, id="v2, more than there are"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, {}, CPUS, id="v1 without limit"
        ),
        pytest.param({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, {}, 1, id="v1, half a CPU"),
        pytest.param({"cpu.max": "100000 100000"}, {"OMP_NUM_THREADS": "7"}, 7, id="chosen by an admin"),
        pytest.param({"cpu.max": "100000 100000"}, {"OMP_NUM_THREADS": "4,2"}, 1, id="a list for nested loops"),
    ],
)
def test_threads_follow_the_cpu_quota(tmp_path, files, environment, threads):
    write(tmp_path, files)
    assert cpu_threads(tmp_path, environment) == threads


@pytest.mark.parametrize(
    ("files", "free"),
    [
        pytest.param({}, 8 << 30, id="no cgroup"),
        pytest.param({"memory.max": "max", "memory.current": 5 << 30}, 8 << 30, id="v2 without limit"),
        pytest.param({"memory.max": 4 << 30, "memory.current": 1 << 30}, 3 << 30, id="v2"),
        pytest.param({"memory.max": 64 << 30, "memory.current": 1 << 30}, 8 << 30, id="v2, more than the machine has"),
        pytest.param({"memory.max": 1 << 30, "memory.current": 2 << 30}, 0, id="v2, over its limit"),
        pytest.param(
            {"memory/memory.limit_in_bytes": 4 << 30, "memory/memory.usage_in_bytes": 1 << 30}, 3 << 30, id="v1"
        ),
        pytest.param({"memory/memory.limit_in_bytes": 9223372036854771712}, 8 << 30, id="v1 without limit"),
        pytest.param(
            {
                "memory.max": 4 << 30,
                "memory.current": 3 << 30,
                "memory.stat": f"anon 5\nactive_file {1 << 30}\ninactive_file {1 << 30}",
            },
            3 << 30,
            id="v2, files in the cache",
        ),
        pytest.param(
            {
                "memory/memory.limit_in_bytes": 4 << 30,
                "memory/memory.usage_in_bytes": 3 << 30,
                "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {2 << 30}",
            },
            3 << 30,
            id="v1, files in the cache",
        ),
    ],
)
def test_free_memory_is_what_machine_and_limit_leave(tmp_path, files, free):
    write(tmp_path, files)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable:   {8 << 20} kB\n")
    assert free_memory(tmp_path, meminfo) == free


@pytest.mark.parametrize(
    ("files", "most"),
    [
        pytest.param({}, 12 << 30, id="no cgroup"),
        pytest.param({"memory.max": "max"}, 12 << 30, id="v2 without limit"),
        pytest.param({"memory.max": 4 << 30, "memory.swap.max": 0}, 4 << 30, id="v2"),
        pytest.param({"memory.max": 4 << 30, "memory.swap.max": 1 << 30}, 5 << 30, id="v2, with some swap"),
        pytest.param({"memory.max": 4 << 30, "memory.swap.max": "max"}, 6 << 30, id="v2, with all swap"),
        pytest.param({"memory.max": 64 << 30, "memory.swap.max": 0}, 12 << 30, id="v2, more than the machine has"),
    ],
)
def test_nothing_exceeds_what_limit_machine_and_swap_allow(tmp_path, files, most):
    write(tmp_path, files)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {10 << 20} kB\nSwapTotal:   {2 << 20} kB\n")
    assert memory_limit(tmp_path, meminfo) == most


def test_where_nothing_is_told_there_is_no_limit(tmp_path):
    assert memory_limit(tmp_path, tmp_path / "meminfo") is None
