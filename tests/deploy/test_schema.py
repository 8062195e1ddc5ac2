"""The schema: upgraded from every earlier version in the repository, and taken back to it, with what it held."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness.server import program
from instance import Instance, said, segno
from stores import READER, VERSIONS, Store, expected, left_by, named, within

NEWEST = VERSIONS[-1]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = Store(request.param, tmp_path)
    yield store
    store.close()


def migrate(store: Store, *arguments: str) -> str:
    return said(segno("migrate", "--database-url", store.url, *arguments))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_earlier_version_left_is_served_and_survives_the_way_back(
    store: Store, version: int, tmp_path: Path
) -> None:
    assert named(migrate(store, "--to", str(version))) == version
    for statement in left_by(version, int(time.time() * 1000)):
        store.rows(statement)
    shape, indexes = store.tables(), store.indexes()
    before = store.content(shape)
    assert all(before.values()), f"a table of version {version} is empty: tell stores.left_by"

    tried = migrate(store, "--dry-run")
    assert [int(line[:4]) for line in tried.splitlines() if "would be applied" in line] == [
        each for each in VERSIONS if each > version
    ]
    assert named(tried) == version and (store.tables(), store.content(shape)) == (shape, before)

    server = Instance(tmp_path, store.url).start()
    try:
        for path, part in expected(version).items():
            whole = server.api.call("GET", f"/v2/orgs/local{path}").json()
            assert within(part, whole), f"{path}: {part} is not in {whole}"
        # A key of before is good for what it was good for.
        mine = httpx.Client(headers={"Authorization": f"Bearer {READER}"}, trust_env=False)
        base = f"http://127.0.0.1:{server.address[1]}/v2/orgs/local/apps"
        assert (mine.get(f"{base}/shop").status_code, mine.get(f"{base}/desk").status_code) == (200, 403)
        if version >= 2 and version < NEWEST:
            refused = segno("migrate", "--database-url", store.url, "--to", str(version))
            assert refused.returncode == 1 and "an instance serves on this database" in refused.stderr
        server.stop()
    finally:
        server.close()
    if version >= 2:
        # Migration 6 writes down for whom nobody needs to look any more; before it nobody knows.
        assert store.rows("SELECT executor_id FROM abandoned_executors") == [("e9",)]

    assert named(migrate(store, "--to", str(version))) == version
    assert store.tables() == shape and store.indexes() == indexes
    kept = store.content(shape)
    lost = {
        table: set(map(repr, before[table])) - set(map(repr, kept[table]))
        for table in before
        # What the server itself keeps up to date: who is there, what it did last.
        if table not in ("instances", "executors", "policy_rounds", "alerting_rules")
    }
    assert not any(lost.values()), lost
    assert named(migrate(store)) == NEWEST


def test_several_migrate_at_once_and_one_does_the_work(store: Store) -> None:
    running = [
        subprocess.Popen(
            [str(program()), "migrate", "--database-url", store.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for each in running:
        out, err = each.communicate(timeout=60)
        assert each.returncode == 0 and named(out) == NEWEST, err
    assert store.rows("SELECT COUNT(*) FROM _sqlx_migrations") == [(len(VERSIONS),)]


def test_a_newer_schema_is_refused_and_the_way_out_is_named(store: Store) -> None:
    migrate(store)
    columns = "version, description, success, checksum, execution_time"
    store.rows(f"INSERT INTO _sqlx_migrations ({columns}) SELECT 9999, 'later', success, checksum, 0"
               " FROM _sqlx_migrations WHERE version = 1")
    for command in (["serve", "--listen", "127.0.0.1:0"], ["migrate"], ["migrate", "--dry-run"], ["export"]):
        refused = segno(*command, "--database-url", store.url)
        assert refused.returncode == 1
        assert f"is at version 9999, newer than this binary knows ({NEWEST})" in refused.stderr
        assert f"segno migrate --to {NEWEST}" in refused.stderr


def test_a_migration_that_would_fail_says_so_and_changes_nothing(store: Store) -> None:
    migrate(store, "--to", str(VERSIONS[-2]))
    # Somebody has a table of that name already.
    newest = next((Path(__file__).parents[2] / "migrations" / store.kind).glob(f"{NEWEST:04}_*.down.sql"))
    undone = [each for each in newest.read_text().split(";") if "DROP COLUMN" in each or "DROP TABLE" in each]
    last = undone[0].split("\n")[-1].split()
    if "COLUMN" in last:
        store.rows(f"ALTER TABLE {last[2]} ADD COLUMN {last[-1]} TEXT")
    else:
        store.rows(f"CREATE TABLE {last[-1]} (x TEXT)")
    before = store.tables()
    for arguments in (["--dry-run"], []):
        failed = segno("migrate", "--database-url", store.url, *arguments)
        assert failed.returncode == 1 and f"migration {NEWEST}" in failed.stderr, failed.stderr
    assert store.tables() == before
