import { useEffect, useRef } from 'react';
import { createKeybindingsHandler } from 'tinykeys';

type Bindings = Record<string, (event: KeyboardEvent) => void>;

/** Whether keys typed now belong to a field, or to a dialog that is open above the page. */
function isTaken(event: KeyboardEvent): boolean {
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  if (target.closest('input, textarea, select, [contenteditable=true]')) return true;
  return document.querySelector('[role=dialog][data-open], [role=menu][data-open]') !== null;
}

/** Binds keys for as long as the caller is shown. Bindings with a modifier also work inside fields. */
export function useHotkeys(bindings: Bindings): void {
  const latest = useRef(bindings);
  useEffect(() => {
    latest.current = bindings;
  });
  const names = Object.keys(bindings).join('\n');
  useEffect(() => {
    const handler = (wanted: (name: string) => boolean) => {
      const map: Bindings = {};
      for (const name of names.split('\n').filter(wanted)) {
        map[name] = (event) => {
          event.preventDefault();
          latest.current[name]?.(event);
        };
      }
      return createKeybindingsHandler(map);
    };
    const everywhere = handler((name) => name.includes('$mod'));
    const onPage = handler((name) => !name.includes('$mod'));
    const listener = (event: KeyboardEvent) => {
      everywhere(event);
      // What is typed elsewhere must not reach the matcher at all: a word that ends in "g" would be half of a sequence.
      if (!isTaken(event)) onPage(event);
    };
    window.addEventListener('keydown', listener);
    return () => window.removeEventListener('keydown', listener);
  }, [names]);
}

/** The sheet behind `?`. Pages bind what is listed here. */
export const SHORTCUTS: { title: string; keys: [keys: string[], what: string][] }[] = [
  {
    title: 'Everywhere',
    keys: [
      [['Ctrl', 'K'], 'Jump anywhere'],
      [['p'], 'Pause or go live'],
      [['?'], 'This sheet'],
      [['g', 'f'], 'Fleet'],
      [['g', 'k'], 'API keys'],
      [['g', 'a'], 'Audit'],
      [['g', 'y'], 'System'],
    ],
  },
  {
    title: 'In an application',
    keys: [
      [['g', 'o'], 'Overview'],
      [['g', 'w'], 'Workflows'],
      [['g', 'r'], 'Recovery'],
      [['g', 'e'], 'Executors'],
      [['g', 'v'], 'Versions'],
      [['g', 'q'], 'Queues'],
      [['g', 's'], 'Schedules'],
      [['g', 'b'], 'Operations'],
      [['g', 'm'], 'Metrics'],
      [['g', 'l'], 'Alerts'],
    ],
  },
  {
    title: 'Workflows',
    keys: [
      [['/'], 'Filter'],
      [['j'], 'Next row'],
      [['k'], 'Previous row'],
      [['Enter'], 'Open'],
      [['x'], 'Select'],
      [['n'], 'Show new rows'],
      [['Esc'], 'Clear the selection'],
    ],
  },
  {
    title: 'One workflow',
    keys: [
      [['j'], 'Next step'],
      [['k'], 'Previous step'],
      [['z'], 'Zoom to the step'],
      [['0'], 'Zoom out'],
      [['c'], 'Cancel'],
      [['r'], 'Resume'],
      [['f'], 'Fork'],
      [['y'], 'Copy the id'],
    ],
  },
];
