import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { read } from '~/api/queries';
import { Button, Segments } from '~/ui/controls';
import { Page, Panel } from '~/ui/data';
import { usePushed } from '~/ui/live';
import { Loaded, NoMatch } from '~/ui/states';
import { RecoveryTable } from './RecoveryTable';
import { byUrgency } from './recovery';
import { StrandedCard } from './Stranded';

const FILTERS = [
  { value: 'all', label: 'All' },
  { value: 'RECOVERED', label: 'Recovered' },
  { value: 'REJOINED', label: 'Came back' },
  { value: 'ABANDONED', label: 'Abandoned' },
] as const;
type Filter = (typeof FILTERS)[number]['value'];
const PAGE = 100;

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
