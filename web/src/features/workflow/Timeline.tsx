import { useVirtualizer } from '@tanstack/react-virtual';
import { Check, ChevronRight, Clock, CornerDownRight, Hourglass, Moon, Play, X, ZoomOut } from 'lucide-react';
import { type CSSProperties, type ReactNode, useMemo, useRef, useState } from 'react';
import type { Recovery, Workflow } from '~/api/queries';
import { useHotkeys } from '~/app/hotkeys';
import { useNow } from '~/ui/clock';
import { Button, Segments } from '~/ui/controls';
import { Moment } from '~/ui/data';
import { cut, duration, ms, plural } from '~/ui/format';
import { Axis } from './Axis';
import {
  cancelled,
  isRunning,
  type Known,
  type Row,
  type Scale,
  timelineRows,
  timelineScale,
  type Zoom,
  zoomTo,
} from './timeline';
import { useOpened } from './useWorkflow';
import s from './Workflow.module.css';

const LINE = 28;

type Props = {
  app: string;
  known: Known;
  complete: boolean;
  below: Workflow[];
  recoveries: Recovery[];
  chosen: string | undefined;
  onChoose: (row: Row | null) => void;
};

/** What a workflow did, step by step over time, children opened in place, and where it is now. */
export function Timeline({ app, known, complete, below, recoveries, chosen, onChoose }: Props) {
  const [mode, setMode] = useState<'time' | 'even'>('time');
  const [open, setOpen] = useState<string[]>([]);
  const opened = useOpened(app, open, below);
  const byId = useMemo(() => new Map(below.map((child) => [child.workflowId, child])), [below]);
  const rows = useMemo(() => timelineRows(known, byId, opened), [known, byId, opened]);
  const live = rows.some((row) => row.end === null || row.kind === 'sleep');
  const now = useTick(live);
  const [zoom, setZoom] = useState<Zoom | null>(null);
  const scale = useMemo(() => timelineScale(rows, mode, now, zoom), [rows, mode, now, zoom]);
  const shownMode = zoom ? 'time' : mode;
  const events = useMemo(() => eventsWithin(recoveries, known, scale), [recoveries, known, scale]);

  const viewport = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => viewport.current,
    estimateSize: () => LINE,
    overscan: 20,
  });
  const step = (by: number) => {
    const current = rows.findIndex((row) => row.key === chosen);
    const index = Math.min(Math.max(current + by, 0), rows.length - 1);
    onChoose(rows[index] ?? null);
    virtual.scrollToIndex(index);
  };
  useHotkeys({
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    z: () => {
      const row = rows.find((each) => each.key === chosen);
      if (row) setZoom(zoomTo(row, now));
    },
    0: () => setZoom(null),
    Escape: () => onChoose(null),
  });

  const toggle = (id: string) =>
    setOpen((was) => (was.includes(id) ? was.filter((each) => each !== id) : [...was, id]));
  return (
    <section
      className={s.chart}
      aria-label="Timeline"
      style={{ '--label': 'minmax(150px, 34%)' } as CSSProperties}
    >
      <div className={s.toolbar}>
        <h2>Timeline</h2>
        <span className="muted num">
          {plural(known.steps.length, 'step')}
          {!complete && ', loading more…'}
        </span>
        <span className="grow" />
        {zoom && (
          <Button small onClick={() => setZoom(null)}>
            <ZoomOut /> All
          </Button>
        )}
        <Segments
          label="Scale"
          value={shownMode}
          options={[
            { value: 'time', label: 'True to time' },
            { value: 'even', label: 'Short steps visible' },
          ]}
          onChange={(next) => {
            setZoom(null);
            setMode(next);
          }}
        />
      </div>
      <Axis scale={scale} mode={shownMode} onZoom={setZoom} />
      <div
        ref={viewport}
        className={s.rows}
        role="treegrid"
        aria-label="Steps"
        tabIndex={0}
        style={{ height: rows.length * LINE + 2 }}
        aria-activedescendant={chosen === undefined ? undefined : `step-${chosen}`}
      >
        <div role="rowgroup" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
          {virtual.getVirtualItems().map((item) => {
            const row = rows[item.index];
            if (!row) return null;
            return (
              <TimelineRow
                key={row.key}
                row={row}
                top={item.start}
                scale={scale}
                now={now}
                events={events}
                active={row.key === chosen}
                open={row.childId !== null && row.kind === 'child' ? open.includes(row.childId) : null}
                onToggle={() => row.childId && toggle(row.childId)}
                onChoose={() => onChoose(row)}
              />
            );
          })}
        </div>
      </div>
    </section>
  );
}

/** The clock, only for those who need it. */
function useTick(needed: boolean): number {
  const now = useNow();
  const still = useRef(now);
  if (needed) still.current = now;
  return still.current;
}

type Mark = { at: number; title: string; tone: 'warn' | 'off' };

/** What happened to the whole workflow, as marks across the rows: losses of its executors, and its cancel. */
function eventsWithin(recoveries: Recovery[], known: Known, scale: Scale): Mark[] {
  const { workflow } = known;
  const marks: Mark[] = recoveries
    .filter((each) => each.recoveredBy === workflow.executorId && each.appVersion === workflow.appVersion)
    .map((each) => ({
      at: ms(each.disconnectedAt) ?? 0,
      title: `Executor ${each.executorId} was lost; ${each.recoveredBy} took its work`,
      tone: 'warn',
    }));
  const stop = cancelled(known);
  if (stop) marks.push({ at: stop.requested, title: 'Cancel was asked for', tone: 'off' });
  return marks.filter(({ at }) => at >= scale.from && at <= scale.to);
}

const MARKS: Record<Row['kind'], ReactNode> = {
  queue: <Clock />,
  step: <Check />,
  sleep: <Moon />,
  wait: <Hourglass />,
  child: <CornerDownRight />,
  now: <Play />,
};

function TimelineRow(props: {
  row: Row;
  top: number;
  scale: Scale;
  now: number;
  events: Mark[];
  active: boolean;
  /** Null when there is nothing to open. */
  open: boolean | null;
  onToggle: () => void;
  onChoose: () => void;
}) {
  const { row, scale, now } = props;
  const running = isRunning(row, now);
  const end = row.end === null ? now : row.end;
  const left = row.start === null ? 0 : scale.at(row.start);
  const right = row.start === null ? 0 : scale.at(Math.max(end, row.start));
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the list's keys do the same (j, k)
    <div
      id={`step-${row.key}`}
      role="row"
      tabIndex={-1}
      aria-selected={props.active}
      aria-level={row.depth + 1}
      aria-expanded={props.open ?? undefined}
      className={s.row}
      data-active={props.active || undefined}
      style={{ transform: `translateY(${props.top}px)` }}
      onClick={props.onChoose}
    >
      <div role="gridcell" tabIndex={-1} className={s.label} style={{ paddingLeft: 10 + row.depth * 18 }}>
        <span className={s.no}>{row.stepId ?? ''}</span>
        <span className={s.mark} data-tone={row.tone} aria-hidden>
          {row.failed ? <X /> : MARKS[row.kind]}
        </span>
        <bdi
          className={`clip ${row.kind === 'now' || row.kind === 'queue' ? s.soft : ''}`}
          title={cut(row.label)}
        >
          {cut(row.label)}
        </bdi>
        {props.open !== null && (
          <button
            type="button"
            className={s.open}
            tabIndex={-1}
            aria-expanded={props.open}
            aria-label="Steps of this child"
            onClick={(event) => {
              event.stopPropagation();
              props.onToggle();
            }}
          >
            <ChevronRight />
          </button>
        )}
        {row.failed && <span className="visually-hidden">failed</span>}
      </div>
      <div role="gridcell" tabIndex={-1} className={s.track} data-tone={row.tone}>
        {scale.ticks.map((tick) => (
          <span key={tick} className={s.grid} style={{ left: `${scale.at(tick) * 100}%` }} />
        ))}
        {props.events.map((mark) => (
          <span
            key={mark.at}
            className={s.event}
            data-tone={mark.tone}
            title={mark.title}
            style={{ left: `${scale.at(mark.at) * 100}%` }}
          />
        ))}
        {row.start !== null && row.start <= scale.to && end >= scale.from && (
          <span
            className={s.bar}
            data-kind={row.kind}
            data-running={running || undefined}
            style={{ left: `${left * 100}%`, width: `${(right - left) * 100}%` }}
          />
        )}
      </div>
      <div role="gridcell" tabIndex={-1} className={s.took}>
        {row.start === null ? (
          '–'
        ) : running && row.until !== null ? (
          <span title="Until">
            <Moment time={new Date(row.until).toISOString()} />
          </span>
        ) : (
          duration(running ? Math.floor((now - row.start) / 1_000) * 1_000 : end - row.start)
        )}
      </div>
    </div>
  );
}
