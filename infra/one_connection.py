"""A plugin of SQLAlchemy: one connection for all, so that the transactions of a process wait for each other.

Prefect's server reads and then writes in one transaction. SQLite refuses the write at once, however long its
timeout, when another connection has written in between (`SQLITE_BUSY_SNAPSHOT`, "database is locked"); with dozens
of runs that happens so often that clients give up. On one connection there is no "in between"; Prefect itself uses
one for a database in memory.

It is asked for in a database's address: `sqlite+aiosqlite:///prefect.db?plugin=forgetting_one_connection`.
"""

from typing import Any

from sqlalchemy.engine import URL, CreateEnginePlugin

NAME = "forgetting_one_connection"
"""As `pyproject.toml` registers it."""
WAIT_SECONDS = 120.0
"""Until a request that waits for its turn is told so; a busy machine answers late, but answers."""


class OneConnection(CreateEnginePlugin):
    """Makes the engine's pool one of a single connection."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        kwargs.update(pool_size=1, max_overflow=0, pool_timeout=WAIT_SECONDS)

    def update_url(self, url: URL) -> URL:
        """The address as the database knows it."""
        return url.difference_update_query(["plugin"])
