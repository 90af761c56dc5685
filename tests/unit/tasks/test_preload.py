"""What a step's process has before it computes anything."""

import gc
import sys
from typing import Any

from forgetting_core.preload import LIBRARIES
from infra.launch import Channel, Launcher
from tasks.context import PRELOAD

STANDING_OBJECTS = 100_000


def say_what_is_there(job: object, channel: Channel) -> dict[str, Any]:
    gc.collect()
    return {
        "missing": [name for name in LIBRARIES if name not in sys.modules],
        "frozen": gc.get_freeze_count(),
        "collects": gc.isenabled(),
    }


def test_a_step_begins_with_the_libraries_imported_and_left_alone_by_the_garbage_collector() -> None:
    found = Launcher(1, PRELOAD).run(say_what_is_there, None, lambda message: None)
    assert found["missing"] == []
    assert found["frozen"] > STANDING_OBJECTS
    assert found["collects"]
