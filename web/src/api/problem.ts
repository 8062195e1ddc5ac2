/**
 * What went wrong with a call, in the only shapes that need different words on the screen.
 *
 * - `unreachable`: no answer from the server at all.
 * - `no-executor`: the server answered, but nothing that runs the application is connected (503).
 * - `refused`: the caller may not do this (401, 403).
 * - `missing`: there is no such thing (404).
 * - `failed`: anything else.
 */
export type ProblemKind = 'unreachable' | 'no-executor' | 'refused' | 'missing' | 'failed';

export class Problem extends Error {
  constructor(
    readonly kind: ProblemKind,
    /** HTTP status, 0 when there was no answer. */
    readonly status: number,
    readonly title: string,
    readonly detail: string,
  ) {
    super(detail || title);
    this.name = 'Problem';
  }

  /** Reads an RFC 9457 answer; tolerates a proxy's HTML page in its place. */
  static async from(response: Response): Promise<Problem> {
    let title = response.statusText || `Status ${response.status}`;
    let detail = '';
    let type = '';
    try {
      const body: unknown = await response.json();
      if (typeof body === 'object' && body !== null) {
        const problem = body as { title?: unknown; detail?: unknown; type?: unknown; errors?: unknown };
        if (typeof problem.title === 'string') title = problem.title;
        if (typeof problem.detail === 'string') detail = problem.detail;
        if (typeof problem.type === 'string') type = problem.type;
        const faults = Array.isArray(problem.errors) ? problem.errors.map(fault).filter(Boolean) : [];
        if (faults.length > 0) detail = faults.join('; ');
      }
    } catch {
      detail = 'The answer was not JSON. Is a proxy in the way?';
    }
    return new Problem(kindOf(response.status, type), response.status, title, detail);
  }

  static of(error: unknown): Problem {
    if (error instanceof Problem) return error;
    const message = error instanceof Error ? error.message : String(error);
    return new Problem('unreachable', 0, 'No answer', message);
  }
}

function kindOf(status: number, type: string): ProblemKind {
  switch (status) {
    case 401:
    case 403:
      return 'refused';
    case 404:
      return 'missing';
    case 503:
      // The server's own database being away is a 503 too.
      return type.startsWith('urn:segno:problem:no-executor') ? 'no-executor' : 'failed';
    default:
      return 'failed';
  }
}

function fault(entry: unknown): string {
  if (typeof entry !== 'object' || entry === null) return '';
  const { location, message } = entry as { location?: unknown; message?: unknown };
  if (typeof message !== 'string') return '';
  return typeof location === 'string' ? `${location}: ${message}` : message;
}
