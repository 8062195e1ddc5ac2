import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useMemo } from 'react';
import { type App, read } from '~/api/queries';
import { useNow } from '~/ui/clock';
import { usePushed, useRenewal } from '~/ui/live';
import { health } from './health';
import { countsByStatus, outcomeSeries, timeWindow } from './outcomes';

const ACTIVE = ['PENDING', 'ENQUEUED', 'DELAYED'];

/** Executors and stranded recoveries of an application, and what they mean together. */
export function useHealth(app: App) {
  const executors = useQuery({ ...read.executors(app.name), ...usePushed(app.name, 3_000) });
  const stranded = useQuery({
    ...read.recoveries(app.name, { status: 'STRANDED', limit: 100 }),
    ...usePushed(app.name, 5_000),
  });
  return {
    executors,
    stranded,
    health: useMemo(
      () => (executors.data ? health(app, executors.data, stranded.data ?? []) : null),
      [app, executors.data, stranded.data],
    ),
  };
}

/** How many workflows are active, by status. Bounded work for the application: finished ones are not counted. */
export function useActiveCounts(app: string, enabled: boolean) {
  const query = useQuery({
    ...read.aggregates(app, { groupByStatus: true, selectCount: true, status: ACTIVE }),
    ...useRenewal(5_000),
    enabled,
  });
  return useMemo(() => (query.data ? countsByStatus(query.data) : null), [query.data]);
}

/** Workflows started lately, by outcome and time. */
export function useOutcomes(app: string, enabled: boolean, buckets: number, bucketMs: number) {
  const minute = Math.floor(useNow() / bucketMs) * bucketMs;
  const span = useMemo(() => timeWindow(minute, buckets, bucketMs), [minute, buckets, bucketMs]);
  const query = useQuery({
    ...read.aggregates(app, {
      groupByStatus: true,
      selectCount: true,
      timeBucketSizeMs: bucketMs,
      startTime: new Date(span.start).toISOString(),
    }),
    ...useRenewal(5_000),
    placeholderData: keepPreviousData,
    enabled,
  });
  return useMemo(
    () => (query.data ? outcomeSeries(query.data, span, bucketMs) : null),
    [query.data, span, bucketMs],
  );
}
