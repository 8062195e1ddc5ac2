import { Toast } from '@base-ui/react/toast';
import { X } from 'lucide-react';
import { type ReactNode, useEffect } from 'react';
import { Button } from './controls';
import s from './overlay.module.css';

type Notice = { title: string; text?: ReactNode; tone?: 'ok' | 'err' };
const toasts = Toast.createToastManager();

/** What was told before there was a place to show it; the manager itself forgets that. */
const early: Notice[] = [];
let mounted = false;

/** Tells the outcome of an action. */
export function notify(notice: Notice): void {
  if (mounted) show(notice);
  else early.push(notice);
}

function show({ title, text, tone = 'ok' }: Notice): void {
  toasts.add({ title, description: text, type: tone, timeout: tone === 'err' ? 12_000 : 6_000 });
}

export function Toasts() {
  useEffect(() => {
    mounted = true;
    for (const notice of early.splice(0)) show(notice);
    return () => {
      mounted = false;
    };
  }, []);
  return (
    <Toast.Provider toastManager={toasts}>
      <Toast.Portal>
        <Toast.Viewport className={s.toasts}>
          <ToastList />
        </Toast.Viewport>
      </Toast.Portal>
    </Toast.Provider>
  );
}

function ToastList() {
  const { toasts: shown } = Toast.useToastManager();
  return shown.map((toast) => (
    <Toast.Root key={toast.id} toast={toast} className={s.toast} data-tone={toast.type ?? 'ok'}>
      <Toast.Content className={s.toastBody}>
        <div className="grow">
          <Toast.Title className={s.toastTitle} />
          <Toast.Description className={s.toastText} />
        </div>
        <Toast.Close
          render={
            <Button kind="quiet" small icon aria-label="Dismiss">
              <X />
            </Button>
          }
        />
      </Toast.Content>
    </Toast.Root>
  ));
}
