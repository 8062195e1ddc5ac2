import { Dialog as BaseDialog } from '@base-ui/react/dialog';
import { useMutation } from '@tanstack/react-query';
import type { CSSProperties, ReactNode } from 'react';
import { Problem } from '~/api/problem';
import { Button } from './controls';
import s from './overlay.module.css';
import { Fault } from './states';

export function Dialog(props: {
  open: boolean;
  onClose: () => void;
  title: string;
  description?: ReactNode;
  width?: number;
  children: ReactNode;
  foot?: ReactNode;
}) {
  return (
    <BaseDialog.Root open={props.open} onOpenChange={(open) => !open && props.onClose()}>
      <BaseDialog.Portal>
        <BaseDialog.Backdrop className={s.backdrop} />
        <BaseDialog.Viewport className={s.viewport}>
          <BaseDialog.Popup
            className={s.dialog}
            style={{ '--dialog-width': `${props.width ?? 480}px` } as CSSProperties}
          >
            <div className={s.head}>
              <BaseDialog.Title className={s.title}>{props.title}</BaseDialog.Title>
              {props.description && (
                <BaseDialog.Description className={s.description}>{props.description}</BaseDialog.Description>
              )}
            </div>
            <div className={s.body}>{props.children}</div>
            {props.foot && <div className={s.foot}>{props.foot}</div>}
          </BaseDialog.Popup>
        </BaseDialog.Viewport>
      </BaseDialog.Portal>
    </BaseDialog.Root>
  );
}

/**
 * A dialog around one action: says what will happen, does it, and stays open with the reason when it fails.
 */
export function ActionDialog<Result>(props: {
  open: boolean;
  onClose: () => void;
  title: string;
  description?: ReactNode;
  width?: number;
  verb: string;
  danger?: boolean;
  ready?: boolean;
  action: () => Promise<Result>;
  onDone: (result: Result) => void;
  children?: ReactNode;
}) {
  const mutation = useMutation({
    mutationFn: props.action,
    onSuccess: (result) => {
      props.onDone(result);
      close();
    },
  });
  const close = () => {
    mutation.reset();
    props.onClose();
  };
  return (
    <Dialog
      open={props.open}
      onClose={close}
      title={props.title}
      description={props.description}
      {...(props.width ? { width: props.width } : {})}
      foot={
        <>
          <Button onClick={close}>Close</Button>
          <Button
            kind={props.danger ? 'danger' : 'primary'}
            disabled={props.ready === false || mutation.isPending}
            onClick={() => mutation.mutate()}
          >
            {mutation.isPending ? 'Working…' : props.verb}
          </Button>
        </>
      }
    >
      {props.children}
      {mutation.error && <Fault problem={Problem.of(mutation.error)} />}
    </Dialog>
  );
}
