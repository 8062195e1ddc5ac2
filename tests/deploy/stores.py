"""The server's own database as its tests look at it: PostgreSQL or SQLite, and what earlier versions left in it."""

import hashlib
import re
import sqlite3
from pathlib import Path
from typing import Any

from harness import Database
from tools import ROOT

#: The versions of the schema, as the repository has them.
VERSIONS = sorted(
    int(each.name[:4]) for each in (ROOT / "migrations" / "sqlite").glob("*.sql") if ".down." not in each.name
)
#: A key that was made by an earlier version: what it stores of it is the hash.
READER = "dbos_one_reader"
DAY = 86_400_000


class Store:
    """An empty database; `url` is for the server."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self._database = Database("store") if kind == "postgres" else None
        self._file = directory / f"{kind}.db"
        self.url = self._database.url if self._database else f"sqlite://{self._file}"

    def rows(self, statement: str) -> list[tuple]:
        if self._database:
            return self._database.rows(statement)
        with sqlite3.connect(self._file, timeout=10) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            return connection.execute(statement).fetchall()

    def tables(self) -> dict[str, list[tuple]]:
        """Columns with their types, whether they may be null and their defaults, by table; the bookkeeping apart."""
        if self._database:
            found = self.rows(
                "SELECT table_name, column_name, data_type, is_nullable = 'NO', column_default"
                " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'"
                " ORDER BY table_name, ordinal_position"
            )
        else:
            found = self.rows(
                "SELECT m.name, c.name, lower(c.type), c.\"notnull\" OR c.pk, c.dflt_value"
                " FROM sqlite_master m, pragma_table_info(m.name) c"
                " WHERE m.type = 'table' AND m.name <> '_sqlx_migrations' AND m.name NOT LIKE 'sqlite_%'"
                " ORDER BY m.name, c.cid"
            )
        tables: dict[str, list[tuple]] = {}
        for table, *column in found:
            tables.setdefault(table, []).append(tuple(column))
        return tables

    def indexes(self) -> set[str]:
        if self._database:
            return {name for (name,) in self.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}
        return {name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'index'")}

    def content(self, tables: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
        """The rows of those of the tables and columns."""
        return {
            table: sorted(self.rows(f"SELECT {', '.join(each[0] for each in columns)} FROM {table}"), key=repr)
            for table, columns in tables.items()
        }

    def close(self) -> None:
        if self._database:
            self._database.drop()


def _insert(table: str, **values: Any) -> str:
    def literal(value: Any) -> str:
        if value is None:
            return "NULL"
        return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"

    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(map(literal, values.values()))})"


def left_by(version: int, now: int) -> list[str]:
    """Statements for what a server with this version of the schema may have left, `now` in epoch milliseconds."""
    key = hashlib.sha256(READER.encode()).hexdigest()
    at = now - DAY
    steps: dict[int, list[str]] = {
        1: [
            _insert("organizations", id="org", name="local", audit_retention_days=30, created_at=at),
            _insert("applications", id="app", org_id="org", name="shop", executor_timeout_secs=77,
                    recovery_policy="latest", gc_rows_threshold=5000, created_at=at, updated_at=at),
            _insert("applications", id="other", org_id="org", name="desk", created_at=at, updated_at=at),
            _insert("api_keys", id="key", org_id="org", name="reader", key_hash=key, app_scoped=1,
                    permissions='["application.read"]', created_at=at),
            _insert("api_key_apps", key_id="key", app_id="app"),
            _insert("audit_log", id="01", org_id="org", emit_time=at, operation="application.create", status="success",
                    subject_type="api_key", subject_id="k", subject_display="k", target_type="application",
                    target_id="shop", source_ip="10.0.0.1", details='{"application_name":"shop"}'),
            _insert("idempotency_keys", id="i", request_hash="h", started_at=at, expires_at=now + DAY, response="x"),
            _insert("settings", name="first_admin_key", value="", updated_at=at),
        ],
        2: [
            _insert("instances", id="gone", address="10.0.0.1:8090", serving_since=at, heartbeat_at=at),
            _insert("executors", app_id="app", executor_id="e1", app_version="v1", hostname="h", language="python",
                    sdk_version="3.2.0", state="HEALTHY", generation=3, instance_id="gone", session_id="s",
                    created_at=at, updated_at=at),
            _insert("recoveries", id="r1", app_id="app", executor_id="e0", app_version="v1", status="RECOVERED",
                    pending_workflows=3, disconnected_at=at, dead_at=at + 77_000, dispatched_at=at + 77_001,
                    completed_at=at + 78_000, recovered_by="e1"),
            _insert("recovery_attempts", recovery_id="r1", seq=1, executor_id="e1", at=at + 77_001, outcome="ACCEPTED"),
            _insert("recoveries", id="r2", app_id="app", executor_id="e9", app_version="v0", status="ABANDONED",
                    pending_workflows=1, disconnected_at=at, dead_at=at + 77_000, completed_at=at + 80_000),
            _insert("evictions", app_id="app", executor_id="e7", app_version="v1", until=now + DAY, reason="wedged"),
        ],
        3: [
            _insert("operations", id="o1", app_id="app", kind="cancel", state="DONE",
                    selection='{"Ids":["a","b"]}', dry_run=0, most=10000, reason="why", requested_by="k", total=2,
                    succeeded=2, created_at=at, started_at=at, completed_at=at,
                    options='{"children":false,"app_version":null,"queue_name":null,"queue_partition_key":null,'
                            '"fork_from":{"Step":0}}'),
            _insert("operation_items", operation_id="o1", seq=0, workflow_id="a", outcome="DONE"),
            _insert("operation_items", operation_id="o1", seq=1, workflow_id="b", outcome="DONE"),
        ],
        4: [
            _insert("policy_rounds", app_id="app", job="metrics", lease_until=at, due_at=now + DAY, done_until=at),
            _insert("app_metrics", app_id="app", time_bucket=at - at % 300_000, metric_type="workflow_count",
                    metric_name="checkout", granularity=300, value=12),
            _insert("autoscaling_policies", app_id="app", queue_name="q", updated_at=at),
            _insert("alerting_rules", id="rule", app_id="app", receiving_app_id="other", rule_type="StrandedRecovery",
                    metadata='{"min_workflows":1}', min_interval_secs=600, created_at=at),
        ],
        5: [
            _insert("users", id="u", issuer="https://login", subject="s", name="ann", email="ann@example.com",
                    given_name="Ann", family_name="A", company="", org_id="org", role="organization_admin",
                    created_at=at),
            _insert("roles", org_id="org", name="onlooker", permissions='["application.read"]', created_at=at),
            _insert("join_secrets", secret_hash="h", org_id="org", created_at=at, expires_at=now + DAY),
            _insert("domain_claims", id="d", org_id="org", domain="example.com", requested_by="u", requested_at=at),
            _insert("removed_members", org_id="org", issuer="https://login", subject="x", removed_at=at),
        ],
        6: [
            _insert("alert_channels", id="c", org_id="org", name="ops", kind="webhook", created_at=at, updated_at=at,
                    settings='{"origin":"https://hooks.example.com","resolved":true,"per_minute":30,"severity":null,'
                             '"template":null,"headers":[]}',
                    secrets="aes256gcm:AAAA"),
            _insert("alerting_rule_channels", rule_id="rule", channel_id="c"),
            _insert("alerts", id="a", app_id="app", rule_id="rule", rule_type="StrandedRecovery", message="1 workflow",
                    metadata="{}", told=1, since=at, seen_at=at, resolved_at=at + 1000),
            _insert("alert_deliveries", id="ad", channel_id="c", alert_id="a", event="firing", notice="{}",
                    state="DELIVERED", attempts=1, next_at=at, created_at=at, ended_at=at),
            _insert("alert_attempts", id="aa", channel_id="c", delivery_id="ad", alert_id="a", event="firing", at=at,
                    delivered=1, status=200, latency_ms=12),
        ],
        8: [
            _insert("workflow_views", app_id="app", name="failed", query="status=ERROR", saved_by="k", updated_at=at),
        ],
        9: [
            _insert("instances", id="older", address="10.0.0.1:8090", serving_since=at, heartbeat_at=at, stopped_at=at,
                    replaced_by="gone"),
        ],
    }
    # Since 6 there is a row for each executor whose work was given up; the migration makes them for those before.
    if version >= 6:
        steps[6].append(
            _insert("abandoned_executors", app_id="app", executor_id="e9", app_version="v0", abandoned_at=at + 80_000)
        )
    return [each for number, statements in sorted(steps.items()) if number <= version for each in statements]


def expected(version: int) -> dict[str, Any]:
    """What the API says of that: by path, below the organization, what the answer must have in it."""
    app = "/apps/shop"
    told: dict[int, dict[str, Any]] = {
        1: {
            app: {"name": "shop", "executorTimeoutSecs": 77, "recoveryPolicy": "latest"},
            "/tokens": [{"tokenName": "reader", "appIds": ["app"]}],
            "/audit-logs": [{"operation": "application.create"}],
        },
        2: {
            f"{app}/executors": [{"executorId": "e1", "appVersion": "v1"}],
            f"{app}/recoveries": [
                {"executorId": "e0", "status": "RECOVERED", "recoveredBy": "e1"},
                {"executorId": "e9", "status": "ABANDONED"},
            ],
        },
        3: {f"{app}/operations": [{"id": "o1", "kind": "cancel", "state": "DONE", "reason": "why"}]},
        4: {
            f"{app}/alerting-rules": [{"ruleType": "StrandedRecovery", "minIntervalSecs": 600}],
            f"{app}/autoscaling-policy": {"policy": {"queue": "q"}},
        },
        6: {
            "/alert-channels": [{"name": "ops", "kind": "webhook"}],
            f"{app}/alerts": [{"message": "1 workflow"}],
        },
        8: {f"{app}/views": [{"name": "failed", "query": "status=ERROR"}]},
    }
    return {path: what for number, paths in told.items() if number <= version for path, what in paths.items()}


def within(part: Any, whole: Any) -> bool:
    """Whether everything in `part` is in `whole` too; lists may be in another order and have more."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        if isinstance(whole, dict):  # a page
            whole = next((each for each in whole.values() if isinstance(each, list)), [])
        return all(any(within(each, other) for other in whole) for each in part)
    return part == whole


def named(text: str) -> int:
    """The version of the schema in what `segno migrate` prints."""
    found = re.search(r"(?m)^The schema (?:is|stays) at version (\d+)", text)
    assert found, text
    return int(found[1])
