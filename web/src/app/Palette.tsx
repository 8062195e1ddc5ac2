import { Autocomplete } from '@base-ui/react/autocomplete';
import { Dialog } from '@base-ui/react/dialog';
import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useMemo, useState } from 'react';
import { read } from '~/api/queries';
import { controlStyles } from '~/ui/controls';
import { useLive } from '~/ui/live';
import overlay from '~/ui/overlay.module.css';
import s from './Shell.module.css';
import { setTheme } from './theme';

type Command = { value: string; label: string; meta?: string; run: () => void };
type Group = { value: string; items: Command[] };

/** Jump to any page, application or workflow, or do what needs no page. */
export function CommandPalette(props: {
  app: string | undefined;
  open: boolean;
  onClose: () => void;
  onSheet: () => void;
}) {
  return (
    <Dialog.Root open={props.open} onOpenChange={(open) => !open && props.onClose()}>
      <Dialog.Portal>
        <Dialog.Backdrop className={overlay.backdrop} />
        <Dialog.Viewport className={overlay.viewport}>
          <Dialog.Popup className={`${overlay.dialog} ${s.palette}`} aria-label="Jump to">
            <Commands {...props} />
          </Dialog.Popup>
        </Dialog.Viewport>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Commands(props: { app: string | undefined; onClose: () => void; onSheet: () => void }) {
  const [text, setText] = useState('');
  const groups = useCommands(props.app, text.trim(), props.onSheet);
  return (
    <Autocomplete.Root
      open
      inline
      items={groups}
      value={text}
      onValueChange={setText}
      itemToStringValue={(command: Command) => command.label}
      autoHighlight="always"
      keepHighlight
    >
      <Autocomplete.Input
        className={s.paletteInput}
        aria-label="Page, application, workflow id or command"
        placeholder="Page, application, workflow id or command"
      />
      <Autocomplete.Empty>
        <div className={s.paletteEmpty}>Nothing by that name</div>
      </Autocomplete.Empty>
      <Autocomplete.List className={s.paletteList}>
        {(group: Group) => (
          <Autocomplete.Group key={group.value} items={group.items}>
            <Autocomplete.GroupLabel className={controlStyles.groupLabel}>
              {group.value}
            </Autocomplete.GroupLabel>
            <Autocomplete.Collection>
              {(command: Command) => (
                <Autocomplete.Item
                  key={command.value}
                  value={command}
                  className={controlStyles.item}
                  onClick={() => {
                    props.onClose();
                    command.run();
                  }}
                >
                  <bdi className="clip">{command.label}</bdi>
                  {command.meta && <span className={controlStyles.meta}>{command.meta}</span>}
                </Autocomplete.Item>
              )}
            </Autocomplete.Collection>
          </Autocomplete.Group>
        )}
      </Autocomplete.List>
    </Autocomplete.Root>
  );
}

const PAGES = [
  ['Overview', '', 'g o'],
  ['Workflows', '/workflows', 'g w'],
  ['Recovery', '/recovery', 'g r'],
  ['Executors', '/executors', 'g e'],
  ['Versions', '/versions', 'g v'],
  ['Queues', '/queues', 'g q'],
  ['Schedules', '/schedules', 'g s'],
  ['Operations', '/operations', 'g b'],
  ['Metrics', '/metrics', 'g m'],
  ['Alerts', '/alerts', 'g l'],
  ['Connect an executor', '/connect', ''],
  ['Settings', '/settings', ''],
] as const;

function useCommands(app: string | undefined, text: string, onSheet: () => void): Group[] {
  const navigate = useNavigate();
  const { live, toggle } = useLive();
  const { data: apps } = useQuery(read.apps());
  return useMemo(() => {
    const groups: Group[] = [];
    if (app) {
      groups.push({
        value: app,
        items: PAGES.map(([label, path, meta]) => ({
          value: `page${path}`,
          label,
          meta,
          run: () => void navigate({ to: `/apps/$app${path}`, params: { app } }),
        })),
      });
    }
    groups.push({
      value: 'Applications',
      items: (apps ?? []).map((each) => ({
        value: `app-${each.name}`,
        label: each.name,
        meta: each.status === 'AVAILABLE' ? 'connected' : 'not connected',
        run: () => void navigate({ to: '/apps/$app', params: { app: each.name } }),
      })),
    });
    groups.push({
      value: 'Console',
      items: [
        { value: 'fleet', label: 'Fleet', meta: 'g f', run: () => void navigate({ to: '/' }) },
        { value: 'register', label: 'Register an application', run: () => void navigate({ to: '/new' }) },
        { value: 'keys', label: 'API keys', meta: 'g k', run: () => void navigate({ to: '/keys' }) },
        { value: 'audit', label: 'Audit log', meta: 'g a', run: () => void navigate({ to: '/audit' }) },
        { value: 'channels', label: 'Alert channels', run: () => void navigate({ to: '/channels' }) },
        { value: 'members', label: 'Members and roles', run: () => void navigate({ to: '/members' }) },
        { value: 'the-system', label: 'System', meta: 'g y', run: () => void navigate({ to: '/system' }) },
        { value: 'pause', label: live ? 'Pause' : 'Go live', meta: 'p', run: toggle },
        { value: 'light', label: 'Light theme', run: () => setTheme('light') },
        { value: 'dark', label: 'Dark theme', run: () => setTheme('dark') },
        { value: 'system', label: 'Theme of the system', run: () => setTheme('system') },
        { value: 'sheet', label: 'Keyboard shortcuts', meta: '?', run: onSheet },
      ],
    });
    if (app && text) {
      groups.push({
        value: `Workflows of ${app}`,
        items: [
          {
            value: 'open-workflow',
            label: `Open the workflow with id ${text}`,
            run: () => void navigate({ to: '/apps/$app/workflows/$id', params: { app, id: text } }),
          },
          {
            value: 'find-workflow',
            label: `Show workflows whose id starts with ${text}`,
            run: () => void navigate({ to: '/apps/$app/workflows', params: { app }, search: { id: [text] } }),
          },
          {
            value: 'name-workflow',
            label: `Show workflows named ${text}`,
            run: () =>
              void navigate({ to: '/apps/$app/workflows', params: { app }, search: { name: [text] } }),
          },
        ],
      });
    }
    return groups;
  }, [app, text, apps, live, toggle, navigate, onSheet]);
}
