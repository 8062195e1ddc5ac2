import { Segments } from '~/ui/controls';
import type { Filters } from './filters';

const QUICK = {
  all: { label: 'All', status: undefined },
  active: { label: 'Active', status: ['PENDING', 'ENQUEUED', 'DELAYED'] },
  failed: { label: 'Failed', status: ['ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'] },
  succeeded: { label: 'Succeeded', status: ['SUCCESS'] },
  cancelled: { label: 'Cancelled', status: ['CANCELLED'] },
} as const;
type Quick = keyof typeof QUICK;

/** The questions asked most, one press away; they set the status filter and nothing else. */
export function QuickFilters({
  filters,
  onChange,
}: {
  filters: Filters;
  onChange: (filters: Filters) => void;
}) {
  const current =
    (Object.keys(QUICK) as Quick[]).find((quick) => same(QUICK[quick].status, filters.status)) ?? null;
  return (
    <Segments
      label="Status"
      value={current}
      options={(Object.keys(QUICK) as Quick[]).map((quick) => ({ value: quick, label: QUICK[quick].label }))}
      onChange={(quick) => {
        const { status: _, ...rest } = filters;
        const status = QUICK[quick].status;
        onChange(status ? { ...rest, status: [...status] } : rest);
      }}
    />
  );
}

function same(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  if (!a || !b) return a === b;
  return a.length === b.length && a.every((each) => b.includes(each));
}
