/** The form of a moment (epoch ms) that a date field takes: local time to the minute. */
export function localInput(time: number): string {
  return new Date(time - new Date(time).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
