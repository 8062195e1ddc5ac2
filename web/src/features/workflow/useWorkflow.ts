import { useInfiniteQuery, useQueries, useQuery } from '@tanstack/react-query';
import { useEffect, useMemo, useRef } from 'react';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { read, type Step, stepPage, type Workflow } from '~/api/queries';
import { isActive } from '~/ui/data';
import { useLive, useRenewal } from '~/ui/live';
import type { Known } from './timeline';

/** Steps of one answer: few enough to show the first soon, many enough to have 20,000 in four. */
const PAGE = 5_000;
const MOST_CHILDREN = 1_000;

export type Steps = { steps: Step[]; complete: boolean; problem: Problem | null };

/**
 * All steps of a workflow, page by page; renewed while it is active, less often the more there are. Read when it is known
 * whether it is, for what was read before the end may lack the last ones.
 */
export function useSteps(app: string, id: string, active: boolean | undefined): Steps {
  const { live } = useLive();
  const query = useInfiniteQuery({
    queryKey: ['steps', app, id],
    enabled: active !== undefined,
    initialPageParam: 0,
    queryFn: ({ pageParam, signal }) => stepPage(app, id, { offset: pageParam, limit: PAGE }, signal),
    getNextPageParam: (last, all) => (last.length < PAGE ? undefined : all.length * PAGE),
    refetchInterval: ({ state }) =>
      live && active ? 1_500 * Math.max(state.data?.pages.length ?? 1, 1) : false,
  });
  const { hasNextPage, isFetchingNextPage, fetchNextPage, isError } = query;
  useEffect(() => {
    if (hasNextPage && !isFetchingNextPage && !isError) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, isError, fetchNextPage]);
  const steps = useMemo(
    () => (query.data?.pages ?? []).flat().sort((a, b) => a.stepId - b.stepId),
    [query.data],
  );
  return {
    steps,
    complete: query.isSuccess && !hasNextPage,
    problem: query.error ? Problem.of(query.error) : null,
  };
}

/**
 * A workflow with its input and output. They may be large, so they are read once, and again when it has ended; what
 * changes meanwhile is looked at without them.
 */
function useRenewed(app: string, id: string) {
  const { live } = useLive();
  const whole = useQuery({
    ...read.workflow(app, id),
    staleTime: Number.POSITIVE_INFINITY,
    refetchOnMount: 'always',
    // Failed: perhaps an executor connects. Else it is renewed below.
    refetchInterval: ({ state }) => (live && state.error ? 1_500 : false),
  });
  const active = whole.data ? isActive(whole.data.status) : false;
  const head = useQuery({
    ...read.search(app, { workflowIds: [id], limit: 1 }),
    enabled: whole.data !== undefined,
    refetchInterval: live ? (active ? 1_500 : 15_000) : false,
  });
  const newest = head.data?.[0];
  const { refetch, data, isFetching } = whole;
  const stale = data && newest && newest.updatedAt > data.updatedAt && newest.status !== data.status;
  useEffect(() => {
    if (stale && !isFetching) void refetch();
  }, [stale, isFetching, refetch]);
  const workflow = useMemo(() => {
    if (!data || !newest || newest.updatedAt < data.updatedAt) return data;
    return { ...newest, input: data.input, output: data.output, error: data.error };
  }, [data, newest]);
  return { query: { data: workflow, error: whole.error ?? head.error }, workflow };
}

/** When it has just ended, reads once more what is not renewed from then on: its last steps, events and children. */
export function useLastLook(app: string, id: string, active: boolean | undefined): void {
  const was = useRef(active);
  useEffect(() => {
    if (was.current && active === false) {
      for (const { queryKey } of [
        { queryKey: ['steps', app, id] },
        read.events(app, id),
        read.notifications(app, id),
        read.streams(app, id),
        read.search(app, { parentWorkflowId: [id], limit: MOST_CHILDREN }),
      ])
        void queryClient.invalidateQueries({ queryKey });
    }
    was.current = active;
  }, [app, id, active]);
}

/** A workflow with what is around it; inputs and outputs come with the workflow itself only. */
export function useWorkflow(app: string, id: string) {
  const { query, workflow } = useRenewed(app, id);
  const active = workflow && isActive(workflow.status);
  const steps = useSteps(app, id, active);
  const mayHaveChildren = steps.steps.some((step) => step.childWorkflowId !== null);
  const children = useQuery({
    ...read.search(app, { parentWorkflowId: [id], limit: MOST_CHILDREN }),
    ...useRenewal(3_000),
    enabled: mayHaveChildren,
  });
  const forks = useQuery({
    ...read.search(app, { forkedFrom: [id], limit: 100 }),
    enabled: workflow?.wasForkedFrom ?? false,
  });
  useLastLook(app, id, active);
  return {
    query,
    workflow,
    active: active ?? false,
    steps,
    children: children.data ?? [],
    forks: forks.data ?? [],
  };
}

/**
 * Why an active workflow stands where it stands. Less often the more steps it has: for some SDKs the answer takes a look
 * at all of them.
 */
export function useExplanation(app: string, workflow: Workflow, steps: number) {
  return useQuery({
    ...read.explain(app, workflow.workflowId),
    ...useRenewal(2_000 + steps),
    enabled: isActive(workflow.status),
  });
}

/** The steps of children that are opened in place, by id, as far as they are there. */
export function useOpened(app: string, ids: string[], children: Workflow[]): ReadonlyMap<string, Known> {
  const { live } = useLive();
  const known = useMemo(() => new Map(children.map((child) => [child.workflowId, child])), [children]);
  const workflows = useQueries({
    queries: ids.map((id) => ({ ...read.workflow(app, id), enabled: !known.has(id) })),
  });
  const steps = useQueries({
    queries: ids.map((id) => ({
      queryKey: ['child-steps', app, id],
      queryFn: ({ signal }: { signal: AbortSignal }) => stepPage(app, id, { offset: 0, limit: PAGE }, signal),
      refetchInterval: live && isActive(known.get(id)?.status ?? 'PENDING') ? 2_000 : (false as const),
    })),
  });
  const out = new Map<string, Known>();
  ids.forEach((id, index) => {
    const workflow = known.get(id) ?? workflows[index]?.data;
    const list = steps[index]?.data;
    if (workflow && list) out.set(id, { workflow, steps: list });
  });
  return out;
}
