"""Freed memory is kept, by every thread of a process that was told so in time."""

import os
import subprocess
import sys

import pytest

from mmdata.heap import ENVIRONMENT

MB, ROUNDS = 70, 10  # one activation of a batch; larger than what the arena of a thread of its own can hold
PAGES = MB << 8
PROGRAM = f"""
import ctypes, resource, sys, threading
from mmdata.heap import keep_freed_memory
if "said" in sys.argv:
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def use():
    for _ in range({ROUNDS}):
        memory = libc.malloc({MB} << 20)
        libc.memset(memory, 1, {MB} << 20)
        libc.free(memory)
threads = [threading.Thread(target=use) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def page_faults(*words: str, **environment: str) -> int:
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_two_threads_free_is_not_given_back_to_the_kernel() -> None:
    most = 3 * PAGES  # each thread's memory once, and Python
    assert page_faults("said") < most
    assert page_faults(**ENVIRONMENT) < most
    assert page_faults() > 2 * PAGES * (ROUNDS - 1)  # what it costs otherwise
