"""A step cut into shards: each is computed and committed on its own, by whichever run gets its lease.

So several workers that run the same recipe share the work, a host computes as many at a time as it has slots, and a
lost worker costs one shard. The step itself then only puts them together, and is the same for any number of them.
"""

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

from infra.launch import StoppedError
from tasks.context import RunContext
from tasks.spec import StepCall, StepResult

SHARDS_INPUT = "shards"
"""Input of the step that puts the shards together; not part of its identity."""


def compute_shards(
    context: RunContext,
    shards: list[StepCall],
    run: Callable[[StepCall], StepResult],
    leased: Callable[[StepCall], bool],
) -> tuple[Path, ...]:
    """Local copies of the artifacts of `shards`, in their order; `run` computes those that are not in the store.

    What another run is at work on is left for later: that run may be done by then. Raises what `run` raises.
    """

    results: dict[str, StepResult] = {}
    waiting: SimpleQueue[StepCall] = SimpleQueue()

    def take(last_round: bool) -> None:
        while not context.launcher.stopping.is_set():
            try:
                call = waiting.get_nowait()
            except Empty:
                return
            if last_round or not leased(call):
                results[call.label] = run(call)

    workers = context.execution.concurrent_steps
    for last_round in (False, True):
        for call in shards:
            if call.label not in results:
                waiting.put(call)
        with ThreadPoolExecutor(workers) as pool:
            rounds = [
                pool.submit(contextvars.copy_context().run, take, last_round)
                for _ in range(min(workers, waiting.qsize()))
            ]
        for finished in rounds:
            finished.result()
    if len(results) < len(shards):
        raise StoppedError("not finished: the run was asked to stop")
    refs = [results[call.label].ref for call in shards]
    return tuple(context.store.stage(ref.uri, ref.digest, context.staged_dir, context.digests) for ref in refs)
