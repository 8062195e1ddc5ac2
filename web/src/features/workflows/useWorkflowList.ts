import { type InfiniteData, useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useCallback, useMemo, useState } from 'react';
import { Problem } from '~/api/problem';
import { type SearchBody, searchPage, type Workflow } from '~/api/queries';
import { serverNow } from '~/ui/clock';
import { useLive } from '~/ui/live';
import { type Filters, searchBody } from './filters';

const PAGE = 100;
/** Rows looked at for news: as many as can have appeared between two looks on a busy day, not more. */
const NEWS = 100;
/** Rows kept in the tab; further ones are reached by narrowing the filters. */
const MOST = 20_000;
const MOST_ADOPTED = 2_000;

/** Where the next page begins: at a moment, behind the rows of that moment already shown. */
type Cursor = { at: string; skip: number } | null;

export type WorkflowList = {
  rows: Workflow[];
  /** Workflows that appeared since the rows were last taken; shown on request, so that nothing moves. */
  news: number;
  showNews: () => void;
  more: () => void;
  hasMore: boolean;
  loading: boolean;
  loadingMore: boolean;
  problem: Problem | null;
  reload: () => void;
};

/**
 * A list that can be read while it lives: rows keep their places and are renewed in place; new ones are announced.
 * Pages continue from the last row's moment and not from a count, so that new workflows do not shift them, and nothing
 * is ever counted on the application's side.
 */
export function useWorkflowList(app: string, filters: Filters): WorkflowList {
  const { live } = useLive();
  const key = JSON.stringify(filters);
  const pages = useInfiniteQuery({
    queryKey: ['workflows', app, key],
    initialPageParam: null as Cursor,
    queryFn: ({ pageParam, signal }) =>
      searchPage(app, pageBody(searchBody(filters, serverNow()), pageParam), signal),
    getNextPageParam: (last, all) => nextCursor(last, all),
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 5 * 60_000,
    refetchOnWindowFocus: false,
    // Coming back finds the list as it was left; what changed meanwhile arrives as news and changes.
    refetchOnMount: false,
    retry: (failures, error) => failures < 2 && Problem.of(error).kind === 'unreachable',
  });
  const known = useMemo(() => (pages.data ? merged(pages.data) : []), [pages.data]);

  // A failed first page is tried again by itself, for an executor may connect at any time.
  useQuery({
    queryKey: ['workflows', app, key, 'retry'],
    queryFn: async () => {
      await pages.refetch();
      return null;
    },
    enabled: live && pages.isError,
    refetchInterval: 3_000,
  });

  const head = useQuery({
    queryKey: ['workflows', app, key, 'head'],
    queryFn: ({ signal }) => searchPage(app, { ...searchBody(filters, serverNow()), limit: NEWS }, signal),
    enabled: live && pages.isSuccess && filters.order !== 'oldest',
    refetchInterval: live ? 2_000 : false,
  });

  const active = useMemo(() => known.filter(mayChange).slice(0, 200), [known]);
  const changes = useQuery({
    queryKey: ['workflows', app, key, 'changes', active.map((row) => row.workflowId)],
    queryFn: ({ signal }) =>
      searchPage(app, { workflowIds: active.map((row) => row.workflowId), limit: active.length }, signal),
    enabled: live && active.length > 0,
    refetchInterval: live ? 2_000 : false,
  });

  const [fresh, setFresh] = useState<{ key: string; rows: Workflow[] }>({ key, rows: [] });
  const adopted = fresh.key === key ? fresh.rows : [];
  const { rows, unseen } = useMemo(
    () => arrange(known, adopted, head.data ?? [], changes.data ?? []),
    [known, adopted, head.data, changes.data],
  );

  const showNews = useCallback(() => {
    if (unseen.length < NEWS && adopted.length < MOST_ADOPTED)
      setFresh({ key, rows: [...unseen, ...adopted] });
    else {
      // More than one look can hold, or more than a tab should keep: begin anew from the top.
      setFresh({ key, rows: [] });
      void pages.refetch();
    }
  }, [unseen, adopted, key, pages.refetch]);

  return {
    rows,
    news: unseen.length,
    showNews,
    more: useCallback(() => {
      if (pages.hasNextPage && !pages.isFetchingNextPage) void pages.fetchNextPage();
    }, [pages.hasNextPage, pages.isFetchingNextPage, pages.fetchNextPage]),
    hasMore: pages.hasNextPage,
    loading: pages.isPending,
    loadingMore: pages.isFetchingNextPage,
    problem: pages.error ? Problem.of(pages.error) : head.error ? Problem.of(head.error) : null,
    reload: useCallback(() => {
      setFresh({ key, rows: [] });
      void pages.refetch();
    }, [key, pages.refetch]),
  };
}

function pageBody(body: SearchBody, cursor: Cursor): SearchBody {
  if (!cursor) return { ...body, limit: PAGE };
  return {
    ...body,
    limit: PAGE,
    offset: cursor.skip,
    ...(body.sortDesc ? { endTime: cursor.at } : { startTime: cursor.at }),
  };
}

/** Continues after the last row; rows of the same millisecond are skipped by number, for their order is stable. */
export function nextCursor(last: Workflow[], all: Workflow[][]): Cursor | undefined {
  const tail = last.at(-1);
  if (!tail || last.length < PAGE || all.length * PAGE >= MOST) return undefined;
  const same = all.flat().filter((row) => row.createdAt === tail.createdAt).length;
  return { at: tail.createdAt, skip: same };
}

function merged(data: InfiniteData<Workflow[]>): Workflow[] {
  const seen = new Set<string>();
  return data.pages.flat().filter((row) => !seen.has(row.workflowId) && seen.add(row.workflowId));
}

function mayChange(row: Workflow): boolean {
  return row.status === 'PENDING' || row.status === 'ENQUEUED' || row.status === 'DELAYED';
}

/** Shown rows in their places with their newest state, and what is not shown yet. */
export function arrange(
  known: Workflow[],
  adopted: Workflow[],
  head: Workflow[],
  changes: Workflow[],
): { rows: Workflow[]; unseen: Workflow[] } {
  const newest = new Map<string, Workflow>();
  for (const row of [...head, ...changes]) {
    const other = newest.get(row.workflowId);
    if (!other || other.updatedAt <= row.updatedAt) newest.set(row.workflowId, row);
  }
  const shown = new Set<string>();
  const rows: Workflow[] = [];
  for (const row of [...adopted, ...known]) {
    if (shown.has(row.workflowId)) continue;
    shown.add(row.workflowId);
    const update = newest.get(row.workflowId);
    rows.push(update && update.updatedAt >= row.updatedAt ? update : row);
  }
  // Only what is newer than the top row is news: an old workflow may also begin to match a filter, but a row that
  // appears further down would move others.
  const top = rows[0]?.createdAt ?? '';
  const unseen = head.filter((row) => !shown.has(row.workflowId) && row.createdAt >= top);
  return { rows, unseen };
}
