import { useQuery } from '@tanstack/react-query';
import { Link, useRouter } from '@tanstack/react-router';
import { useEffect } from 'react';
import { queryClient } from '~/api/client';
import { sessionConfigQuery } from '~/api/config';
import { buttonLook } from '~/ui/controls';
import { Loading } from '~/ui/states';
import { Card } from './Card';
import s from './Login.module.css';

/** Where the issuer sends the browser back to. */
export function Callback() {
  const router = useRouter();
  const finish = useQuery({
    queryKey: ['login-callback'],
    // A code may be used once: neither renewed nor tried again.
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
    retry: false,
    refetchOnWindowFocus: false,
    queryFn: async () => {
      const [{ finishLogin }, config] = await Promise.all([
        import('~/api/oidc'),
        queryClient.ensureQueryData(sessionConfigQuery),
      ]);
      if (!config.oidc) throw new Error('This server does not let people in by an issuer.');
      return finishLogin(config.oidc, new URL(window.location.href));
    },
  });
  const { data: next } = finish;
  useEffect(() => {
    if (next === undefined) return;
    queryClient.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== 'session-config' });
    void router.navigate({ href: next, replace: true });
  }, [next, router]);
  if (!finish.error) {
    return (
      <Card>
        <Loading rows={2} />
      </Card>
    );
  }
  return (
    <Card>
      <p role="alert" className={s.fault}>
        The login did not succeed: <span className="foreign">{reason(finish.error)}</span>
      </p>
      <Link to="/login" {...buttonLook('primary')}>
        Try again
      </Link>
    </Card>
  );
}

/** What the issuer said, if it said something, else what went wrong here. */
function reason(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'error_description' in error) {
    const { error_description } = error as { error_description: unknown };
    if (typeof error_description === 'string' && error_description !== '') return error_description;
  }
  return error instanceof Error ? error.message : String(error);
}
