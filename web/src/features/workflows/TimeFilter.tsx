import { Clock } from 'lucide-react';
import { useState } from 'react';
import { serverNow } from '~/ui/clock';
import { Button, Field, Input } from '~/ui/controls';
import { localInput } from '~/ui/local';
import { Menu } from '~/ui/Menu';
import { Dialog } from '~/ui/overlay';
import { type Filters, resolveTime } from './filters';

const SPANS = [
  ['15m', 'Last 15 minutes'],
  ['1h', 'Last hour'],
  ['6h', 'Last 6 hours'],
  ['24h', 'Last 24 hours'],
  ['7d', 'Last 7 days'],
  ['30d', 'Last 30 days'],
] as const;

type Props = { filters: Filters; onChange: (filters: Filters) => void };

/** When the workflows were created: a span up to now, or between two moments. */
export function TimeFilter({ filters, onChange }: Props) {
  const [between, setBetween] = useState(false);
  const { since, until, ...rest } = filters;
  const span = until ? undefined : SPANS.find(([value]) => value === since);
  return (
    <>
      <Menu
        trigger={
          <Button>
            <Clock /> {span?.[1] ?? (since || until ? 'Some time' : 'Any time')}
          </Button>
        }
        entries={[
          { label: 'Any time', onSelect: () => onChange(rest) },
          'separator',
          ...SPANS.map(([value, label]) => ({ label, onSelect: () => onChange({ ...rest, since: value }) })),
          'separator',
          { label: 'Between…', onSelect: () => setBetween(true) },
        ]}
      />
      {between && <Between filters={filters} onChange={onChange} onClose={() => setBetween(false)} />}
    </>
  );
}

function Between({ filters, onChange, onClose }: Props & { onClose: () => void }) {
  const { since, until, ...rest } = filters;
  const field = (text: string | undefined, otherwise: number | null) => {
    const time = text ? resolveTime(text, serverNow()) : otherwise;
    return time === null ? '' : localInput(time);
  };
  const [from, setFrom] = useState(() => field(since, serverNow() - 3_600_000));
  const [to, setTo] = useState(() => field(until, null));
  const [start, end] = [Date.parse(from), Date.parse(to)];
  const wrong = !Number.isNaN(start) && !Number.isNaN(end) && start >= end;
  const some = !Number.isNaN(start) || !Number.isNaN(end);
  return (
    <Dialog
      open
      onClose={onClose}
      title="Created between"
      description="Local time. Either side may be left open."
      foot={
        <>
          <Button onClick={onClose}>Close</Button>
          <Button
            kind="primary"
            disabled={wrong || !some}
            onClick={() => {
              onChange({
                ...rest,
                ...(Number.isNaN(start) ? {} : { since: new Date(start).toISOString() }),
                ...(Number.isNaN(end) ? {} : { until: new Date(end).toISOString() }),
              });
              onClose();
            }}
          >
            Filter
          </Button>
        </>
      }
    >
      <Field label="From">
        {(control) => (
          <Input
            {...control}
            type="datetime-local"
            value={from}
            onChange={(event) => setFrom(event.target.value)}
          />
        )}
      </Field>
      <Field label="Until" fault={wrong ? 'It must be later than the start.' : undefined}>
        {(control) => (
          <Input
            {...control}
            type="datetime-local"
            value={to}
            onChange={(event) => setTo(event.target.value)}
          />
        )}
      </Field>
    </Dialog>
  );
}
