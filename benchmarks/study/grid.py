"""What the study runs: one recipe with which overrides, in which order, and what each trained model stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

RECIPE = "study"
TASK, METRIC = "skills", "exact_match"
SEEDS = (1, 2, 3, 4, 5)
NOISES = ("0.3", "0.5", "0.1", "0")
"""Shares of the response tokens, the most telling first: an interrupted study has those."""
RHOS = ("0.7", "0.5", "0.9", "0.3")
"""Likewise."""
CLEAN, NOISY = "clean", "noisy"
"""The reference data: without noise, or as noisy as the training data."""
TINY = (
    "synthetic.train_rows=160",
    "synthetic.reference_rows=48",
    "synthetic.test_rows=24",
    "synthetic.hidden_size=32",
    "synthetic.heads=2",
    "synthetic.pretrain.rows=400",
    "synthetic.pretrain.steps=30",
)
"""Shrinks a run to seconds; its numbers mean nothing."""


@dataclass(frozen=True)
class Arm:
    """A way to get a model, and what its result depends on beside the seed and the noise."""

    name: str
    on_reference: bool = False
    on_rho: bool = False


@dataclass(frozen=True)
class Kind:
    """Fine-tunes that one run of the recipe makes together."""

    name: str
    arms: Mapping[str, Arm]
    """By the name that the recipe has for the model."""
    overrides: tuple[str, ...] = ()


_IGNORE = "forget.objective=ignore"
PUBLISHED = Kind(
    "published",
    {
        "base": Arm("base"),
        "reference": Arm("reference", on_reference=True),
        "sft": Arm("sft"),
        "ignore": Arm("ignore", on_reference=True, on_rho=True),
        "npo": Arm("npo", on_reference=True, on_rho=True),
        "forget": Arm("forget, t_max 0.25", on_reference=True, on_rho=True),
    },
)
GENTLE = Kind(
    "gentle",
    {"forget": Arm("forget, t_max 0.03", on_reference=True, on_rho=True)},
    ("forget.lambda.t_max=0.03", "baselines=[]"),
)
CONTROLS = Kind(
    "controls",
    {
        "forget": Arm("ignore, labels by base loss", on_rho=True),
        "random": Arm("ignore, random labels", on_rho=True),
    },
    (_IGNORE, "partition.labelling=loss_only", "baselines=[random]"),
)
ORACLE = Kind(
    "oracle",
    {"forget": Arm("ignore, true noise labels")},
    (_IGNORE, "partition.labelling=oracle_noise", "baselines=[]"),
)
KINDS = (PUBLISHED, GENTLE, CONTROLS, ORACLE)
ARMS = tuple(arm for kind in KINDS for arm in kind.arms.values())
FORGETTING = ("forget, t_max 0.25", "forget, t_max 0.03", "npo")
"""The arms that push negative tokens away."""


@dataclass(frozen=True)
class Run:
    """One run of the recipe."""

    seed: int
    noise: str
    reference: str
    """`CLEAN` or `NOISY`."""
    rho: str
    kind: Kind
    tiny: bool = False

    @property
    def name(self) -> str:
        """Of its record, and of its flow run."""
        return f"{self.kind.name}-noise{self.noise}-{self.reference}-rho{self.rho}-seed{self.seed}"

    @property
    def overrides(self) -> list[str]:
        """Of the recipe. The seed changes corpus, base model, split, order of training and random labels."""
        seeded = ("synthetic", "split", "reference", "partition", "forget")
        return [
            *(f"{section}.seed={self.seed}" for section in seeded),
            f"synthetic.noise={self.noise}",
            f"synthetic.reference_noise={self.noise if self.reference == NOISY else 0}",
            f'partition.rho="{self.rho}"',
            *self.kind.overrides,
            *(TINY if self.tiny else ()),
        ]


def full_grid(seeds: Sequence[int] = SEEDS) -> list[Run]:
    """Every run of the study, the most telling first; each seed has the same."""
    runs = [
        Run(seed, noise, reference, rho, kind)
        for rho, noise, kind, reference, seed in product(RHOS, NOISES, KINDS, (CLEAN, NOISY), seeds)
        if _is_of_its_own(noise, kind, reference, rho)
    ]
    assert len({run.name for run in runs}) == len(runs)
    return runs


def quick_grid() -> list[Run]:
    """Two runs of a tiny model, to see the machinery work."""
    return [Run(1, "0.3", CLEAN, "0.7", kind, tiny=True) for kind in (PUBLISHED, GENTLE)]


def _is_of_its_own(noise: str, kind: Kind, reference: str, rho: str) -> bool:
    """Not what another run of the grid does under another name."""
    arms = kind.arms.values()
    if reference == NOISY and (noise == "0" or not any(arm.on_reference for arm in arms)):
        return False
    if kind == ORACLE and noise == "0":
        return False
    return rho == RHOS[0] or any(arm.on_rho for arm in arms)
