"""The workloads of ../../README.md through the official Python SDK.

Callers are threads, as the SDK's synchronous interface, its usual one, wants them.
"""

import argparse
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from dbos import DBOS, DBOSConfig

QUEUE = "bench"


@DBOS.step(name="add")
def add(value: int, step: int) -> dict:
    return {"step": step, "value": value + step}


def run(value: int, steps: int) -> dict:
    total = sum(add(value, step)["value"] for step in range(steps))
    return {"input": value, "steps": steps, "sum": total}


@DBOS.workflow(name="zero")
def zero(value: int) -> dict:
    return run(value, 0)


@DBOS.workflow(name="one")
def one(value: int) -> dict:
    return run(value, 1)


@DBOS.workflow(name="ten")
def ten(value: int) -> dict:
    return run(value, 10)


WORKFLOWS = {"W1": (zero, 0), "W2": (one, 1), "W3": (ten, 10)}


def check(outcome: dict, value: int, steps: int) -> None:
    expected = {"input": value, "steps": steps, "sum": value * steps + steps * (steps - 1) // 2}
    if outcome != expected:
        raise SystemExit(f"the workflow of {value} answered {outcome}")


def call(workload: str, values: "itertools.count[int]", n: int) -> list[float]:
    workflow, steps = WORKFLOWS[workload]
    latencies = []
    while (value := next(values)) < n:
        began = time.perf_counter()
        outcome = workflow(value)
        latencies.append(time.perf_counter() - began)
        check(outcome, value, steps)
    return latencies


def enqueue(values: "itertools.count[int]", n: int) -> list[float]:
    enqueued = []
    while (value := next(values)) < n:
        began = time.perf_counter()
        enqueued.append((value, began, DBOS.enqueue_workflow(QUEUE, one, value)))
    latencies = []
    for value, began, handle in enqueued:
        outcome = handle.get_result()
        latencies.append(time.perf_counter() - began)
        check(outcome, value, 1)
    return latencies


def measure(workload: str, n: int, concurrency: int) -> list[float]:
    values = itertools.count()
    with ThreadPoolExecutor(concurrency) as callers:
        if workload == "W4":
            shares = [callers.submit(enqueue, values, n) for _ in range(concurrency)]
        else:
            shares = [callers.submit(call, workload, values, n) for _ in range(concurrency)]
        return [latency for share in shares for latency in share.result()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=["W1", "W2", "W3", "W4"], required=True)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--db", required=True)
    args = parser.parse_args()
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": args.db,
        "application_version": "bench",
        "run_admin_server": False,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    measure(args.workload, max(20, 2 * args.concurrency), args.concurrency)
    began = time.perf_counter()
    latencies = sorted(measure(args.workload, args.n, args.concurrency))
    seconds = time.perf_counter() - began

    def percentile(percent: int) -> float:
        return latencies[-(-len(latencies) * percent // 100) - 1] * 1000

    line = {
        "sdk": "dbos-python",
        "version": version("dbos"),
        "workload": args.workload,
        "n": args.n,
        "concurrency": args.concurrency,
        "seconds": seconds,
        "wf_per_s": args.n / seconds,
        "p50_ms": percentile(50),
        "p99_ms": percentile(99),
    }
    print(json.dumps(line), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
