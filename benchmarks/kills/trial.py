"""A trial: who is killed, how, and when; all of it drawn from one number, so that it can be tried again alone."""

import random
import signal
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

Victim = Literal["flow", "child", "rank", "worker", "mlflow", "prefect", "s3"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
PAIRS: tuple[tuple[Victim, signal.Signals], ...] = tuple(product(VICTIMS, SIGNALS))
STEPS = ("prepare", "split", "reference", "score", "partition", "forget", "evaluate", "report")
"""Kinds of steps in an order in which inputs come first."""
FIRST_STEPS = {"prepare": 1, "reference": 2, "score": 2, "forget": 4, "evaluate": 1}
"""Where a run begins, what comes before being in the store, and how often: most begin late, which is quicker."""
POOL_SHARE = 0.2
"""Of the runs that could be either, those that a worker runs."""
WRITE_SHARE = 0.6
"""Of the runs whose writes can be watched, those that are disturbed in the middle of one."""
LATEST = 0.9
"""Of what an undisturbed run takes, as no two take the same."""
LONGEST_PAUSE = 6.0
LONGEST_DELAY = 1.5


@dataclass(frozen=True)
class Trial:
    """One kill."""

    seed: int
    victim: Victim
    signal: signal.Signals
    on_pool: bool
    """Whether a worker runs the flow; else `forgetting run` does."""
    first_step: str
    moment: float
    """Share of the undisturbed run's time, or of its writes to the store, that comes before."""
    at_write: bool
    """Whether it is in the middle of a write to the store."""
    answered: bool
    """Whether the store has done that write already, and only has not said so."""
    pause: float
    """Seconds until a server that was killed is started again."""
    delay: float
    """Seconds for which a process may live that was not there yet at the moment."""

    @property
    def ranks(self) -> int:
        """In how many processes fine-tunes are computed; weights depend on it."""
        return 2 if self.victim == "rank" else 1

    def __str__(self) -> str:
        how = "on the pool" if self.on_pool else "by command"
        what = f"write{', done' if self.answered else ''}" if self.at_write else "time"
        begins = f"{how}, from {self.first_step} on"
        return f"seed {self.seed}: {self.victim} {self.signal.name}, {begins}, at {self.moment:.2f} of its {what}"


def draw(seed: int) -> Trial:
    """The trial of a number: victims and signals take turns, the rest is drawn."""
    # every victim comes once, with either signal, before any comes again
    turn, number = divmod(seed, len(VICTIMS))
    victim, chosen = VICTIMS[number], SIGNALS[(turn + number) % 2]
    random_ = random.Random(seed)
    on_pool = victim == "worker" or (victim != "rank" and random_.random() < POOL_SHARE)
    return Trial(
        seed=seed,
        victim=victim,
        signal=chosen,
        on_pool=on_pool,
        first_step="forget" if victim == "rank" else random_.choices(*zip(*FIRST_STEPS.items(), strict=True))[0],
        moment=LATEST * random_.random(),
        at_write=not on_pool and random_.random() < WRITE_SHARE,
        answered=random_.random() < 0.5,
        pause=LONGEST_PAUSE * random_.random(),
        delay=LONGEST_DELAY * random_.random(),
    )
