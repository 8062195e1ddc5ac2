import { useQuery } from '@tanstack/react-query';
import { Link, Outlet, useNavigate, useParams } from '@tanstack/react-router';
import {
  Activity,
  Bell,
  BookOpen,
  CalendarClock,
  ChartColumn,
  Cpu,
  Gauge,
  GitBranch,
  Keyboard,
  KeyRound,
  Layers,
  LayoutGrid,
  ListChecks,
  LogOut,
  Megaphone,
  Menu as MenuIcon,
  Monitor,
  Moon,
  Pause,
  Plug,
  RotateCcw,
  ScrollText,
  Search,
  Server,
  Settings,
  Sun,
  Users,
} from 'lucide-react';
import { lazy, type ReactNode, Suspense, useState } from 'react';
import { serverUrl } from '~/api/base';
import { useMay, useSelf } from '~/api/may';
import { Problem } from '~/api/problem';
import { read } from '~/api/queries';
import { leave } from '~/features/login/leave';
import { Button, Kbd } from '~/ui/controls';
import { Dot } from '~/ui/data';
import { count } from '~/ui/format';
import { useLive, usePushed, useRenewal } from '~/ui/live';
import { useHotkeys } from './hotkeys';
import { Mark } from './Mark';
import s from './Shell.module.css';
import { setTheme, type Theme, theme } from './theme';

// Loaded when they are first asked for.
const Drawer = lazy(() => import('./Drawer').then((module) => ({ default: module.Drawer })));
const CommandPalette = lazy(() => import('./Palette').then((module) => ({ default: module.CommandPalette })));
const ShortcutSheet = lazy(() =>
  import('./ShortcutSheet').then((module) => ({ default: module.ShortcutSheet })),
);

/** The frame around every page: navigation, the live switch, the palette, keyboard. */
export function Shell() {
  const { app } = useParams({ strict: false });
  const navigate = useNavigate();
  const { toggle } = useLive();
  const [palette, setPalette] = useState(false);
  const [sheet, setSheet] = useState(false);
  const [drawer, setDrawer] = useState(false);

  const inApp = (to: AppTarget) => () => {
    if (app) void navigate({ to: `/apps/$app${to}`, params: { app } });
  };
  useHotkeys({
    '$mod+k': () => setPalette(true),
    '?': () => setSheet(true),
    p: toggle,
    'g f': () => void navigate({ to: '/' }),
    'g k': () => void navigate({ to: '/keys' }),
    'g o': inApp(''),
    'g w': inApp('/workflows'),
    'g r': inApp('/recovery'),
    'g e': inApp('/executors'),
    'g v': inApp('/versions'),
    'g q': inApp('/queues'),
    'g s': inApp('/schedules'),
    'g b': inApp('/operations'),
    'g m': inApp('/metrics'),
    'g l': inApp('/alerts'),
    'g y': () => void navigate({ to: '/system' }),
    'g a': () => void navigate({ to: '/audit' }),
  });

  const side = <Side app={app} onPalette={() => setPalette(true)} onSheet={() => setSheet(true)} />;
  return (
    <div className={s.shell}>
      <a className={s.skip} href="#content">
        Skip to content
      </a>
      {side}
      <div className={s.main}>
        <header className={s.top}>
          <Button
            className={s.burger}
            kind="quiet"
            icon
            aria-label="Navigation"
            onClick={() => setDrawer(true)}
          >
            <MenuIcon />
          </Button>
          <Crumbs app={app} />
          <div className="grow" />
          <LiveSwitch />
        </header>
        <main className={s.content} id="content">
          <Outlet />
        </main>
      </div>
      <Suspense>
        {drawer && <Drawer onClose={() => setDrawer(false)}>{side}</Drawer>}
        {palette && (
          <CommandPalette app={app} open onClose={() => setPalette(false)} onSheet={() => setSheet(true)} />
        )}
        {sheet && <ShortcutSheet open onClose={() => setSheet(false)} />}
      </Suspense>
    </div>
  );
}

function Crumbs({ app }: { app: string | undefined }) {
  const { id } = useParams({ strict: false });
  return (
    <nav className={s.crumbs} aria-label="Breadcrumb">
      <Link to="/">Fleet</Link>
      {app && (
        <>
          <span aria-hidden>/</span>
          <Link to="/apps/$app" params={{ app }} className="clip">
            {app}
          </Link>
        </>
      )}
      {app && id && (
        <>
          <span aria-hidden>/</span>
          <Link to="/apps/$app/workflows" params={{ app }}>
            workflows
          </Link>
        </>
      )}
    </nav>
  );
}

function LiveSwitch() {
  const { live, toggle } = useLive();
  const apps = useQuery({ ...read.apps(), ...useRenewal(10_000) });
  const away = apps.error != null && Problem.of(apps.error).kind === 'unreachable';
  return (
    <button
      type="button"
      className={s.live}
      aria-pressed={live}
      title={live ? 'Pages renew themselves. Pause to read (p)' : 'Nothing changes until you go live (p)'}
      onClick={toggle}
    >
      {!live ? <Pause style={{ width: 12 }} /> : <Dot tone={away ? 'err' : 'ok'} pulse={!away} />}
      {!live ? 'Paused' : away ? 'Reconnecting' : 'Live'}
    </button>
  );
}

function Side(props: { app: string | undefined; onPalette: () => void; onSheet: () => void }) {
  const self = useSelf();
  const may = useMay();
  return (
    <nav className={s.side} aria-label="Main">
      <Link to="/" className={s.brand}>
        <Mark /> Segno
      </Link>
      <button type="button" className={s.jump} onClick={props.onPalette}>
        <Search /> <span className="grow">Jump to…</span> <Kbd>Ctrl K</Kbd>
      </button>
      <div className={s.nav}>
        <NavLink to="/" icon={<LayoutGrid />} exact>
          Fleet
        </NavLink>
        {may('token.read') && (
          <NavLink to="/keys" icon={<KeyRound />}>
            API keys
          </NavLink>
        )}
        {may('organization.read') && self?.mode !== 'none' && (
          <NavLink to="/audit" icon={<ScrollText />}>
            Audit
          </NavLink>
        )}
        {may('organization.read') && self?.mode === 'oidc' && (
          <NavLink to="/members" icon={<Users />}>
            Members
          </NavLink>
        )}
        {may('application.read') && (
          <NavLink to="/channels" icon={<Megaphone />}>
            Channels
          </NavLink>
        )}
        <NavLink to="/system" icon={<Cpu />}>
          System
        </NavLink>
      </div>
      {props.app && <AppNav app={props.app} />}
      <div className={s.foot}>
        <ThemeButton />
        <button type="button" className={s.link} onClick={props.onSheet}>
          <Keyboard /> Shortcuts
        </button>
        <a className={s.link} href={serverUrl('docs')}>
          <BookOpen /> API reference
        </a>
        {self && self.mode !== 'none' && (
          <button
            type="button"
            className={s.link}
            onClick={() => void leave()}
            title={`Logged in as ${self.display}`}
          >
            <LogOut /> <bdi className="clip">Log out {self.display}</bdi>
          </button>
        )}
      </div>
    </nav>
  );
}

function AppNav({ app }: { app: string }) {
  const stranded = useQuery({
    ...read.recoveries(app, { status: 'STRANDED', limit: 100 }),
    ...usePushed(app, 5_000),
  });
  const executors = useQuery({ ...read.executors(app), ...usePushed(app, 5_000) });
  const healthy = executors.data?.filter((executor) => executor.status === 'HEALTHY').length;
  const strandedCount = stranded.data?.length ?? 0;
  return (
    <>
      <div className={s.navTitle}>
        <bdi className="clip">{app}</bdi>
      </div>
      <div className={s.nav}>
        <NavLink to="/apps/$app" app={app} icon={<Gauge />} exact>
          Overview
        </NavLink>
        <NavLink to="/apps/$app/workflows" app={app} icon={<Activity />}>
          Workflows
        </NavLink>
        <NavLink
          to="/apps/$app/recovery"
          app={app}
          icon={<RotateCcw />}
          count={
            strandedCount > 0 && (
              <span className={s.count} data-tone="warn" title={`${strandedCount} stranded`}>
                {count(strandedCount)}
              </span>
            )
          }
        >
          Recovery
        </NavLink>
        <NavLink
          to="/apps/$app/executors"
          app={app}
          icon={<Server />}
          count={healthy !== undefined && <span className={s.count}>{count(healthy)}</span>}
        >
          Executors
        </NavLink>
        <NavLink to="/apps/$app/versions" app={app} icon={<GitBranch />}>
          Versions
        </NavLink>
        <NavLink to="/apps/$app/queues" app={app} icon={<Layers />}>
          Queues
        </NavLink>
        <NavLink to="/apps/$app/schedules" app={app} icon={<CalendarClock />}>
          Schedules
        </NavLink>
        <NavLink to="/apps/$app/operations" app={app} icon={<ListChecks />}>
          Operations
        </NavLink>
        <NavLink to="/apps/$app/metrics" app={app} icon={<ChartColumn />}>
          Metrics
        </NavLink>
        <NavLink to="/apps/$app/alerts" app={app} icon={<Bell />}>
          Alerts
        </NavLink>
        <NavLink to="/apps/$app/connect" app={app} icon={<Plug />}>
          Connect
        </NavLink>
        <NavLink to="/apps/$app/settings" app={app} icon={<Settings />}>
          Settings
        </NavLink>
      </div>
    </>
  );
}

type AppTarget =
  | ''
  | '/workflows'
  | '/recovery'
  | '/executors'
  | '/versions'
  | '/queues'
  | '/schedules'
  | '/operations'
  | '/metrics'
  | '/alerts'
  | '/connect'
  | '/settings';

function NavLink(props: {
  to: '/' | '/keys' | '/audit' | '/system' | '/members' | '/channels' | `/apps/$app${AppTarget}`;
  app?: string;
  icon: ReactNode;
  exact?: boolean;
  count?: ReactNode;
  children: ReactNode;
}) {
  return (
    <Link
      to={props.to}
      params={props.app ? { app: props.app } : {}}
      className={s.link}
      activeOptions={{ exact: props.exact ?? false, includeSearch: false }}
    >
      {props.icon}
      {props.children}
      {props.count}
    </Link>
  );
}

const THEMES: Record<Theme, { next: Theme; label: string; icon: ReactNode }> = {
  system: { next: 'light', label: 'Theme: system', icon: <Monitor /> },
  light: { next: 'dark', label: 'Theme: light', icon: <Sun /> },
  dark: { next: 'system', label: 'Theme: dark', icon: <Moon /> },
};

function ThemeButton() {
  const [choice, setChoice] = useState(theme);
  const shown = THEMES[choice];
  return (
    <button
      type="button"
      className={s.link}
      onClick={(event) => {
        event.stopPropagation();
        setTheme(shown.next);
        setChoice(shown.next);
      }}
    >
      {shown.icon} {shown.label}
    </button>
  );
}
