"""Whether what can be seen of a store is what its commits say: asked after every fault and every kill."""

from infra.commits import Commit
from infra.inventory import read_inventory
from infra.objects import Objects
from infra.verification import read_manifest, verify_artifact


def visible_damage(objects: Objects) -> list[str]:
    """What of any commit's artifact is missing, changed or too much. Raises `StoreError`."""
    commits = [record.commit for record in read_inventory(objects).commits]
    return [f"{commit.step} {fault}" for commit in commits for fault in damaged(objects, commit)]


def damaged(objects: Objects, commit: Commit) -> list[str]:
    """What of a commit's artifact is not as the commit says. Raises `StoreError`."""
    found = verify_artifact(objects, commit, read_manifest(objects, commit), lambda count: None)
    return [f"{fault.file}: {fault.found}" for fault in found]
