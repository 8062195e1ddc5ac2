// The application of ../README.md on the official TypeScript SDK.

import { createInterface } from "node:readline";
import { gunzipSync, gzipSync } from "node:zlib";

const NAME = process.env.APP_NAME;
const URL = process.env.APP_DATABASE_URL;
const { DBOS, DBOSClient } = await import(`dbos-${process.env.APP_SDK.split(".")[0]}`);
const WAIT = 60;
const portable = { serialization: "portable" };

const respond = DBOS.registerStep(async (given) => ({ from: NAME, input: given }), { name: "answer" });

DBOS.registerWorkflow((given) => respond(given), { name: "echo", ...portable });

DBOS.registerWorkflow(
  async (given) => {
    throw new Error(`broken on purpose: ${given}`);
  },
  { name: "fail", ...portable },
);

DBOS.registerWorkflow(
  async (given) => {
    await DBOS.setEvent("mood", { of: given });
    await DBOS.writeStream("log", "first");
    await DBOS.writeStream("log", { second: 2 });
    await DBOS.closeStream("log");
    return { heard: await DBOS.recv("mailbox", WAIT) };
  },
  { name: "talk", ...portable },
);

const orders = {
  async enqueue({ workflow, to, id, input }) {
    const options = { workflowName: workflow, queueName: `${to}-work`, workflowID: id, applicationName: to };
    await client.enqueuePortable(options, [input]);
  },
  async result({ id }) {
    return { value: await DBOS.retrieveWorkflow(id).getResult() };
  },
  async send({ id, input, key }) {
    await DBOS.send(id, input, key, undefined, { serializationType: "portable" });
  },
  async event({ id, key }) {
    return { value: await DBOS.getEvent(id, key, WAIT) };
  },
  async stream({ id, key }) {
    const value = [];
    for await (const entry of DBOS.readStream(id, key)) value.push(entry);
    return { value };
  },
  async status({ id }) {
    return { value: (await DBOS.retrieveWorkflow(id).getStatus()).status };
  },
  async cancel({ id }) {
    await DBOS.cancelWorkflow(id);
  },
  async resume({ id }) {
    await DBOS.resumeWorkflow(id);
  },
  async fork({ id, from = 0 }) {
    return { value: await client.forkWorkflow(id, from) };
  },
  async steps({ id }) {
    const found = await client.listWorkflowSteps(id);
    return { value: found.map((each) => [each.functionID, each.name]) };
  },
  async export({ id }) {
    const exported = await database("exportWorkflow").exportWorkflow(id, true);
    return { value: gzipSync(JSON.stringify(exported)).toString("base64") };
  },
  async import({ key }) {
    const into = database("importWorkflow");
    await into.importWorkflow(JSON.parse(gunzipSync(Buffer.from(key, "base64")).toString()));
  },
  async list({ key, status, workflow }) {
    const found = await client.listWorkflows({ workflow_id_prefix: key, status, workflowName: workflow });
    return { value: found.map((each) => each.workflowID) };
  },
};

/** The system database; TypeScript 5 has left export and import to others. */
function database(operation) {
  if (!client.systemDatabase[operation]) throw new Error(`this SDK has no ${operation}`);
  return client.systemDatabase;
}

function answer(message) {
  console.log(`answer: ${JSON.stringify(message)}`);
}

DBOS.setConfig({
  name: NAME,
  systemDatabaseUrl: URL,
  applicationVersion: `interop-${NAME}`,
  runAdminServer: false,
});
await DBOS.launch();
await DBOS.registerQueue(`${NAME}-work`);
const client = await DBOSClient.create({ systemDatabaseUrl: URL });
answer({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  try {
    answer({ done: (await orders[order.do](order)) ?? null });
  } catch (error) {
    answer({ error: `${error.name}: ${error.message}` });
  }
}
process.exit(0);
