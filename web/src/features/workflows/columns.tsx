import { Link } from '@tanstack/react-router';
import {
  columnVisibilityFeature,
  createColumnHelper,
  rowSelectionFeature,
  tableFeatures,
} from '@tanstack/react-table';
import type { Workflow } from '~/api/queries';
import { Checkbox } from '~/ui/controls';
import { Age, Foreign, Id, StatusBadge, Took } from '~/ui/data';
import s from './Workflows.module.css';

export const features = tableFeatures({ columnVisibilityFeature, rowSelectionFeature });
const helper = createColumnHelper<typeof features, Workflow>();

/** Width of each column as a grid track. */
export const TRACKS: Record<string, string> = {
  select: '38px',
  status: '132px',
  name: 'minmax(150px, 1.2fr)',
  id: 'minmax(170px, 1.6fr)',
  version: 'minmax(90px, 0.7fr)',
  executor: 'minmax(110px, 0.9fr)',
  queue: 'minmax(80px, 0.6fr)',
  created: '96px',
  took: '96px',
  updated: '96px',
  user: 'minmax(90px, 0.6fr)',
  parent: 'minmax(130px, 1fr)',
  forked: 'minmax(130px, 1fr)',
  schedule: 'minmax(100px, 0.7fr)',
  priority: '72px',
};

export const COLUMN_NAMES: Record<string, string> = {
  id: 'Id',
  version: 'Version',
  executor: 'Executor',
  queue: 'Queue',
  created: 'Created',
  took: 'Took',
  updated: 'Updated',
  user: 'User',
  parent: 'Parent',
  forked: 'Forked from',
  schedule: 'Schedule',
  priority: 'Priority',
};

export const HIDDEN_AT_FIRST = {
  updated: false,
  user: false,
  parent: false,
  forked: false,
  schedule: false,
  priority: false,
};

function text(value: string | null, look = '') {
  return value ? <Foreign text={value} className={look} /> : <span className="muted">–</span>;
}

/** The columns of the list. Everything that came from outside is shown as isolated text. */
export function workflowColumns(app: string) {
  return helper.columns([
    helper.display({
      id: 'select',
      header: () => <span className="visually-hidden">Selected</span>,
      cell: ({ row }) => (
        <Checkbox
          checked={row.getIsSelected()}
          onChange={(on) => row.toggleSelected(on)}
          label={`Select ${row.original.workflowId}`}
        />
      ),
    }),
    helper.display({
      id: 'status',
      header: 'Status',
      cell: ({ row }) => <StatusBadge status={row.original.status} />,
    }),
    helper.display({
      id: 'name',
      header: 'Workflow',
      cell: ({ row }) => (
        <Link
          to="/apps/$app/workflows/$id"
          params={{ app, id: row.original.workflowId }}
          className={`${s.name} clip`}
          tabIndex={-1}
        >
          <Foreign text={row.original.workflowName ?? 'unnamed'} />
        </Link>
      ),
    }),
    helper.display({
      id: 'id',
      header: 'Id',
      cell: ({ row }) => <Id value={row.original.workflowId} label="workflow id" />,
    }),
    helper.display({
      id: 'version',
      header: 'Version',
      cell: ({ row }) => text(row.original.appVersion, 'mono'),
    }),
    helper.display({
      id: 'executor',
      header: 'Executor',
      cell: ({ row }) => text(row.original.executorId, 'mono'),
    }),
    helper.display({ id: 'queue', header: 'Queue', cell: ({ row }) => text(row.original.queueName) }),
    helper.display({ id: 'user', header: 'User', cell: ({ row }) => text(row.original.user) }),
    helper.display({
      id: 'schedule',
      header: 'Schedule',
      cell: ({ row }) => text(row.original.scheduleName),
    }),
    helper.display({
      id: 'parent',
      header: 'Parent',
      cell: ({ row }) => text(row.original.parentWorkflowId),
    }),
    helper.display({ id: 'forked', header: 'Forked from', cell: ({ row }) => text(row.original.forkedFrom) }),
    helper.display({
      id: 'priority',
      header: 'Priority',
      cell: ({ row }) => <span className="num">{row.original.priority}</span>,
    }),
    helper.display({
      id: 'updated',
      header: 'Updated',
      cell: ({ row }) => <Age time={row.original.updatedAt} />,
    }),
    helper.display({
      id: 'took',
      header: 'Took',
      cell: ({ row: { original: row } }) =>
        row.status === 'ENQUEUED' || row.status === 'DELAYED' ? (
          <span className="muted">–</span>
        ) : (
          <Took
            start={row.dequeuedAt ?? row.createdAt}
            end={row.status === 'PENDING' ? null : (row.completedAt ?? row.updatedAt)}
          />
        ),
    }),
    helper.display({
      id: 'created',
      header: 'Created',
      cell: ({ row }) => <Age time={row.original.createdAt} />,
    }),
  ]);
}
