import { createContext, type ReactNode, use, useCallback, useEffect, useMemo, useState } from 'react';
import { follow } from '~/api/stream';

type Live = {
  live: boolean;
  toggle: () => void;
  /** The application whose changes the server tells at the moment, if any. */
  following: string | null;
  setFollowing: (app: string | null) => void;
};
const LiveContext = createContext<Live>({
  live: true,
  toggle: () => {},
  following: null,
  setFollowing: () => {},
});

/** Holds whether pages renew themselves. Pausing freezes everything on the screen for reading. */
export function LiveProvider({ children }: { children: ReactNode }) {
  const [live, setLive] = useState(() => sessionStorage.getItem('segno.paused') === null);
  const [following, setFollowing] = useState<string | null>(null);
  const toggle = useCallback(() => {
    setLive((was) => {
      if (was) sessionStorage.setItem('segno.paused', '1');
      else sessionStorage.removeItem('segno.paused');
      return !was;
    });
  }, []);
  const value = useMemo(() => ({ live, toggle, following, setFollowing }), [live, toggle, following]);
  return <LiveContext value={value}>{children}</LiveContext>;
}

export function useLive(): Live {
  return use(LiveContext);
}

/**
 * Follows an application while the caller is shown, the console is live and its tab visible: browsers allow few
 * connections to one server, and hidden tabs must leave them to the one that is looked at.
 */
export function useFollowing(app: string): void {
  const { live, setFollowing } = useLive();
  const visible = useVisible();
  useEffect(() => {
    if (!live || !visible) return;
    const abort = new AbortController();
    void follow(app, abort.signal, (following) => setFollowing(following ? app : null));
    return () => {
      abort.abort();
      setFollowing(null);
    };
  }, [app, live, visible, setFollowing]);
}

function useVisible(): boolean {
  const [visible, setVisible] = useState(() => document.visibilityState === 'visible');
  useEffect(() => {
    const look = () => setVisible(document.visibilityState === 'visible');
    document.addEventListener('visibilitychange', look);
    return () => document.removeEventListener('visibilitychange', look);
  }, []);
  return visible;
}

type Renewal = { refetchInterval: number | false; refetchOnWindowFocus: boolean };

/** Query options that renew every `interval` milliseconds while the console is live and the tab is visible. */
export function useRenewal(interval: number): Renewal {
  const { live } = useLive();
  return { refetchInterval: live ? interval : false, refetchOnWindowFocus: live };
}

/** How often what the server tells is read all the same, milliseconds. */
const NET = 30_000;

/** The same for reads that the server's stream makes old: they are polled only while nothing is followed. */
export function usePushed(app: string, interval: number): Renewal {
  const { following } = useLive();
  return useRenewal(following === app ? Math.max(interval, NET) : interval);
}
