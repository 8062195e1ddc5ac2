/**
 * Who is calling. Credentials live in session storage only: they are gone with the tab, never in a cookie, a URL or
 * local storage.
 */
const KEY = 'segno.key';
const TOKENS = 'segno.tokens';

/** What an issuer gave. `expiresAt` is epoch milliseconds. */
export type Tokens = { bearer: string; expiresAt: number | null; refresh: string | null; id: string | null };

/** The API key that was pasted, if one was. */
export function sessionKey(): string | null {
  return sessionStorage.getItem(KEY);
}

export function setSessionKey(key: string): void {
  forgetSession();
  sessionStorage.setItem(KEY, key);
}

export function sessionTokens(): Tokens | null {
  const stored = sessionStorage.getItem(TOKENS);
  if (stored === null) return null;
  try {
    return JSON.parse(stored) as Tokens;
  } catch {
    return null;
  }
}

export function setSessionTokens(tokens: Tokens): void {
  sessionStorage.removeItem(KEY);
  sessionStorage.setItem(TOKENS, JSON.stringify(tokens));
}

export function forgetSession(): void {
  sessionStorage.removeItem(KEY);
  sessionStorage.removeItem(TOKENS);
}

let org = 'local';

/** The caller's organisation, part of nearly every path. */
export function orgName(): string {
  return org;
}

export function setOrgName(name: string): void {
  org = name;
}
