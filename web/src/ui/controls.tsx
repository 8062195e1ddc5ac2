import { Checkbox as BaseCheckbox } from '@base-ui/react/checkbox';
import { Check, Minus } from 'lucide-react';
import { type ComponentProps, type ReactNode, useId } from 'react';
import s from './controls.module.css';

type ButtonKind = 'plain' | 'primary' | 'danger' | 'quiet';

export type ButtonProps = ComponentProps<'button'> & { kind?: ButtonKind; small?: boolean; icon?: boolean };

/** A button; `icon` makes it square and then needs an `aria-label`. */
export function Button({ kind = 'plain', small, icon, className, type = 'button', ...props }: ButtonProps) {
  return (
    <button
      {...props}
      type={type}
      className={className ? `${s.button} ${className}` : s.button}
      data-kind={kind}
      data-small={small || undefined}
      data-icon={icon || undefined}
    />
  );
}

/** The look of a button for elements that are not buttons, such as router links. */
export function buttonLook(kind: ButtonKind = 'plain', small = false) {
  return { className: s.button, 'data-kind': kind, 'data-small': small || undefined };
}

/** A label above a control, with a hint or what is wrong with it below. */
export function Field(props: {
  label: string;
  hint?: ReactNode;
  fault?: string | undefined;
  children: (control: { id: string; 'aria-describedby': string; 'aria-invalid': boolean }) => ReactNode;
}) {
  const id = useId();
  return (
    <div className={s.field}>
      <label className={s.label} htmlFor={id}>
        {props.label}
      </label>
      {props.children({ id, 'aria-describedby': `${id}-hint`, 'aria-invalid': Boolean(props.fault) })}
      <div id={`${id}-hint`} className={props.fault ? s.fault : s.hint}>
        {props.fault ?? props.hint}
      </div>
    </div>
  );
}

export function Input({ className, ...props }: ComponentProps<'input'>) {
  return (
    <input autoComplete="off" spellCheck={false} {...props} className={`${s.input} ${className ?? ''}`} />
  );
}

export function TextArea({ className, ...props }: ComponentProps<'textarea'>) {
  return <textarea spellCheck={false} {...props} className={`${s.input} ${className ?? ''}`} />;
}

export function Checkbox(props: {
  checked: boolean;
  indeterminate?: boolean;
  onChange: (checked: boolean) => void;
  children?: ReactNode;
  label?: string;
  disabled?: boolean;
}) {
  const box = (
    <BaseCheckbox.Root
      className={s.box}
      checked={props.checked}
      indeterminate={props.indeterminate ?? false}
      disabled={props.disabled ?? false}
      onCheckedChange={props.onChange}
      aria-label={props.label}
    >
      <BaseCheckbox.Indicator>{props.indeterminate ? <Minus /> : <Check />}</BaseCheckbox.Indicator>
    </BaseCheckbox.Root>
  );
  if (!props.children) return box;
  return (
    // biome-ignore lint/a11y/noLabelWithoutControl: the checkbox above renders an input inside
    <label className={s.check}>
      {box}
      <span>{props.children}</span>
    </label>
  );
}

/** A short choice shown whole. */
export function Segments<V extends string>(props: {
  label: string;
  value: V | null;
  options: { value: V; label: ReactNode }[];
  onChange: (value: V) => void;
}) {
  return (
    <div role="group" aria-label={props.label} className={s.segments}>
      {props.options.map((option) => (
        <button
          key={option.value}
          type="button"
          className={s.segment}
          aria-pressed={option.value === props.value}
          onClick={() => props.onChange(option.value)}
        >
          {option.label}
        </button>
      ))}
    </div>
  );
}

export function Kbd({ children }: { children: ReactNode }) {
  return <kbd className={s.kbd}>{children}</kbd>;
}

export { s as controlStyles };
