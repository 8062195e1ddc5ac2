import {
  AlarmClock,
  Check,
  CircleSlash,
  Clock,
  Copy as CopyIcon,
  type LucideIcon,
  Play,
  TriangleAlert,
  X,
} from 'lucide-react';
import { type ReactNode, useEffect, useState } from 'react';
import { useNow } from './clock';
import s from './data.module.css';
import { age, cut, duration } from './format';

export type Tone = 'ok' | 'run' | 'wait' | 'warn' | 'err' | 'off';

const STATUS: Record<string, { tone: Tone; label: string; icon: LucideIcon }> = {
  PENDING: { tone: 'run', label: 'Pending', icon: Play },
  ENQUEUED: { tone: 'wait', label: 'Enqueued', icon: Clock },
  DELAYED: { tone: 'wait', label: 'Delayed', icon: AlarmClock },
  SUCCESS: { tone: 'ok', label: 'Success', icon: Check },
  ERROR: { tone: 'err', label: 'Error', icon: X },
  CANCELLED: { tone: 'off', label: 'Cancelled', icon: CircleSlash },
  MAX_RECOVERY_ATTEMPTS_EXCEEDED: { tone: 'err', label: 'Recoveries exhausted', icon: TriangleAlert },
};

/** The statuses a workflow can have, in the order in which it has them. */
export const STATUSES = Object.keys(STATUS).sort((a, b) => order(a) - order(b));
function order(status: string): number {
  return (
    ['ENQUEUED', 'DELAYED', 'PENDING', 'SUCCESS', 'ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'].indexOf(
      status,
    ) >>> 0
  );
}

/** Whether a workflow of this status can still do something by itself. */
export function isActive(status: string): boolean {
  return status === 'PENDING' || status === 'ENQUEUED' || status === 'DELAYED';
}

export function statusLabel(status: string): string {
  return STATUS[status]?.label ?? status;
}

export function statusTone(status: string): Tone {
  return STATUS[status]?.tone ?? 'off';
}

export function StatusBadge({ status }: { status: string }) {
  const known = STATUS[status];
  const Icon = known?.icon;
  return (
    <span className={s.badge} data-tone={known?.tone ?? 'off'} title={status}>
      {Icon && <Icon aria-hidden />}
      {known?.label ?? status}
    </span>
  );
}

export function Badge({
  tone = 'off',
  icon,
  children,
}: {
  tone?: Tone;
  icon?: ReactNode;
  children: ReactNode;
}) {
  return (
    <span className={s.badge} data-tone={tone}>
      {icon}
      {children}
    </span>
  );
}

export function Dot({ tone, hollow, pulse }: { tone: Tone; hollow?: boolean; pulse?: boolean }) {
  return (
    <span
      className={s.dot}
      data-tone={tone}
      data-hollow={hollow || undefined}
      data-pulse={pulse || undefined}
      aria-hidden
    />
  );
}

export function Chip({ tone, children, title }: { tone?: Tone; children: ReactNode; title?: string }) {
  return (
    <span className={s.chip} data-tone={tone} title={title}>
      {children}
    </span>
  );
}

const local = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const short = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** How long ago, ticking; the exact moment, local and UTC, on hover. */
export function Age({ time }: { time: string | null | undefined }) {
  const now = useNow();
  if (!time) return <span className="muted">–</span>;
  const then = Date.parse(time);
  return (
    <time className="num" dateTime={time} title={`${local.format(then)}\n${time}`}>
      {age(then, now)}
    </time>
  );
}

/** A moment as local wall-clock time; with the date unless it is today. */
export function Moment({ time }: { time: string | null | undefined }) {
  const now = useNow();
  if (!time) return <span className="muted">–</span>;
  const then = Date.parse(time);
  const today = new Date(then).toDateString() === new Date(now).toDateString();
  return (
    <time className="num" dateTime={time} title={`${time}\n${age(then, now)}`}>
      {today ? short.format(then) : local.format(then)}
    </time>
  );
}

/** How long something took, or has taken until now while `end` is missing. */
export function Took({ start, end }: { start: string | null | undefined; end: string | null | undefined }) {
  if (!start) return <span className="muted">–</span>;
  return end ? (
    <span className="num">{duration(Date.parse(end) - Date.parse(start))}</span>
  ) : (
    <Running since={start} />
  );
}

function Running({ since }: { since: string }) {
  const now = useNow();
  return <span className="num">{duration(Math.floor((now - Date.parse(since)) / 1_000) * 1_000)}</span>;
}

export function Copy({ text, label, always }: { text: string; label: string; always?: boolean }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 1_500);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <button
      type="button"
      className={s.copy}
      data-always={always || copied || undefined}
      aria-label={copied ? 'Copied' : `Copy ${label}`}
      title={copied ? 'Copied' : `Copy ${label}`}
      onClick={(event) => {
        event.preventDefault();
        event.stopPropagation();
        void navigator.clipboard.writeText(text).then(() => setCopied(true));
      }}
    >
      {copied ? <Check /> : <CopyIcon />}
    </button>
  );
}

/** A name or other short text from outside: isolated, on one line, never longer than a screen. */
export function Foreign({ text, className }: { text: string; className?: string }) {
  return (
    <bdi className={className ? `clip ${className}` : 'clip'} title={cut(text)}>
      {cut(text)}
    </bdi>
  );
}

/** An identifier: monospace, cut in the middle of nothing, copied with one click. */
export function Id({
  value,
  label = 'id',
  children,
}: {
  value: string;
  label?: string;
  children?: ReactNode;
}) {
  return (
    <span className={s.id}>
      <bdi className="clip" title={cut(value)}>
        {children ?? cut(value)}
      </bdi>
      <Copy text={value} label={label} />
    </span>
  );
}

/** Labelled facts in columns; those without a value are left out. */
export function Facts({ facts }: { facts: [label: string, value: ReactNode][] }) {
  return (
    <dl className={s.facts}>
      {facts
        .filter(([, value]) => value !== null && value !== undefined && value !== '' && value !== false)
        .map(([label, value]) => (
          <div key={label} className={s.fact}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

export function Panel(props: {
  title?: ReactNode;
  actions?: ReactNode;
  flush?: boolean;
  children: ReactNode;
}) {
  return (
    <section className={s.panel}>
      {(props.title || props.actions) && (
        <header className={s.panelHead}>
          <div className="grow">{typeof props.title === 'string' ? <h2>{props.title}</h2> : props.title}</div>
          {props.actions}
        </header>
      )}
      <div className={props.flush ? undefined : s.panelBody}>{props.children}</div>
    </section>
  );
}

/** The frame of every page: its heading, its actions, its content. */
export function Page(props: {
  title: ReactNode;
  aside?: ReactNode;
  actions?: ReactNode;
  fill?: boolean;
  children: ReactNode;
}) {
  return (
    <div className={s.page} data-fill={props.fill || undefined}>
      <div className={s.pageHead}>
        <h1 tabIndex={-1}>{props.title}</h1>
        {props.aside}
        <div className="grow" />
        {props.actions}
      </div>
      {props.children}
    </div>
  );
}

/** A plain table for the lists that are short by nature. */
export function Table({ label, head, children }: { label: string; head: ReactNode; children: ReactNode }) {
  return (
    <section className={s.scroll} aria-label={label} tabIndex={0}>
      <table className={s.table}>
        <thead>
          <tr>{head}</tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </section>
  );
}

export function Code({ text, label, short }: { text: string; label: string; short?: boolean }) {
  return (
    <div className={s.code} data-short={short || undefined}>
      <pre tabIndex={0}>
        <code>{text}</code>
      </pre>
      <Copy text={text} label={label} always />
    </div>
  );
}
