"""Who may do what with a store in a bucket: policies with no more rights than each role uses.

```
python -m infra.policies worker s3://bucket/prefix      # prints an IAM policy, for AWS, MinIO, SeaweedFS, Ceph
```

* `reader` looks: `plan`, `explain`, `lineage`, `artifacts ls|show|verify|fetch`. It writes nothing.
* `worker` runs recipes. It cannot remove a commit, its history, a pin, or data of steps that do not train.
* `collector` tidies and pins: `artifacts gc|rm|pin`. It cannot add data.

Raw data and models in other places of S3 need a policy of their own for reading.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from infra.objects import PROBE

TRAINING_STEPS = ("reference", "forget")
"""Their data holds the checkpoints of trainings, which are deleted when newer ones are there."""
_WRITE = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_DELETE = ("s3:DeleteObject",)


@dataclass(frozen=True)
class Role:
    """What of a store a key may write and delete; every role may read and list all of it."""

    writes: tuple[str, ...] = ()
    """Folders below `v1/`."""
    deletes: tuple[str, ...] = ()


ROLES = {
    "reader": Role(),
    "worker": Role(
        writes=("data", "commits", "history", "leases", "runs", "heads", "training", "doctor"),
        deletes=("leases", "training", "doctor", *(f"data/{step}" for step in TRAINING_STEPS)),
    ),
    "collector": Role(
        writes=("commits", "history", "pins"),
        deletes=("data", "commits", "history", "training", "pins"),
    ),
}


def policy(role: str, url: str) -> dict[str, Any]:
    """The IAM policy of a role for the store at `s3://bucket/prefix`. Raises `ValueError` for another URL."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or role not in ROLES:
        raise ValueError(f"{role} {url}: expected one of {', '.join(ROLES)}, and s3://bucket/prefix")
    root = parts.path.strip("/")
    base = f"{root}/v1".lstrip("/")
    bucket = f"arn:aws:s3:::{parts.netloc}"

    def allow(actions: Sequence[str], folders: Sequence[str]) -> dict[str, Any]:
        return {
            "Effect": "Allow",
            "Action": list(actions),
            "Resource": [f"{bucket}/{base}/{folder}/*" for folder in folders],
        }

    listing = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": [bucket],
        "Condition": {"StringLike": {"s3:prefix": [root, f"{root}/*"] if root else ["*"]}},
    }
    everything = f"{bucket}/{root}/*" if root else f"{bucket}/*"
    reading = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [everything]}
    rights = ROLES[role]
    writing = [allow(_WRITE, rights.writes)] if rights.writes else []
    for statement in writing:
        statement["Resource"].append(everything.removesuffix("*") + PROBE)
    deleting = [allow(_DELETE, rights.deletes)] if rights.deletes else []
    return {"Version": "2012-10-17", "Statement": [listing, reading, *writing, *deleting]}


def main(arguments: Sequence[str]) -> int:
    """Print the policy of a role for a store; the exit status."""
    try:
        role, url = arguments
        print(json.dumps(policy(role, url), indent=2))
    except ValueError as error:
        print(f"usage: python -m infra.policies ROLE s3://bucket/prefix: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
