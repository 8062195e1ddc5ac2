// What Lighthouse says about the fleet page of a server with an application that runs: its performance score, on a
// computer and on a phone of the middle class behind a slow network, as Lighthouse imitates them. No test, for its figures
// depend on what else the machine does; the middle of RUNS is what counts.
//
//     npm run lighthouse

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ARTIFACTS, CHROMIUM, eventually, startServer } from './support.mjs';

/** Fetched by npx: a package of 50 MB that no test needs. */
const LIGHTHOUSE = process.env.SEGNO_LIGHTHOUSE ?? 'lighthouse@13.5.0';
const RUNS = Number(process.env.LIGHTHOUSE_RUNS ?? 5);
const APP = 'shop';
const FIGURES = {
  FCP: 'first-contentful-paint',
  LCP: 'largest-contentful-paint',
  TBT: 'total-blocking-time',
  CLS: 'cumulative-layout-shift',
  SI: 'speed-index',
};

function measure(url, preset, run) {
  const report = join(ARTIFACTS, `lighthouse-${preset}-${run}.json`);
  const options = [
    url,
    '--only-categories=performance',
    '--output=json',
    `--output-path=${report}`,
    '--quiet',
    '--chrome-flags=--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update',
    ...(preset === 'desktop' ? ['--preset=desktop'] : []),
  ];
  const done = spawnSync('npx', ['--yes', LIGHTHOUSE, ...options], {
    encoding: 'utf8',
    env: { ...process.env, CHROME_PATH: CHROMIUM },
  });
  if (done.status !== 0) throw new Error(`lighthouse: ${done.stderr}`);
  const { categories, audits } = JSON.parse(readFileSync(report, 'utf8'));
  const figures = Object.entries(FIGURES).map(([short, audit]) => `${short} ${audits[audit].displayValue}`);
  const score = Math.round(categories.performance.score * 100);
  console.log(`${preset.padEnd(8)} ${String(score).padStart(3)}   ${figures.join('   ')}`);
  return score;
}

// Everybody may look: Lighthouse has no key to log in with.
const server = await startServer({ SEGNO_AUTH: 'none' });
try {
  await server.call('PUT', `/apps/${APP}`, {});
  server.startExecutor({ app: APP, key: 'any', id: 'one', version: 'v1', first: 5, rate: 0.5 });
  await eventually('workflows have ended', async () => {
    const ended = await server.call('POST', `/apps/${APP}/workflows/search`, { status: ['SUCCESS'] });
    return ended.length > 3;
  });
  for (const preset of ['desktop', 'mobile']) {
    const scores = [];
    for (let run = 1; run <= RUNS; run += 1) scores.push(measure(`${server.url}/`, preset, run));
    const middle = scores.sort((a, b) => a - b)[Math.floor(scores.length / 2)];
    console.log(`${preset.padEnd(8)} ${String(middle).padStart(3)}   in the middle of ${RUNS}\n`);
  }
} finally {
  await server.stop();
}
