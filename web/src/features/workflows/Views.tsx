import { useQuery } from '@tanstack/react-query';
import { Bookmark, Trash2 } from 'lucide-react';
import { useState } from 'react';
import { queryClient } from '~/api/client';
import { Problem } from '~/api/problem';
import { act, read, type SavedView } from '~/api/queries';
import { parseSearch, stringifySearch } from '~/app/search';
import { Button, Field, Input } from '~/ui/controls';
import { Age, Chip } from '~/ui/data';
import { Menu, type MenuEntry } from '~/ui/Menu';
import { ActionDialog, Dialog } from '~/ui/overlay';
import { Banner, Empty } from '~/ui/states';
import { notify } from '~/ui/toasts';
import { chips, type Filters, isFiltered, readFilters } from './filters';
import s from './Workflows.module.css';

/** What every team asks for sooner or later. */
const READY: [name: string, filters: Filters][] = [
  ['Failed in the last 24 hours', { status: ['ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'], since: '24h' }],
  ['Active for more than an hour', { status: ['PENDING', 'ENQUEUED'], until: '1h' }],
  ['Waiting on a queue', { status: ['ENQUEUED'], queued: 'yes' }],
  ['Forks', { fork: 'yes' }],
];

/** Named filters: ready ones, and those the team has saved on the server. */
export function Views(props: {
  app: string;
  filters: Filters;
  mayWrite: boolean;
  onChange: (filters: Filters) => void;
}) {
  const { app, filters, onChange } = props;
  const views = useQuery({ ...read.views(app), staleTime: 30_000 });
  const [dialog, setDialog] = useState<'save' | 'manage' | null>(null);
  const saved = views.data ?? [];
  const current = saved.find((view) => sameFilters(filtersOf(view), filters));
  return (
    <>
      <Menu
        trigger={
          <Button>
            <Bookmark />{' '}
            <span className="clip" style={{ maxWidth: 180 }}>
              {current?.name ?? 'Views'}
            </span>
          </Button>
        }
        entries={[
          ...READY.map(([name, each]): MenuEntry => ({ label: name, onSelect: () => onChange(each) })),
          ...(saved.length > 0 ? (['separator'] as const) : []),
          ...saved.map(
            (view): MenuEntry => ({
              label: (
                <bdi className="clip" style={{ maxWidth: 280 }}>
                  {view.name}
                </bdi>
              ),
              onSelect: () => onChange(filtersOf(view)),
              meta: view === current ? 'shown' : undefined,
            }),
          ),
          ...(props.mayWrite
            ? ([
                'separator',
                {
                  label: 'Save this view…',
                  disabled: !isFiltered(filters),
                  onSelect: () => setDialog('save'),
                },
                { label: 'Manage views…', disabled: saved.length === 0, onSelect: () => setDialog('manage') },
              ] satisfies MenuEntry[])
            : []),
        ]}
      />
      {dialog === 'save' && (
        <SaveDialog app={app} filters={filters} saved={saved} onClose={() => setDialog(null)} />
      )}
      {dialog === 'manage' && <ManageDialog app={app} saved={saved} onClose={() => setDialog(null)} />}
    </>
  );
}

function filtersOf(view: SavedView): Filters {
  return readFilters(parseSearch(view.query));
}

function sameFilters(a: Filters, b: Filters): boolean {
  return stringifySearch(sorted(a)) === stringifySearch(sorted(b));
}

function sorted(filters: Filters): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(filters)
      .map(([name, value]): [string, unknown] => [name, Array.isArray(value) ? [...value].sort() : value])
      .sort(([a], [b]) => a.localeCompare(b)),
  );
}

function renew(app: string): void {
  void queryClient.invalidateQueries({ queryKey: read.views(app).queryKey });
}

function FilterList({ filters }: { filters: Filters }) {
  return (
    <span className={s.chips}>
      {chips(filters).map((chip) => (
        <Chip key={`${chip.name} ${chip.value}`} title={chip.value}>
          <span className="muted">{chip.label}</span>
          <bdi className="clip">{chip.value}</bdi>
        </Chip>
      ))}
    </span>
  );
}

function SaveDialog(props: { app: string; filters: Filters; saved: SavedView[]; onClose: () => void }) {
  const [name, setName] = useState('');
  const other = props.saved.find((view) => view.name === name.trim());
  return (
    <ActionDialog
      open
      onClose={props.onClose}
      title="Save this view"
      description="Kept on the server: everybody who may read this application finds it."
      verb={other ? 'Replace it' : 'Save'}
      ready={name.trim() !== ''}
      action={() => act.saveView(props.app, name.trim(), stringifySearch(props.filters).slice(1))}
      onDone={() => {
        notify({ title: 'View saved', text: name.trim() });
        renew(props.app);
      }}
    >
      <Field label="Name">
        {(control) => (
          <Input
            {...control}
            value={name}
            maxLength={80}
            autoFocus
            onChange={(event) => setName(event.target.value)}
          />
        )}
      </Field>
      {other && (
        <Banner tone="warn">There is a view of this name, saved by {other.savedBy}. It is replaced.</Banner>
      )}
      <FilterList filters={props.filters} />
    </ActionDialog>
  );
}

function ManageDialog({ app, saved, onClose }: { app: string; saved: SavedView[]; onClose: () => void }) {
  async function remove(view: SavedView) {
    try {
      await act.deleteView(app, view.name);
      notify({ title: 'View deleted', text: view.name });
    } catch (error) {
      notify({ title: 'It could not be deleted', text: Problem.of(error).message, tone: 'err' });
    }
    renew(app);
  }
  return (
    <Dialog open onClose={onClose} title="Views" width={620} foot={<Button onClick={onClose}>Close</Button>}>
      {saved.length === 0 && <Empty title="No view is saved" />}
      <ul className="stack" style={{ gap: 14 }}>
        {saved.map((view) => (
          <li key={view.name} className="row" style={{ alignItems: 'flex-start' }}>
            <div className="grow stack" style={{ gap: 4 }}>
              <span>
                <strong className="foreign">{view.name}</strong>{' '}
                <span className="muted">
                  by <bdi>{view.savedBy}</bdi>, <Age time={view.updatedAt} />
                </span>
              </span>
              <FilterList filters={filtersOf(view)} />
            </div>
            <Button
              kind="quiet"
              small
              icon
              aria-label={`Delete ${view.name}`}
              onClick={() => void remove(view)}
            >
              <Trash2 />
            </Button>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
