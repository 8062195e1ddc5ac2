import { createContext, type ReactNode, use, useCallback, useMemo, useState } from 'react';

type Live = { live: boolean; toggle: () => void };
const LiveContext = createContext<Live>({ live: true, toggle: () => {} });

/** Holds whether pages renew themselves. Pausing freezes everything on the screen for reading. */
export function LiveProvider({ children }: { children: ReactNode }) {
  const [live, setLive] = useState(() => sessionStorage.getItem('segno.paused') === null);
  const toggle = useCallback(() => {
    setLive((was) => {
      if (was) sessionStorage.setItem('segno.paused', '1');
      else sessionStorage.removeItem('segno.paused');
      return !was;
    });
  }, []);
  return <LiveContext value={useMemo(() => ({ live, toggle }), [live, toggle])}>{children}</LiveContext>;
}

export function useLive(): Live {
  return use(LiveContext);
}

/**
 * Query options that renew every `interval` milliseconds while the console is live and the tab is visible.
 */
export function useRenewal(interval: number): {
  refetchInterval: number | false;
  refetchOnWindowFocus: boolean;
} {
  const { live } = useLive();
  return { refetchInterval: live ? interval : false, refetchOnWindowFocus: live };
}
