"""What a process frees it keeps, so that the kernel clears no page twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")

_RUN = """
import resource, sys
import numpy as np
from fer.training.allocator import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    print("none such")
    sys.exit()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

np.ones(40 << 20, np.uint8)
before = faults()
for _ in range(10):
    array = np.ones(40 << 20, np.uint8)
    del array
print(faults() - before)
"""


def test_freed_arrays_are_used_again(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    found = {how: python(_RUN, how).stdout.strip() for how in ("returned", "kept")}
    if found["kept"] == "none such":
        pytest.skip("this C library has no mallopt")
    # Huge pages would make fewer of them: 2 MB each instead of 4 kB.
    assert int(found["returned"]) > 10 * 10, "else there is nothing to gain here"
    assert int(found["kept"]) < int(found["returned"]) / 5
