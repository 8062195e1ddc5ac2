// The application of ../README.md in JavaScript, as a program in TypeScript would be after compilation. Runs under
// each release under test, so it uses only what all of them have.

import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

import pg from "pg";

const MAJOR = Number(process.env.APP_SDK.split(".")[0]);
const { DBOS } = await import(`dbos-${MAJOR}`);
const METADATA_ONLY = process.env.APP_METADATA_ONLY === "true" && MAJOR >= 5;

// ---- the journal ----------------------------------------------------------------------------------

const database = new pg.Pool({ connectionString: process.env.APP_DATABASE_URL, max: 10 });

async function rows(statement, ...values) {
  return (await database.query(statement, values)).rows;
}

// An attempt at a step: that it began and, unless it fails, that it ended.
async function recorded(step, act) {
  const attempt = randomUUID();
  await rows(
    "INSERT INTO app.effects (attempt, workflow_id, step, executor_id, app_version) VALUES ($1, $2, $3, $4, $5)",
    ...[attempt, DBOS.workflowID, step, DBOS.executorID, DBOS.applicationVersion],
  );
  const result = await act();
  await rows("UPDATE app.effects SET ended_at = clock_timestamp() WHERE attempt = $1", attempt);
  return result;
}

// ---- workflows ------------------------------------------------------------------------------------

const leg = DBOS.registerStep(
  async (number) => {
    const mayPass = "SELECT 1 FROM app.pace WHERE workflow_id = $1 AND steps >= $2";
    await recorded(number, async () => {
      while ((await rows(mayPass, DBOS.workflowID, number)).length === 0) await pause(20);
    });
    return `leg ${number}`;
  },
  { name: "leg" },
);

const journey = DBOS.registerWorkflow(
  async (steps) => {
    const run = randomUUID();
    await rows(
      "INSERT INTO app.runs (run, workflow_id, executor_id, app_version) VALUES ($1, $2, $3, $4)",
      ...[run, DBOS.workflowID, DBOS.executorID, DBOS.applicationVersion],
    );
    let leftBy = "an exception";
    try {
      const results = [];
      for (let number = 1; number <= steps; number++) results.push(await leg(number));
      leftBy = "return";
      return results.join(", ");
    } catch (error) {
      leftBy = error.constructor.name;
      throw error;
    } finally {
      await rows("UPDATE app.runs SET left_by = $1 WHERE run = $2", leftBy, run);
    }
  },
  { name: "journey" },
);

const parent = DBOS.registerWorkflow(
  async (steps) => {
    const child = await DBOS.startWorkflow(journey)(steps);
    return `child: ${await child.getResult()}`;
  },
  { name: "parent" },
);

const approach = DBOS.registerStep(async () => recorded(1, async () => "approached"), { name: "approach" });

const gate = DBOS.registerStep(
  async (name) =>
    recorded(2, async () => {
      const open = await rows("SELECT 1 FROM app.gates WHERE name = $1", name);
      if (open.length === 0) throw new Error(`gate ${name} is closed`);
      return "open";
    }),
  { name: "gate" },
);

const arrive = DBOS.registerStep(async () => recorded(3, async () => "arrived"), { name: "arrive" });

const passage = DBOS.registerWorkflow(
  async (name) => {
    await approach();
    await gate(name);
    await arrive();
    return `passed ${name}`;
  },
  { name: "passage" },
);

const talk = DBOS.registerWorkflow(
  async (name) => {
    await DBOS.setEvent("mood", "curious");
    await DBOS.setEvent("mood", "glad");
    await DBOS.setEvent("name", name);
    await DBOS.writeStream("log", "first");
    await DBOS.writeStream("log", "second");
    await DBOS.closeStream("log");
    await DBOS.writeStream("open", "only");
    const heard = await DBOS.recv("mailbox", 120);
    await DBOS.setEvent("heard", heard);
    return heard;
  },
  { name: "talk" },
);

const tick = DBOS.registerWorkflow(async (_scheduledAt, context) => `tick ${context}`, { name: "tick" });

// ---- alerts ---------------------------------------------------------------------------------------

DBOS.setAlertHandler(async (name, message, metadata) => {
  await rows(
    "INSERT INTO app.alerts (name, message, metadata, executor_id) VALUES ($1, $2, $3, $4)",
    ...[name, message, JSON.stringify(metadata), DBOS.executorID],
  );
});

// ---- orders ---------------------------------------------------------------------------------------

const WORKFLOWS = { journey, parent, passage, talk };

async function start(order) {
  const params = { workflowID: order.id };
  if (order.attributes) params.workflowAttributes = order.attributes;
  if (order.queue) {
    params.queueName = order.queue;
    params.enqueueOptions = {
      priority: order.priority,
      deduplicationID: order.deduplication_id,
      queuePartitionKey: order.partition,
    };
  }
  const begin = () => DBOS.startWorkflow(WORKFLOWS[order.workflow], params)(order.input);
  await (order.user ? DBOS.withAuthedContext(order.user, order.roles ?? [], begin) : begin());
}

async function schedule(order) {
  await DBOS.createSchedule({
    scheduleName: order.name,
    workflowFn: tick,
    schedule: order.cron,
    context: order.context,
    options: { cronTimezone: order.timezone },
  });
}

const ORDERS = { start, schedule, send: (order) => DBOS.send(order.to, order.message, order.topic) };

function answer(message) {
  process.stdout.write(`answer: ${JSON.stringify(message)}\n`);
}

async function obey(line) {
  const order = JSON.parse(line);
  try {
    await ORDERS[order.do](order);
    answer({ done: true });
  } catch (error) {
    answer({ error: `${error.constructor.name}: ${error.message}` });
  }
}

// ---- the process ----------------------------------------------------------------------------------

async function registerQueues() {
  await DBOS.registerQueue("journeys");
  await DBOS.registerQueue("narrow", {
    globalConcurrency: 2,
    workerConcurrency: 1,
    ...(MAJOR === 4 ? { priorityEnabled: true } : {}),
    rateLimit: { limitPerPeriod: 50, periodSec: 10 },
    minPollingIntervalMs: 500,
  });
  await DBOS.registerQueue("lanes", { partitionConcurrency: 1 });
}

DBOS.setConfig({
  name: process.env.APP_NAME,
  systemDatabaseUrl: process.env.APP_DATABASE_URL,
  applicationVersion: process.env.APP_VERSION,
  schedulerPollingIntervalMs: 1000,
  runAdminServer: false,
});
await DBOS.launch({
  conductorURL: process.env.APP_CONDUCTOR_URL,
  conductorKey: process.env.APP_CONDUCTOR_KEY,
  conductorExecutorMetadata: JSON.parse(process.env.APP_METADATA),
  ...(METADATA_ONLY ? { conductorMetadataOnlyMode: true } : {}),
});
await registerQueues();
answer({ executor_id: DBOS.executorID, app_version: DBOS.applicationVersion, metadata_only: METADATA_ONLY });
for await (const line of createInterface({ input: process.stdin })) await obey(line);
process.exit(0);
