"""Many small computations, one processor each."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import sklearn
import torch
from threadpoolctl import threadpool_limits

from pipeline.core.ending import STOPPING, end_with_parent
from pipeline.core.errors import UserError

_job: Callable[[int], Any] | None = None


def in_processes(job: Callable[[int], Any], count: int) -> Iterator[Any]:
    """job(0), job(1), ... job(count - 1), in order, made by as many processes as there are processors.

    The processes are forks, so that they share what `job` refers to. Each uses one thread, so results do not depend on
    the number of processors. They end when the caller stops asking, and when this process dies. Without forks
    (Windows) everything runs here.

    Raises: UserError when a process is killed.
    """
    global _job
    _job = job
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    try:
        if "fork" in multiprocessing.get_all_start_methods() and processors > 1 and count > 1:
            yield from _in_pool(min(processors, count), count)
        else:
            torch.set_num_threads(1)
            for number in range(count):
                with threadpool_limits(1):
                    result = _run(number)
                yield result
    except BrokenProcessPool:
        raise UserError("a process that fitted probes was killed: if memory ran out, use fewer prompts") from None
    finally:
        torch.set_num_threads(threads)
        _job = None


def _in_pool(processes: int, count: int) -> Iterator[Any]:
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _start, (os.getpid(),)) as pool:
        # signals wait until the new processes, which are all made here, know what to do with them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            jobs = deque(pool.submit(_run, number) for number in range(count))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            while jobs:
                yield jobs.popleft().result()
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise


def _start(parent: int) -> None:
    for number in STOPPING:  # a process that is told to end says nothing: its parent does
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    end_with_parent(parent)
    torch.set_num_threads(1)
    threadpool_limits(1)


def _run(number: int) -> Any:
    assert _job is not None
    # checks of features in each of thousands of small fits take as long as the fits
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        return _job(number)
