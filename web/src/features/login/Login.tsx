import { useMutation, useQuery } from '@tanstack/react-query';
import { useRouter } from '@tanstack/react-router';
import { type FormEvent, useState } from 'react';
import { queryClient } from '~/api/client';
import { type OidcConfig, sessionConfigQuery } from '~/api/config';
import { Problem } from '~/api/problem';
import { read } from '~/api/queries';
import { forgetSession, setSessionKey } from '~/api/session';
import { Button, Field, Input } from '~/ui/controls';
import { Banner, Failed, Fault, Loading } from '~/ui/states';
import { Card } from './Card';
import s from './Login.module.css';

/** The way in: an issuer where there is one, a key everywhere. */
export function Login({ next }: { next: string }) {
  const config = useQuery({
    ...sessionConfigQuery,
    refetchInterval: ({ state }) => (state.data ? false : 3_000),
  });
  const [withKey, setWithKey] = useState(false);
  if (!config.data) {
    return <Card>{config.error ? <Failed problem={Problem.of(config.error)} /> : <Loading rows={2} />}</Card>;
  }
  const { mode, oidc } = config.data;
  if (mode === 'oidc' && oidc && !withKey) {
    return <IssuerLogin config={oidc} next={next} onKey={() => setWithKey(true)} />;
  }
  return <KeyLogin next={next} onBack={mode === 'oidc' ? () => setWithKey(false) : undefined} />;
}

function IssuerLogin({ config, next, onKey }: { config: OidcConfig; next: string; onKey: () => void }) {
  const begin = useMutation({
    mutationFn: async () => (await import('~/api/oidc')).beginLogin(config, next),
  });
  const ready = config.authorizationEndpoint !== null && config.clientId !== null;
  return (
    <Card>
      <p className="soft">
        You log in at <strong className="foreign">{hostOf(config.issuer)}</strong> and come back here.
      </p>
      {!ready && (
        <Banner tone="warn">
          {config.clientId === null
            ? 'The server does not say as which client the console logs in: set SEGNO_OIDC_CLIENT_ID.'
            : 'The issuer does not answer the server at the moment. This page tries again.'}
        </Banner>
      )}
      <Button kind="primary" disabled={!ready || begin.isPending} autoFocus onClick={() => begin.mutate()}>
        {begin.isPending ? 'On the way…' : 'Log in'}
      </Button>
      {begin.error && (
        <Fault problem={new Problem('failed', 0, 'The login did not begin', begin.error.message)} />
      )}
      <button type="button" className={s.other} onClick={onKey}>
        Use an API key instead
      </button>
    </Card>
  );
}

function hostOf(issuer: string): string {
  return URL.canParse(issuer) ? new URL(issuer).host : issuer;
}

function KeyLogin({ next, onBack }: { next: string; onBack: (() => void) | undefined }) {
  const router = useRouter();
  const [key, setKey] = useState('');
  const login = useMutation({
    mutationFn: async () => {
      setSessionKey(key.trim());
      queryClient.clear();
      await queryClient.fetchQuery({ ...read.self(), retry: false, staleTime: 0 });
    },
    onSuccess: () => router.navigate({ href: next }),
    onError: forgetSession,
  });
  const problem = login.error && Problem.of(login.error);
  function submit(event: FormEvent) {
    event.preventDefault();
    login.mutate();
  }
  return (
    <Card onSubmit={submit}>
      <Field
        label="API key"
        hint="It is kept in this tab only and forgotten when the tab closes."
        fault={problem ? faultOf(problem) : undefined}
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
              login.reset();
            }}
          />
        )}
      </Field>
      <Button kind="primary" type="submit" disabled={login.isPending || key.trim() === ''}>
        {login.isPending ? 'Checking…' : 'Log in'}
      </Button>
      {onBack ? (
        <button type="button" className={s.other} onClick={onBack}>
          Log in as a person instead
        </button>
      ) : (
        <p className="muted">
          The first start of the server printed an admin key. <code>segno key create --admin</code> on the
          server makes another.
        </p>
      )}
    </Card>
  );
}

function faultOf(problem: Problem): string {
  if (problem.status === 401) return 'The server does not know this key, or it was revoked.';
  return problem.kind === 'unreachable' ? 'The server does not answer.' : problem.message;
}
