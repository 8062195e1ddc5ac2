// The workloads of ../../README.md through the official TypeScript SDK.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";

import { DBOS } from "@dbos-inc/dbos-sdk";

const QUEUE = "bench";

const add = DBOS.registerStep(async (value, step) => ({ step, value: value + step }), { name: "add" });

async function run(value, steps) {
  let sum = 0;
  for (let step = 0; step < steps; step++) sum += (await add(value, step)).value;
  return { input: value, steps, sum };
}

const zero = DBOS.registerWorkflow((value) => run(value, 0), { name: "zero" });
const one = DBOS.registerWorkflow((value) => run(value, 1), { name: "one" });
const ten = DBOS.registerWorkflow((value) => run(value, 10), { name: "ten" });

const WORKFLOWS = { W1: [zero, 0], W2: [one, 1], W3: [ten, 10] };

function check(outcome, value, steps) {
  const sum = value * steps + (steps * (steps - 1)) / 2;
  if (outcome.input !== value || outcome.steps !== steps || outcome.sum !== sum) {
    throw new Error(`the workflow of ${value} answered ${JSON.stringify(outcome)}`);
  }
}

async function call(workload, take, latencies) {
  const [workflow, steps] = WORKFLOWS[workload];
  for (let value = take(); value !== undefined; value = take()) {
    const began = performance.now();
    const outcome = await workflow(value);
    latencies.push(performance.now() - began);
    check(outcome, value, steps);
  }
}

async function enqueue(take, latencies) {
  const enqueued = [];
  for (let value = take(); value !== undefined; value = take()) {
    const began = performance.now();
    enqueued.push([value, began, await DBOS.startWorkflow(one, { queueName: QUEUE })(value)]);
  }
  for (const [value, began, handle] of enqueued) {
    const outcome = await handle.getResult();
    latencies.push(performance.now() - began);
    check(outcome, value, 1);
  }
}

async function measure(workload, n, concurrency) {
  const latencies = [];
  let next = 0;
  const take = () => (next < n ? next++ : undefined);
  const caller = () => (workload === "W4" ? enqueue(take, latencies) : call(workload, take, latencies));
  await Promise.all(Array.from({ length: concurrency }, caller));
  return latencies;
}

const text = { type: "string" };
const { values: args } = parseArgs({ options: { workload: text, n: text, concurrency: text, db: text } });
const [n, concurrency] = [Number(args.n), Number(args.concurrency)];
const manifest = join(dirname(createRequire(import.meta.url).resolve("@dbos-inc/dbos-sdk")), "../../package.json");

DBOS.setConfig({
  name: "bench",
  systemDatabaseUrl: args.db,
  applicationVersion: "bench",
  runAdminServer: false,
  logLevel: "error",
});
await DBOS.launch();
await DBOS.registerQueue(QUEUE);
await measure(args.workload, Math.max(20, 2 * concurrency), concurrency);
const began = performance.now();
const latencies = (await measure(args.workload, n, concurrency)).sort((a, b) => a - b);
const seconds = (performance.now() - began) / 1000;
const percentile = (percent) => latencies[Math.ceil((latencies.length * percent) / 100) - 1];
const line = {
  sdk: "dbos-typescript",
  version: JSON.parse(readFileSync(manifest)).version,
  workload: args.workload,
  n,
  concurrency,
  seconds,
  wf_per_s: n / seconds,
  p50_ms: percentile(50),
  p99_ms: percentile(99),
};
console.log(JSON.stringify(line));
await DBOS.shutdown();
