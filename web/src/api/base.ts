/**
 * Where the console lives: the path that a proxy took off before the server saw it, with a slash at its end. The
 * console's own scripts lie in `assets/` below it, whatever it is; while developing they do not, and it is the root.
 */
export const BASE = import.meta.env.PROD ? new URL(/* @vite-ignore */ '..', import.meta.url).pathname : '/';

/** An address of the server outside the console, such as `docs`. */
export function serverUrl(path: string): string {
  return new URL(`${BASE}${path}`, window.location.origin).href;
}
