import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { type Recovery, read } from '~/api/queries';
import { Button, Segments } from '~/ui/controls';
import { Page, Panel, type Tone } from '~/ui/data';
import { count, duration } from '~/ui/format';
import { usePushed } from '~/ui/live';
import { Loaded, NoMatch } from '~/ui/states';
import tiles from '../fleet/Fleet.module.css';
import { RecoveryTable } from './RecoveryTable';
import { byUrgency, summary } from './recovery';
import { StrandedCard } from './Stranded';

const FILTERS = [
  { value: 'all', label: 'All' },
  { value: 'RECOVERED', label: 'Recovered' },
  { value: 'REJOINED', label: 'Came back' },
  { value: 'ABANDONED', label: 'Abandoned' },
] as const;
type Filter = (typeof FILTERS)[number]['value'];
const PAGE = 100;

/** The page in figures: what is stuck, what is being done, and how long it takes. */
function Summary(props: { stranded: Recovery[] | undefined; recoveries: Recovery[] | undefined }) {
  const { stranded, recoveries } = props;
  // While the list is filtered, the figures stay those of all.
  const last = useRef<Recovery[] | undefined>(undefined);
  if (recoveries) last.current = recoveries;
  if (!last.current || last.current.length === 0) return null;
  const { underWay, recovered, typical, longest } = summary(last.current);
  const held = (stranded ?? []).reduce((sum, each) => sum + (each.pendingWorkflows ?? 0), 0);
  return (
    <div className={tiles.tiles}>
      <Figure
        label="Stranded workflows"
        value={stranded ? count(held) : '–'}
        tone={held > 0 ? 'warn' : undefined}
      />
      <Figure label="Being recovered" value={count(underWay)} tone={underWay > 0 ? 'run' : undefined} />
      <Figure label="Recovered lately" value={count(recovered)} />
      <Figure label="Typically took" value={typical === null ? '–' : duration(typical)} />
      <Figure label="Longest took" value={longest === null ? '–' : duration(longest)} />
    </div>
  );
}

function Figure({ label, value, tone }: { label: string; value: string; tone?: Tone | undefined }) {
  return (
    <div className={tiles.tile} data-tone={tone}>
      <span className="soft">{label}</span>
      <span className={`${tiles.figure} num`}>{value}</span>
    </div>
  );
}

/** What died, when, who took its work, how long it took, and what nobody could take. */
export function RecoveryPage({ app }: { app: string }) {
  const [filter, setFilter] = useState<Filter>('all');
  const [limit, setLimit] = useState(PAGE);
  const stranded = useQuery({
    ...read.recoveries(app, { status: 'STRANDED', limit: 100 }),
    ...usePushed(app, 2_000),
  });
  const query = filter === 'all' ? { limit } : { status: filter, limit };
  const recoveries = useQuery({
    ...read.recoveries(app, query),
    ...usePushed(app, 2_000),
    placeholderData: keepPreviousData,
  });
  return (
    <Page title="Recovery">
      <Summary stranded={stranded.data} recoveries={filter === 'all' ? recoveries.data : undefined} />
      {stranded.data?.map((recovery) => (
        <StrandedCard key={recovery.id} app={app} recovery={recovery} />
      ))}
      <Panel
        flush
        title="Losses of executors"
        actions={<Segments label="Outcome" value={filter} options={[...FILTERS]} onChange={setFilter} />}
      >
        <Loaded query={recoveries}>
          {(list) =>
            list.length === 0 && filter !== 'all' ? (
              <NoMatch
                title="None with this outcome"
                actions={<Button onClick={() => setFilter('all')}>Show all</Button>}
              />
            ) : (
              <RecoveryTable app={app} recoveries={[...list].sort(byUrgency)} />
            )
          }
        </Loaded>
        {recoveries.data?.length === limit && (
          <div style={{ padding: 10, textAlign: 'center' }}>
            <Button onClick={() => setLimit(limit + PAGE)}>Show more</Button>
          </div>
        )}
      </Panel>
    </Page>
  );
}
