import { createFileRoute, useNavigate, useRouter } from '@tanstack/react-router';
import { type FormEvent, useState } from 'react';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { read } from '~/api/queries';
import { setSessionKey } from '~/api/session';
import { Mark } from '~/app/Mark';
import { one } from '~/app/search';
import { Button, Field, Input } from '~/ui/controls';
import s from './-login.module.css';

export const Route = createFileRoute('/login')({
  validateSearch: (search: Record<string, unknown>): { next?: string } => {
    const next = one(search.next);
    // Only addresses of the console itself: a link must not be able to send a fresh login elsewhere.
    return next?.startsWith('/') && !next.startsWith('//') ? { next } : {};
  },
  component: Login,
});

function Login() {
  const { next } = Route.useSearch();
  const navigate = useNavigate();
  const router = useRouter();
  const [key, setKey] = useState('');
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState<string>();

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setSessionKey(key.trim());
    try {
      await queryClient.fetchQuery({ ...read.apps(), retry: false, staleTime: 0 });
      if (next) await router.navigate({ href: next });
      else await navigate({ to: '/' });
    } catch (error) {
      const problem = Problem.of(error);
      if (problem.status === 403) {
        // The key is known but may not list applications; let its owner use what it may do.
        await navigate({ to: '/keys' });
        return;
      }
      setSessionKey(null);
      setFault(
        problem.status === 401
          ? 'The server does not know this key, or it was revoked.'
          : problem.kind === 'unreachable'
            ? 'The server does not answer.'
            : problem.message,
      );
    } finally {
      setBusy(false);
    }
  }

  return (
    <main className={s.page}>
      <form className={s.card} onSubmit={(event) => void submit(event)}>
        <div className={s.brand}>
          <Mark />
          <h1>Segno</h1>
        </div>
        <Field
          label="API key"
          hint="It is kept in this tab only and forgotten when the tab closes."
          fault={fault}
        >
          {(control) => (
            <Input
              {...control}
              type="password"
              name="segno-key"
              placeholder="dbos_…"
              className="mono"
              value={key}
              autoFocus
              onChange={(event) => {
                setKey(event.target.value);
                setFault(undefined);
              }}
            />
          )}
        </Field>
        <Button kind="primary" type="submit" disabled={busy || key.trim() === ''}>
          {busy ? 'Checking…' : 'Log in'}
        </Button>
        <p className="muted">
          The first start of the server printed an admin key. <code>segno key create --admin</code> on the
          server makes another.
        </p>
      </form>
    </main>
  );
}
