import { serverUrl } from '~/api/base';
import { queryClient } from '~/api/client';
import { sessionConfigQuery } from '~/api/config';
import { forgetSession, sessionTokens } from '~/api/session';

/** Forgets who was here, and ends the session at the issuer too, if there is one that can. */
export async function leave(): Promise<void> {
  const tokens = sessionTokens();
  forgetSession();
  queryClient.clear();
  let target = serverUrl('login');
  if (tokens) {
    const [{ logoutUrl }, { oidc }] = await Promise.all([
      import('~/api/oidc'),
      queryClient.ensureQueryData(sessionConfigQuery),
    ]);
    target = (oidc && logoutUrl(oidc, tokens.id)) ?? target;
  }
  window.location.assign(target);
}
