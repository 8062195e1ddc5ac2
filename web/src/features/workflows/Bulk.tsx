import { ListChecks } from 'lucide-react';
import { useState } from 'react';
import type { Workflow } from '~/api/queries';
import { serverNow } from '~/ui/clock';
import { Button } from '~/ui/controls';
import { count } from '~/ui/format';
import { Menu } from '~/ui/Menu';
import { OperationDialog } from '../operations/OperationDialog';
import { applies, KINDS, type Kind, type Target } from '../operations/operations';
import { type Filters, searchBody } from './filters';
import s from './Workflows.module.css';

const ORDER: Kind[] = ['cancel', 'resume', 'fork', 'delete'];

type Chosen = { kind: Kind; target: Target; remark?: string };

/** What can be done to the selected workflows. */
export function BulkBar(props: {
  app: string;
  selected: Workflow[];
  onClear: () => void;
  onDone: () => void;
}) {
  const { selected } = props;
  const [chosen, setChosen] = useState<Chosen | null>(null);
  const choose = (kind: Kind) => {
    // The set is fixed when the dialog opens: what is previewed is what is done.
    const targets = selected.filter((row) => applies(kind, row.status));
    const skipped = selected.length - targets.length;
    setChosen({
      kind,
      target: { workflowIds: targets.map((row) => row.workflowId) },
      ...(skipped > 0
        ? { remark: `${count(skipped)} of the selected are left out: this does nothing in their state.` }
        : {}),
    });
  };
  return (
    <div className={s.selection} role="toolbar" aria-label="Selected workflows">
      <strong className="num">{count(selected.length)} selected</strong>
      {ORDER.map((kind) => (
        <Button
          key={kind}
          kind={kind === 'delete' ? 'danger' : 'plain'}
          disabled={!selected.some((row) => applies(kind, row.status))}
          onClick={() => choose(kind)}
        >
          {KINDS[kind].title}
        </Button>
      ))}
      <Button kind="quiet" onClick={props.onClear}>
        Clear
      </Button>
      {chosen && (
        <OperationDialog
          {...chosen}
          app={props.app}
          onClose={() => setChosen(null)}
          onDone={() => {
            props.onClear();
            props.onDone();
          }}
        />
      )}
    </div>
  );
}

/** What can be done to everything that the filters leave, however much that is. */
export function ActOnAll({ app, filters, onDone }: { app: string; filters: Filters; onDone: () => void }) {
  const [chosen, setChosen] = useState<Chosen | null>(null);
  return (
    <>
      <Menu
        trigger={
          <Button>
            <ListChecks /> Act on all that match
          </Button>
        }
        entries={ORDER.map((kind) => ({
          label: `${KINDS[kind].title}…`,
          danger: kind === 'delete',
          onSelect: () => {
            const { sortDesc: _, ...filter } = searchBody(filters, serverNow());
            setChosen({ kind, target: { filter } });
          },
        }))}
      />
      {chosen && <OperationDialog {...chosen} app={app} onClose={() => setChosen(null)} onDone={onDone} />}
    </>
  );
}
