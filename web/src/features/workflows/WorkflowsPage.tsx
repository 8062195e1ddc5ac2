import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { type RowSelectionState, useTable } from '@tanstack/react-table';
import { useVirtualizer } from '@tanstack/react-virtual';
import { ArrowDown, ArrowUp, Columns3, Upload } from 'lucide-react';
import { type CSSProperties, useEffect, useMemo, useRef, useState } from 'react';
import { useMay } from '~/api/may';
import { Problem } from '~/api/problem';
import { act, type Executor, read, type Workflow } from '~/api/queries';
import { useHotkeys } from '~/app/hotkeys';
import { Button } from '~/ui/controls';
import { Page } from '~/ui/data';
import { count, plural } from '~/ui/format';
import { usePushed } from '~/ui/live';
import { May } from '~/ui/May';
import { Menu } from '~/ui/Menu';
import { Empty, Failed, Loading, NoMatch, Stale } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { ActOnAll, BulkBar } from './Bulk';
import { COLUMN_NAMES, features, HIDDEN_AT_FIRST, TRACKS, workflowColumns } from './columns';
import { FilterBar, FilterChips } from './FilterBar';
import { type Filters, isFiltered } from './filters';
import { QuickFilters } from './QuickFilters';
import { TimeFilter } from './TimeFilter';
import { useWorkflowList, type WorkflowList } from './useWorkflowList';
import { Views } from './Views';
import s from './Workflows.module.css';

const ROW = 34;

/** Every workflow of an application: filtered in the address, live, and made to be read with the keyboard. */
export function WorkflowsPage(props: {
  app: string;
  filters: Filters;
  onFilters: (filters: Filters) => void;
}) {
  const { app, filters, onFilters } = props;
  const list = useWorkflowList(app, filters);
  const may = useMay();
  const [columnVisibility, setColumnVisibility] = useColumns();
  const executors = useQuery({ ...read.executors(app), ...usePushed(app, 5_000) });
  return (
    <Page
      fill
      title="Workflows"
      actions={
        <>
          {isFiltered(filters) && may('application.write') && (
            <ActOnAll app={app} filters={filters} onDone={list.reload} />
          )}
          {may('application.write') && <ImportButton app={app} onDone={list.reload} />}
          <Menu
            trigger={
              <Button>
                <Columns3 /> Columns
              </Button>
            }
            entries={Object.entries(COLUMN_NAMES).map(([id, label]) => ({
              label,
              checked: columnVisibility[id] !== false,
              onChange: (checked) => setColumnVisibility({ ...columnVisibility, [id]: checked }),
            }))}
          />
        </>
      }
    >
      <div className={s.bar}>
        <FilterBar app={app} filters={filters} rows={list.rows} onChange={onFilters} />
        <QuickFilters filters={filters} onChange={onFilters} />
        <TimeFilter filters={filters} onChange={onFilters} />
        <Views app={app} filters={filters} mayWrite={may('application.write')} onChange={onFilters} />
      </div>
      <FilterChips filters={filters} onChange={onFilters} />
      {list.problem && list.rows.length > 0 && <Stale problem={list.problem} />}
      <Listing
        key={JSON.stringify(filters)}
        {...props}
        list={list}
        columnVisibility={columnVisibility}
        executors={executors.data ?? []}
      />
    </Page>
  );
}

/** Takes workflows from a file that an export made. */
function ImportButton({ app, onDone }: { app: string; onDone: () => void }) {
  const file = useRef<HTMLInputElement>(null);
  async function load(chosen: File | undefined) {
    if (!chosen) return;
    try {
      await act.importWorkflow(app, await chosen.text());
      notify({ title: 'Imported', text: chosen.name });
      onDone();
    } catch (error) {
      notify({ title: 'The import failed', text: Problem.of(error).message, tone: 'err' });
    }
  }
  return (
    <>
      <input
        ref={file}
        type="file"
        hidden
        onChange={(event) => {
          void load(event.target.files?.[0]);
          event.target.value = '';
        }}
      />
      <Button kind="quiet" onClick={() => file.current?.click()}>
        <Upload /> Import
      </Button>
    </>
  );
}

type ListingProps = {
  app: string;
  filters: Filters;
  onFilters: (filters: Filters) => void;
  list: WorkflowList;
  columnVisibility: Record<string, boolean>;
  executors: Executor[];
};

function Listing(props: ListingProps) {
  const { app, filters, onFilters, list } = props;
  if (list.loading && !list.problem) return <div className={s.list}>{<Loading rows={14} />}</div>;
  if (list.rows.length === 0) {
    return (
      <div className={s.list}>
        {list.problem ? (
          <Failed problem={list.problem}>
            <Button onClick={list.reload}>Try now</Button>
          </Failed>
        ) : isFiltered(filters) ? (
          <NoMatch
            title="No workflow matches"
            actions={<Button onClick={() => onFilters({})}>Clear the filters</Button>}
          >
            Nothing has all of these at once. New matches appear here by themselves.
          </NoMatch>
        ) : (
          <Empty title="No workflows yet">
            The application is connected and has run none. They appear here by themselves.
          </Empty>
        )}
        <AdoptWhenEmpty list={list} />
      </div>
    );
  }
  return <Grid {...props} app={app} />;
}

/** With nothing on the screen nothing can jump: what appears is shown at once. */
function AdoptWhenEmpty({ list }: { list: WorkflowList }) {
  const { news, showNews } = list;
  useEffect(() => {
    if (news > 0) showNews();
  }, [news, showNews]);
  return null;
}

function Grid({ app, filters, onFilters, list, columnVisibility }: ListingProps) {
  const navigate = useNavigate();
  const viewport = useRef<HTMLDivElement>(null);
  const [rowSelection, setRowSelection] = useState<RowSelectionState>({});
  const [activeId, setActiveId] = useState<string | null>(null);
  const columns = useMemo(() => workflowColumns(app), [app]);
  const table = useTable({
    features,
    columns,
    data: list.rows,
    getRowId: (row: Workflow) => row.workflowId,
    state: { columnVisibility, rowSelection },
    onRowSelectionChange: setRowSelection,
  });
  const rows = table.getRowModel().rows;
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => viewport.current,
    estimateSize: () => ROW,
    overscan: 12,
  });
  const shown = virtual.getVirtualItems();
  const lastShown = shown.at(-1)?.index ?? 0;
  const { more, hasMore, loadingMore } = list;
  useEffect(() => {
    if (hasMore && !loadingMore && lastShown >= rows.length - 30) more();
  }, [hasMore, loadingMore, lastShown, rows.length, more]);

  const selected = rows.filter((row) => row.getIsSelected()).map((row) => row.original);
  useFollow(list, viewport, activeId === null && selected.length === 0);

  const active = activeId === null ? -1 : rows.findIndex((row) => row.id === activeId);
  const step = (by: number) => {
    const index = Math.min(Math.max(active + by, 0), rows.length - 1);
    setActiveId(rows[index]?.id ?? null);
    virtual.scrollToIndex(index);
  };
  useHotkeys({
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    x: () => rows[active]?.toggleSelected(),
    n: list.showNews,
    Enter: () => {
      if (activeId) void navigate({ to: '/apps/$app/workflows/$id', params: { app, id: activeId } });
    },
    Escape: () => {
      setRowSelection({});
      setActiveId(null);
    },
  });

  const visible = table.getVisibleLeafColumns();
  const oldest = filters.order === 'oldest';
  return (
    <div
      className={s.list}
      style={{ '--columns': visible.map((column) => TRACKS[column.id]).join(' ') } as CSSProperties}
    >
      <div
        ref={viewport}
        className={s.viewport}
        role="grid"
        aria-label="Workflows"
        aria-rowcount={-1}
        aria-multiselectable
        aria-activedescendant={activeId ? `workflow-${active}` : undefined}
        tabIndex={0}
      >
        <div className={s.sheet}>
          <div className={s.head} role="row" tabIndex={-1}>
            {table.getHeaderGroups()[0]?.headers.map((header) => (
              <div key={header.id} role="columnheader" className={s.headCell} tabIndex={-1}>
                {header.id === 'created' ? (
                  <button
                    type="button"
                    onClick={() => {
                      const { order: _, ...rest } = filters;
                      onFilters(oldest ? rest : { ...rest, order: 'oldest' });
                    }}
                    title={oldest ? 'Oldest first' : 'Newest first'}
                  >
                    Created {oldest ? <ArrowUp /> : <ArrowDown />}
                  </button>
                ) : (
                  <table.FlexRender header={header} />
                )}
              </div>
            ))}
          </div>
          <div className={s.body} role="rowgroup" style={{ height: virtual.getTotalSize() }}>
            {shown.map((item) => {
              const row = rows[item.index];
              if (!row) return null;
              return (
                // biome-ignore lint/a11y/useKeyWithClickEvents: the grid's keys do the same (j, k, Enter, x)
                <div
                  key={row.id}
                  id={`workflow-${item.index}`}
                  role="row"
                  tabIndex={-1}
                  aria-selected={row.getIsSelected()}
                  aria-rowindex={item.index + 2}
                  className={s.line}
                  data-active={row.id === activeId || undefined}
                  data-gone={isGone(row.original, filters) || undefined}
                  style={{ transform: `translateY(${item.start}px)` }}
                  onClick={() => setActiveId(row.id)}
                  onDoubleClick={() =>
                    void navigate({ to: '/apps/$app/workflows/$id', params: { app, id: row.id } })
                  }
                >
                  {row.getVisibleCells().map((cell) => (
                    <div key={cell.id} role="gridcell" tabIndex={-1} className={s.cell}>
                      <table.FlexRender cell={cell} />
                    </div>
                  ))}
                </div>
              );
            })}
          </div>
          <div className={s.foot}>
            {loadingMore ? 'Loading more…' : hasMore ? '' : `${count(rows.length)} shown, no more match`}
          </div>
        </div>
      </div>
      {list.news > 0 && (
        <button type="button" className={s.news} onClick={list.showNews}>
          <ArrowUp style={{ width: 13 }} />{' '}
          {list.news >= 100 ? '100 or more new' : plural(list.news, 'new workflow')}
        </button>
      )}
      {selected.length > 0 && (
        <May permission="application.write">
          <BulkBar app={app} selected={selected} onClear={() => setRowSelection({})} onDone={list.reload} />
        </May>
      )}
      <div className="visually-hidden" role="status">
        {list.news > 0 ? `${plural(list.news, 'new workflow')}` : ''}
      </div>
    </div>
  );
}

/** A row that a filter on the status let in and that has moved on since. */
function isGone(row: Workflow, filters: Filters): boolean {
  return filters.status !== undefined && !filters.status.includes(row.status);
}

/** Takes news in by itself while nobody is reading: at the top, nothing chosen, the pointer elsewhere. */
function useFollow(
  list: WorkflowList,
  viewport: React.RefObject<HTMLDivElement | null>,
  idle: boolean,
): void {
  const { news, showNews } = list;
  useEffect(() => {
    const element = viewport.current;
    if (news === 0 || !idle || !element) return;
    if (element.scrollTop === 0 && !element.matches(':hover') && !element.contains(document.activeElement))
      showNews();
  }, [news, showNews, idle, viewport]);
}

const COLUMNS_KEY = 'segno.columns';

/** Which columns are shown, remembered by the browser. */
function useColumns() {
  const [columns, setColumns] = useState<Record<string, boolean>>(() => {
    try {
      const stored: unknown = JSON.parse(localStorage.getItem(COLUMNS_KEY) ?? 'null');
      if (typeof stored === 'object' && stored !== null) return { ...HIDDEN_AT_FIRST, ...stored };
    } catch {
      // Something else wrote there: begin anew.
    }
    return HIDDEN_AT_FIRST;
  });
  const store = (next: Record<string, boolean>) => {
    localStorage.setItem(COLUMNS_KEY, JSON.stringify(next));
    setColumns(next);
  };
  return [columns, store] as const;
}
