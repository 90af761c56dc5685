"""The team stack, one for each module that asks for it."""

from collections.abc import Iterator

import pytest

from tests.stack import Running, running_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_stack(tmp_path_factory.mktemp("state") / "stack") as running:
        yield running
