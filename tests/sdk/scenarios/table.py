"""The table check × client, printed at the end and kept in artifacts/table.md."""

from pathlib import Path
from typing import Any

import pytest

#: Rows are in the order of these modules, and in each in that of its tests.
MODULES = ["test_lifecycle", "test_reading", "test_acting", "test_schedules", "test_policies"]
ARTIFACT = Path(__file__).resolve().parents[1] / "artifacts" / "table.md"


class Table:
    """Collects outcomes from reports: those of other processes, too."""

    def __init__(self, clients: list[str]) -> None:
        self._clients = clients
        self._cells: dict[str, dict[str, tuple[str, str]]] = {}
        self._places: dict[str, tuple[int, int]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties: dict[str, Any] = dict(report.user_properties)
        if "cell" not in properties or report.when == "teardown" and report.passed:
            return
        check, client = properties["cell"]
        if report.failed:
            cell = ("FAIL", self._first_line(report))
        elif report.skipped:
            cell = ("not run", str(report.longrepr[2] if isinstance(report.longrepr, tuple) else ""))
        elif report.when != "call":
            return
        elif "not applicable" in properties:
            cell = ("n/a", properties["not applicable"])
        else:
            cell = ("pass", "")
        self._cells.setdefault(check, {})[client] = cell
        file, line, _ = report.location
        self._places[check] = (MODULES.index(Path(file).stem), line or 0)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._cells:
            return
        lines = self._lines()
        terminalreporter.section("checks of every official SDK")
        for line in lines:
            terminalreporter.line(line)
        ARTIFACT.parent.mkdir(exist_ok=True)
        ARTIFACT.write_text("\n".join(lines) + "\n")

    def _lines(self) -> list[str]:
        notes: list[str] = []

        def shown(check: str, client: str) -> str:
            word, why = self._cells[check].get(client, ("", ""))
            if not why:
                return word
            if why not in notes:
                notes.append(why)
            return f"{word} ({notes.index(why) + 1})"

        rows = [["check", *self._clients]]
        checks = sorted(self._cells, key=self._places.__getitem__)
        rows += [[check, *(shown(check, each) for each in self._clients)] for check in checks]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        rows.insert(1, ["-" * width for width in widths])
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
            for row in rows
        ]
        return lines + ["", *(f"({number}) {why}" for number, why in enumerate(notes, 1))]

    @staticmethod
    def _first_line(report: pytest.TestReport) -> str:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
        return f"{report.when}: {text.splitlines()[0][:200]}"
