import type { UseQueryResult } from '@tanstack/react-query';
import { CircleAlert, CircleSlash, PlugZap, SearchX, ShieldX, Unplug } from 'lucide-react';
import type { ReactNode } from 'react';
import { Problem } from '~/api/problem';
import s from './states.module.css';

type Tone = 'ok' | 'run' | 'wait' | 'warn' | 'err' | 'off';

/** A whole area that has something else to say than its content. */
export function State(props: {
  icon: ReactNode;
  tone?: Tone;
  title: string;
  children?: ReactNode;
  actions?: ReactNode;
  compact?: boolean;
}) {
  return (
    <div className={s.state} data-tone={props.tone ?? 'off'} data-compact={props.compact || undefined}>
      <div className={s.glyph} aria-hidden>
        {props.icon}
      </div>
      <h2 className={s.title}>{props.title}</h2>
      {props.children && <div className={s.text}>{props.children}</div>}
      {props.actions && <div className={s.actions}>{props.actions}</div>}
    </div>
  );
}

/** There is nothing yet, and that is fine. */
export function Empty(props: { title: string; children?: ReactNode; actions?: ReactNode; icon?: ReactNode }) {
  return (
    <State icon={props.icon ?? <CircleSlash />} title={props.title} actions={props.actions}>
      {props.children}
    </State>
  );
}

/** There is something, but not with these filters. */
export function NoMatch(props: { title: string; children?: ReactNode; actions?: ReactNode }) {
  return (
    <State icon={<SearchX />} title={props.title} actions={props.actions}>
      {props.children}
    </State>
  );
}

/** The server is there, but no process of the application is connected to ask. */
export function NotConnected({ children }: { children?: ReactNode }) {
  return (
    <State icon={<Unplug />} tone="warn" title="No executor is connected" actions={children}>
      Workflows live in the application’s own database, and Segno reads them through a connected executor.
      This page fills by itself when one connects. Workflows may well be running meanwhile.
    </State>
  );
}

/** The words for a call that failed and left nothing to show. */
export function Failed({ problem, children }: { problem: Problem; children?: ReactNode }) {
  switch (problem.kind) {
    case 'unreachable':
      return (
        <State icon={<PlugZap />} tone="err" title="The server does not answer" actions={children}>
          Trying again by itself. Your workflows do not need the server to run.
        </State>
      );
    case 'no-executor':
      return <NotConnected>{children}</NotConnected>;
    case 'refused':
      return (
        <State icon={<ShieldX />} tone="warn" title="Not allowed" actions={children}>
          {problem.detail || 'The key you logged in with does not have the permission for this.'}
        </State>
      );
    case 'missing':
      return (
        <State icon={<SearchX />} title="Not found" actions={children}>
          <span className="foreign">
            {problem.detail || 'There is nothing at this address, or not any more.'}
          </span>
        </State>
      );
    case 'failed':
      return (
        <State icon={<CircleAlert />} tone="err" title={problem.title} actions={children}>
          <span className="foreign">{problem.detail}</span>
        </State>
      );
  }
}

export function Loading({ rows = 6 }: { rows?: number }) {
  return (
    <div className={s.skeleton} role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, row) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: placeholders are all alike
        <div key={row} className={s.bone}>
          <span style={{ width: 64 }} />
          <span style={{ width: `${34 - ((row * 7) % 13)}%` }} />
          <span style={{ width: 90 }} />
        </div>
      ))}
    </div>
  );
}

/** A strip above content: something about the content that a reader must know. */
export function Banner({ tone, icon, children }: { tone: Tone; icon?: ReactNode; children: ReactNode }) {
  return (
    <div className={s.banner} data-tone={tone}>
      {icon}
      <div className="grow">{children}</div>
    </div>
  );
}

/** Why an action failed, next to it. */
export function Fault({ problem }: { problem: Problem }) {
  return (
    <div className={s.fault} role="alert">
      <strong>{problem.kind === 'unreachable' ? 'The server does not answer' : problem.title}</strong>
      {problem.detail && <>: {problem.detail}</>}
    </div>
  );
}

/**
 * Shows a query: its content once there is any (old content with a remark while renewals fail), else that it is
 * loading, or why there is none.
 */
export function Loaded<Data>(props: {
  query: Pick<UseQueryResult<Data, unknown>, 'data' | 'error'>;
  rows?: number;
  failed?: (problem: Problem) => ReactNode;
  children: (data: Data) => ReactNode;
}) {
  const { data, error } = props.query;
  if (data !== undefined) {
    return (
      <>
        {error != null && <Stale problem={Problem.of(error)} />}
        {props.children(data)}
      </>
    );
  }
  if (error != null) return props.failed?.(Problem.of(error)) ?? <Failed problem={Problem.of(error)} />;
  return <Loading rows={props.rows ?? 6} />;
}

export function Stale({ problem }: { problem: Problem }) {
  return (
    <Banner tone="warn" icon={<CircleAlert />}>
      {problem.kind === 'unreachable'
        ? 'The server does not answer: this is what it said last.'
        : problem.kind === 'no-executor'
          ? 'No executor is connected: this is what the last one said.'
          : `This could not be renewed: ${problem.message}`}
    </Banner>
  );
}
