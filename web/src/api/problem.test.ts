import { describe, expect, it } from 'vitest';
import { Problem } from './problem';

function answer(status: number, body: unknown): Response {
  return new Response(typeof body === 'string' ? body : JSON.stringify(body), { status });
}

describe('Problem.from', () => {
  it('tells a missing executor from a server that is in trouble itself', async () => {
    const missing = answer(503, {
      title: 'Service Unavailable',
      type: 'urn:segno:problem:no-executor',
    });
    expect((await Problem.from(missing)).kind).toBe('no-executor');
    const trouble = answer(503, {
      title: 'Service Unavailable',
      type: 'urn:segno:problem:store-unavailable',
    });
    expect((await Problem.from(trouble)).kind).toBe('failed');
  });

  it('says every fault of a refused input', async () => {
    const problem = await Problem.from(
      answer(422, {
        detail: 'validation failed',
        errors: [{ location: 'path.appName', message: 'too short' }, { message: 'odd' }],
      }),
    );
    expect(problem.detail).toBe('path.appName: too short; odd');
  });

  it('copes with a proxy’s page', async () => {
    const problem = await Problem.from(answer(502, '<html>Bad gateway</html>'));
    expect([problem.kind, problem.status]).toEqual(['failed', 502]);
    expect(problem.detail).toContain('proxy');
  });
});
