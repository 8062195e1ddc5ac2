import { Dialog } from '@base-ui/react/dialog';
import type { ReactNode } from 'react';
import s from './Shell.module.css';

/** The navigation on a phone. It closes with whatever is chosen in it. */
export function Drawer({ onClose, children }: { onClose: () => void; children: ReactNode }) {
  return (
    <Dialog.Root open onOpenChange={(open) => !open && onClose()}>
      <Dialog.Portal>
        <Dialog.Backdrop className={s.backdrop} />
        <Dialog.Popup className={s.drawer} aria-label="Navigation" onClick={onClose}>
          {children}
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}
