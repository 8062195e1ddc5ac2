import { ChevronRight } from 'lucide-react';
import { Fragment, useState } from 'react';
import type { Recovery } from '~/api/queries';
import { useNow } from '~/ui/clock';
import { Age, Badge, Dot, Id, Moment, Table } from '~/ui/data';
import { count, duration } from '~/ui/format';
import { Empty } from '~/ui/states';
import s from './Recovery.module.css';
import { phases, RECOVERY_STATUS, reasonText } from './recovery';

/** Losses of executors and what became of each. `quiet` leaves out the explanation when there is none. */
export function RecoveryTable(props: { app: string; recoveries: Recovery[]; quiet?: boolean }) {
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  if (props.recoveries.length === 0) {
    return (
      <Empty title="No executor was lost">
        {!props.quiet &&
          'When a process disconnects, dies or is replaced, it is recorded here with what happened to its workflows.'}
      </Empty>
    );
  }
  const toggle = (id: string) =>
    setOpen((was) => {
      const next = new Set(was);
      if (!next.delete(id)) next.add(id);
      return next;
    });
  return (
    <Table
      label="Losses of executors"
      head={
        <>
          <th>Executor</th>
          <th>Version</th>
          <th>Outcome</th>
          <th data-num>Workflows</th>
          <th>Taken by</th>
          <th>Lost</th>
          <th>Phases</th>
        </>
      }
    >
      {props.recoveries.map((recovery) => (
        <Fragment key={recovery.id}>
          <RecoveryRow
            recovery={recovery}
            open={open.has(recovery.id)}
            onToggle={() => toggle(recovery.id)}
          />
          {open.has(recovery.id) && (
            <tr>
              <td colSpan={7}>
                <RecoveryDetail recovery={recovery} />
              </td>
            </tr>
          )}
        </Fragment>
      ))}
    </Table>
  );
}

export function RecoveryStatus({ recovery }: { recovery: Recovery }) {
  const status = RECOVERY_STATUS[recovery.status];
  return <Badge tone={status?.tone ?? 'off'}>{status?.label ?? recovery.status}</Badge>;
}

function RecoveryRow({
  recovery,
  open,
  onToggle,
}: {
  recovery: Recovery;
  open: boolean;
  onToggle: () => void;
}) {
  return (
    <tr>
      <td>
        <div className="row">
          <button
            type="button"
            className={s.expand}
            aria-expanded={open}
            aria-label={`Details of the loss of ${recovery.executorId}`}
            onClick={onToggle}
          >
            <ChevronRight />
          </button>
          <div style={{ minWidth: 0, maxWidth: 200 }}>
            <Id value={recovery.executorId} label="executor id" />
          </div>
        </div>
      </td>
      <td style={{ maxWidth: 130 }}>
        <Id value={recovery.appVersion} label="version" />
      </td>
      <td>
        <RecoveryStatus recovery={recovery} />
      </td>
      <td data-num>
        {recovery.pendingWorkflows === null ? (
          <span className="muted" title="Nobody could be asked yet">
            unknown
          </span>
        ) : (
          count(recovery.pendingWorkflows)
        )}
      </td>
      <td style={{ maxWidth: 160 }}>
        {recovery.recoveredBy ? (
          <Id value={recovery.recoveredBy} label="executor id" />
        ) : (
          <span className="muted">–</span>
        )}
      </td>
      <td>
        <Age time={recovery.disconnectedAt} />
      </td>
      <td>
        <PhaseBar recovery={recovery} />
      </td>
    </tr>
  );
}

function PhaseBar({ recovery }: { recovery: Recovery }) {
  const parts = phases(recovery, useNow());
  const total = parts.reduce((sum, part) => sum + part.to - part.from, 0);
  return (
    <div className="row">
      <div className={s.phases} aria-hidden>
        {parts.map((part) => (
          <span
            key={part.name}
            data-tone={part.tone}
            data-running={part.running || undefined}
            title={`${part.name}: ${duration(part.to - part.from)}`}
            style={{ flexGrow: Math.max(part.to - part.from, 1) }}
          />
        ))}
      </div>
      <span className="num soft">{duration(total)}</span>
    </div>
  );
}

export function RecoveryDetail({ recovery }: { recovery: Recovery }) {
  const now = useNow();
  const reason = reasonText(recovery);
  return (
    <div className={s.detail}>
      {reason && <p>{reason}</p>}
      <dl className={s.phaseList}>
        {phases(recovery, now).map((phase) => (
          <div key={phase.name}>
            <dt>
              <Dot tone={phase.tone} hollow={phase.running} /> {phase.name}
            </dt>
            <dd className="num">
              {duration(phase.to - phase.from)}
              {phase.running && ' so far'}
            </dd>
          </div>
        ))}
        <div>
          <dt>Connection lost</dt>
          <dd>
            <Moment time={recovery.disconnectedAt} />
          </dd>
        </div>
        {recovery.completedAt && (
          <div>
            <dt>Settled</dt>
            <dd>
              <Moment time={recovery.completedAt} />
            </dd>
          </div>
        )}
        {recovery.hostname && (
          <div>
            <dt>Host</dt>
            <dd>
              <bdi>{recovery.hostname}</bdi>
            </dd>
          </div>
        )}
      </dl>
      <Attempts recovery={recovery} />
    </div>
  );
}

function Attempts({ recovery }: { recovery: Recovery }) {
  if (recovery.attempts.length === 0) return <p className="muted">Its work was not offered to anybody.</p>;
  return (
    <ol className={s.attempts} aria-label="Offers of its work">
      {recovery.attempts.map((attempt) => (
        <li key={`${attempt.at} ${attempt.executorId}`}>
          <Moment time={attempt.at} />
          <span>
            offered to <bdi className="mono">{attempt.executorId}</bdi>
          </span>
          <Badge tone={attempt.error ? 'err' : 'off'}>{attempt.outcome}</Badge>
          {attempt.error && (
            <span className="foreign" style={{ color: 'var(--err)' }}>
              {attempt.error}
            </span>
          )}
        </li>
      ))}
    </ol>
  );
}
