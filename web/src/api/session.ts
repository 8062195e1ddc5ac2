/**
 * Who is calling. A key lives in session storage only: it is gone with the tab, never in a cookie,
 * a URL or local storage.
 */
const KEY = 'segno.key';

/** The organisation of servers without users. */
export const ORG = 'local';

export function sessionKey(): string | null {
  return sessionStorage.getItem(KEY);
}

export function setSessionKey(key: string | null): void {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}
