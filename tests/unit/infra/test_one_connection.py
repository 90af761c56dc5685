"""Prefect's server on SQLite: transactions that read and then write, many at once."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.exc import OperationalError

from infra.stack_services import PREFECT, services

AT_ONCE = 5
PORTS = {"seaweedfs": [*range(9000, 9010)], "mlflow": [5000], "prefect": [4200]}


def test_the_stack_s_prefect_lets_them_wait_for_each_other(tmp_path: Path) -> None:
    prefect = services(tmp_path, PORTS, tmp_path)[PREFECT]
    Path(prefect.environment["PREFECT_HOME"]).mkdir()
    assert asyncio.run(_count(prefect.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"])) == AT_ONCE


def test_on_connections_of_their_own_sqlite_refuses_all_but_one(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(_count(f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}"))


async def _count(url: str) -> int:
    """What a counter comes to that is read and written so often at once, in transactions as Prefect begins them."""
    configuration = AioSqliteConfiguration(url)
    engine = await configuration.engine()
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE counter (value INTEGER)"))
        await connection.execute(sa.text("INSERT INTO counter VALUES (0)"))

    async def add() -> None:
        session = await configuration.session(engine)
        async with session, configuration.begin_transaction(session):
            value = (await session.execute(sa.text("SELECT value FROM counter"))).scalar_one()
            await asyncio.sleep(0.05)
            await session.execute(sa.text("UPDATE counter SET value = :value"), {"value": value + 1})

    await asyncio.gather(*(add() for _ in range(AT_ONCE)))
    async with engine.connect() as connection:
        return (await connection.execute(sa.text("SELECT value FROM counter"))).scalar_one()
