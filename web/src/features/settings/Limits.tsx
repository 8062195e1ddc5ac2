import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { type App, act, read } from '~/api/queries';
import { Button, Field, Input } from '~/ui/controls';
import { Banner, Fault } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { parseSpan, writeSpan } from './spans';

/** What clears a limit in the API. */
const NONE = -1;
const EXAMPLE = 'A length of time such as 30d, 12h or 1h 30m, or nothing.';

/** How long completed workflows are kept, and how long any may take. Each of the three may be without limit. */
export function Limits({ app }: { app: App }) {
  const [age, setAge] = useState(written(app.gcTimeThresholdMs));
  const [rows, setRows] = useState(app.gcRowsThreshold === null ? '' : String(app.gcRowsThreshold));
  const [timeout, setTimeout_] = useState(written(app.globalTimeoutMs));
  const save = useMutation({
    mutationFn: () =>
      act.updateApp(app.name, {
        gcTimeThresholdMs: parseSpan(age) ?? NONE,
        gcRowsThreshold: rows.trim() === '' ? NONE : Number(rows),
        globalTimeoutMs: parseSpan(timeout) ?? NONE,
      }),
    onSuccess: () => {
      notify({ title: 'Limits saved' });
      void queryClient.invalidateQueries({ queryKey: read.app(app.name).queryKey });
    },
  });
  const faults = {
    age: age.trim() !== '' && parseSpan(age) === null ? EXAMPLE : undefined,
    rows:
      rows.trim() !== '' && !/^[1-9]\d{0,15}$/.test(rows.trim()) ? 'A whole number, or nothing.' : undefined,
    timeout: timeout.trim() !== '' && parseSpan(timeout) === null ? EXAMPLE : undefined,
  };
  const wrong = Object.values(faults).some(Boolean);
  function submit(event: FormEvent) {
    event.preventDefault();
    if (!wrong) save.mutate();
  }
  return (
    <form className="stack" style={{ gap: 16 }} onSubmit={submit}>
      <Field
        label="Delete completed workflows that are older than"
        hint="Their records and steps are deleted from the application’s database by one of its executors. Empty: never."
        fault={faults.age}
      >
        {(control) => (
          <Input
            {...control}
            style={{ maxWidth: 200 }}
            placeholder="for ever"
            value={age}
            onChange={(event) => setAge(event.target.value)}
          />
        )}
      </Field>
      <Field
        label="Completed workflows that are kept, at most"
        hint="The oldest go first. Empty: any number."
        fault={faults.rows}
      >
        {(control) => (
          <Input
            {...control}
            inputMode="numeric"
            style={{ maxWidth: 200 }}
            placeholder="any number"
            value={rows}
            onChange={(event) => setRows(event.target.value)}
          />
        )}
      </Field>
      <Field
        label="Cancel workflows that are not complete after"
        hint="Counted from their creation, time on queues and asleep included. Empty: never."
        fault={faults.timeout}
      >
        {(control) => (
          <Input
            {...control}
            style={{ maxWidth: 200 }}
            placeholder="no limit"
            value={timeout}
            onChange={(event) => setTimeout_(event.target.value)}
          />
        )}
      </Field>
      {shortens(app, age, rows) && (
        <Banner tone="warn">
          This deletes records that are kept so far. Deleted workflows cannot be brought back.
        </Banner>
      )}
      {save.error && <Fault problem={Problem.of(save.error)} />}
      <div>
        <Button kind="primary" type="submit" disabled={wrong || save.isPending}>
          {save.isPending ? 'Saving…' : 'Save the limits'}
        </Button>
      </div>
    </form>
  );
}

function written(ms: number | null): string {
  return ms === null ? '' : writeSpan(ms);
}

function shortens(app: App, age: string, rows: string): boolean {
  const [nextAge, nextRows] = [parseSpan(age), rows.trim() === '' ? null : Number(rows)];
  const less = (next: number | null, was: number | null) => next !== null && (was === null || next < was);
  return less(nextAge, app.gcTimeThresholdMs) || less(nextRows, app.gcRowsThreshold);
}
