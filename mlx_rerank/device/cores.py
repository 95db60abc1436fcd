"""How many cores this process may use: its share, where several processes divide a machine.

What starts workers tells them their share in one of several ways: by affinity (taskset, a job scheduler), by a quota of
their control group (containers), or by the variables that numeric libraries read (joblib, PyTorch's launcher, Ray). The
least of them holds.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_GROUPS, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores() -> int:
    """Return how many cores this process may use, at least 1."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([available, *_of_variables(), *_of_groups()])))


def _of_variables() -> Iterator[int]:
    """Yield what the environment says; what is no number says nothing, as to the libraries."""
    for name in VARIABLES:
        with suppress(ValueError):
            number = int(os.environ.get(name, "").partition(",")[0])  # of nested levels, the outermost
            if number > 0:
                yield number


def _of_groups() -> Iterator[float]:
    """Yield the cores that a quota of the control group, or of one that it is in, is worth."""
    with suppress(OSError, ValueError):
        for line in _GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            group = _MOUNT / controllers / path.lstrip("/")  # which a container may not see, but then those above it
            for place in (group, *group.parents):
                if place.is_relative_to(_MOUNT):
                    yield _quota(place)


def _quota(group: Path) -> float:
    """Return the cores that a group's quota is worth, of either version of control groups; infinite without one."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:  # "max" and -1 mean that there is none
            return int(quota) / int(period)
    return math.inf
