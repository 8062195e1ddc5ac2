"""The server's own state as a file: out of one database and into another, all of it or nothing."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import App, eventually
from executor import Executor
from instance import Instance, said, segno
from stores import VERSIONS, Store, expected, left_by, named, within

NEWEST = VERSIONS[-1]
#: Not copied: answers to requests that are over, and with what instances of one server sign.
LEFT_OUT = ("idempotency_keys",)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, Store]]:
    found = {kind: Store(kind, tmp_path) for kind in ("sqlite", "postgres")}
    yield found
    for each in found.values():
        each.close()


def fill(store: Store, version: int = NEWEST) -> None:
    said(segno("migrate", "--database-url", store.url, "--to", str(version)))
    for statement in left_by(version, int(time.time() * 1000)):
        store.rows(statement)


def export(store: Store) -> str:
    return said(segno("export", "--database-url", store.url))


def take(store: Store, text: str, *arguments: str) -> Any:
    return segno("import", "-", "--database-url", store.url, *arguments, stdin=text)


def content(store: Store) -> dict[str, list[tuple]]:
    tables = {name: columns for name, columns in store.tables().items() if name not in LEFT_OUT}
    found = store.content(tables)
    found["settings"] = [row for row in found["settings"] if row[0] != "cluster.secret"]
    # When an instance stopped is when it was copied.
    stopped = [name for name, *_ in tables["instances"]].index("stopped_at")
    found["instances"] = [row[:stopped] + row[stopped + 1 :] for row in found["instances"]]
    return found


@pytest.mark.parametrize("there", ["postgres", "sqlite"])
def test_everything_arrives_and_is_served(stores: dict[str, Store], there: str, tmp_path: Path) -> None:
    source, target = stores["sqlite"], stores["postgres"]
    if there == "sqlite":
        source, target = target, source
    fill(source)
    source.rows("INSERT INTO settings VALUES ('cluster.secret', 'never copied', 0)")
    text = export(source)
    lines = text.splitlines()
    assert json.loads(lines[0])["schema"] == NEWEST and "never copied" not in text
    taken = take(target, text)
    assert taken.returncode == 0, taken.stderr
    assert "SEGNO_ENCRYPTION_KEY of the old one" in taken.stderr
    before, after = content(source), content(target)
    assert all(before.values()) and before == after
    assert target.rows("SELECT COUNT(*) FROM instances WHERE stopped_at IS NULL") == [(0,)]
    # What was imported can be exported again.
    again = export(target).splitlines()
    assert len(again) == len(lines)

    server = Instance(tmp_path, target.url).start()
    try:
        for path, part in expected(NEWEST).items():
            whole = server.api.call("GET", f"/v2/orgs/local{path}").json()
            assert within(part, whole), f"{path}: {part} is not in {whole}"
    finally:
        server.close()


def test_executors_of_a_server_that_moved_are_not_given_up(stores: dict[str, Store], tmp_path: Path) -> None:
    """One comes back to the new server, another does not: the first is left alone, of the second work is looked for."""
    old = Instance(tmp_path, stores["sqlite"].url, "old").start()
    app = App(old.api, "shop")
    key = app.register(1)
    executor = Executor(old.address, "shop", key)
    eventually(lambda: app.executors(), lambda seen: [each["status"] for each in seen] == ["HEALTHY"])
    # While it serves: the copy is of one moment.
    copy = export(stores["sqlite"])
    executor.close()
    old.stop()
    assert take(stores["postgres"], copy).returncode == 0

    new = Instance(tmp_path, stores["postgres"].url, "new").start()
    try:
        there = App(new.api, "shop")
        assert there.get()["executorTimeoutSecs"] == 1
        # The key is as good as before.
        executor = Executor(new.address, "shop", key)
        eventually(lambda: there.executors(), lambda seen: [each["status"] for each in seen] == ["HEALTHY"])
        executor.close()
        record = eventually(lambda: there.recoveries(), what="the loss to be noticed")[0]
        assert record["executorId"] == "busy"
    finally:
        new.close()
        old.close()


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_a_file_of_an_older_schema_ends_as_an_upgrade_would_have(stores: dict[str, Store], version: int) -> None:
    source, target = stores["sqlite"], stores["postgres"]
    fill(source, version)
    text = export(source)
    assert json.loads(text.splitlines()[0])["schema"] == version
    taken = take(target, text)
    assert taken.returncode == 0, taken.stderr
    said(segno("migrate", "--database-url", source.url))
    if version == 1:
        assert "instances" in target.tables()
    before, after = content(source), content(target)
    assert before == after

    refused = take(target, text, "--replace")
    assert refused.returncode == 1 and "import it into an empty database" in refused.stderr


def test_a_database_that_holds_something_is_left_alone_unless_told(stores: dict[str, Store]) -> None:
    source, target = stores["sqlite"], stores["postgres"]
    fill(source)
    fill(target)
    target.rows("UPDATE applications SET name = 'precious' WHERE id = 'app'")
    text, before = export(source), content(target)
    refused = take(target, text)
    assert refused.returncode == 1 and "applications: 2" in refused.stderr and "--replace" in refused.stderr
    assert content(target) == before
    assert take(target, text, "--replace").returncode == 0
    assert content(target) == content(source)


def test_nothing_is_imported_while_a_server_runs(stores: dict[str, Store], tmp_path: Path) -> None:
    fill(stores["sqlite"])
    server = Instance(tmp_path, stores["postgres"].url).start()
    try:
        refused = take(stores["postgres"], export(stores["sqlite"]), "--replace")
        assert refused.returncode == 1 and str(server.address[1]) in refused.stderr
    finally:
        server.close()


def cut(lines: list[str]) -> list[str]:
    return lines[:-1]


def changed(lines: list[str]) -> list[str]:
    return [line.replace('"shop"', '"shoq"') for line in lines]


def another_table(lines: list[str]) -> list[str]:
    return [line.replace('{"table":"roles"', '{"table":"pg_class"') for line in lines]


def another_type(lines: list[str]) -> list[str]:
    return [line.replace(",77,", ',"77",') for line in lines]


def another_format(lines: list[str]) -> list[str]:
    return [lines[0].replace('"formatVersion":1', '"formatVersion":2'), *lines[1:]]


def newer(lines: list[str]) -> list[str]:
    return [lines[0].replace(f'"schema":{NEWEST}', '"schema":9999'), *lines[1:]]


def breaks_a_reference(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith('["org",')]


def something_else(_: list[str]) -> list[str]:
    return ["<html>"]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (cut, "cut off"),
        (changed, "checksum"),
        (another_table, "there is no table `pg_class`"),
        (another_type, "executor_timeout_secs must be a whole number"),
        (another_format, "version 2 of the format"),
        (newer, "newer than this binary"),
        (breaks_a_reference, "cannot write into applications"),
        (something_else, "not a file that"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_a_damaged_file_leaves_no_trace(stores: dict[str, Store], damage: Any, complaint: str) -> None:
    source, target = stores["sqlite"], stores["postgres"]
    fill(source)
    text = "\n".join(damage(export(source).splitlines())) + "\n"
    refused = take(target, text)
    assert refused.returncode == 1 and complaint in refused.stderr, refused.stderr
    held = target.content(target.tables())
    assert not any(held.values())


def test_a_file_is_whole_and_for_its_owner_only(stores: dict[str, Store], tmp_path: Path) -> None:
    fill(stores["sqlite"])
    file = tmp_path / "state.ndjson"
    said(segno("export", str(file), "--database-url", stores["sqlite"].url))
    assert file.stat().st_mode & 0o777 == 0o600 and not file.with_suffix(".ndjson.part").exists()
    said(segno("import", str(file), "--database-url", stores["postgres"].url))
    assert content(stores["postgres"]) == content(stores["sqlite"])
    assert named(said(segno("migrate", "--dry-run", "--database-url", stores["postgres"].url))) == NEWEST
