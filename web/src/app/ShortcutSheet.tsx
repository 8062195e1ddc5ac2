import { Kbd } from '~/ui/controls';
import { Dialog } from '~/ui/overlay';
import { SHORTCUTS } from './hotkeys';
import s from './Shell.module.css';

export function ShortcutSheet({ open, onClose }: { open: boolean; onClose: () => void }) {
  return (
    <Dialog open={open} onClose={onClose} title="Keyboard" width={620}>
      <div className={s.keys}>
        {SHORTCUTS.map((group) => (
          <section key={group.title} className="stack" style={{ gap: 8 }}>
            <h3 className="muted">{group.title}</h3>
            <dl>
              {group.keys.map(([keys, what]) => (
                <div key={what} style={{ display: 'contents' }}>
                  <dt>{what}</dt>
                  <dd>
                    {keys.map((key) => (
                      <Kbd key={key}>{key}</Kbd>
                    ))}
                  </dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Dialog>
  );
}
