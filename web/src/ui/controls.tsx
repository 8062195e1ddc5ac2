import { Checkbox as BaseCheckbox } from '@base-ui/react/checkbox';
import { Menu as BaseMenu } from '@base-ui/react/menu';
import { Select as BaseSelect } from '@base-ui/react/select';
import { Check, ChevronsUpDown, Minus } from 'lucide-react';
import { type ComponentProps, type ReactElement, type ReactNode, useId } from 'react';
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

export type Option = { value: string; label: ReactNode; meta?: ReactNode };

export function Select(props: {
  id?: string;
  value: string;
  options: Option[];
  onChange: (value: string) => void;
  label?: string;
}) {
  const shown = props.options.find((option) => option.value === props.value);
  return (
    <BaseSelect.Root value={props.value} onValueChange={(value) => value !== null && props.onChange(value)}>
      <BaseSelect.Trigger id={props.id} className={s.select} aria-label={props.label}>
        <BaseSelect.Value>{() => <span className="clip">{shown?.label ?? 'Choose…'}</span>}</BaseSelect.Value>
        <BaseSelect.Icon>
          <ChevronsUpDown />
        </BaseSelect.Icon>
      </BaseSelect.Trigger>
      <BaseSelect.Portal>
        <BaseSelect.Positioner className={s.positioner} sideOffset={4} alignItemWithTrigger={false}>
          <BaseSelect.Popup className={s.popup}>
            <BaseSelect.List>
              {props.options.map((option) => (
                <BaseSelect.Item key={option.value} value={option.value} className={s.item}>
                  <span className={s.tick}>
                    <BaseSelect.ItemIndicator>
                      <Check />
                    </BaseSelect.ItemIndicator>
                  </span>
                  <BaseSelect.ItemText>{option.label}</BaseSelect.ItemText>
                  {option.meta && <span className={s.meta}>{option.meta}</span>}
                </BaseSelect.Item>
              ))}
            </BaseSelect.List>
          </BaseSelect.Popup>
        </BaseSelect.Positioner>
      </BaseSelect.Portal>
    </BaseSelect.Root>
  );
}

export type MenuEntry =
  | {
      label: ReactNode;
      icon?: ReactNode;
      onSelect: () => void;
      danger?: boolean;
      disabled?: boolean;
      meta?: ReactNode;
    }
  | { checked: boolean; label: ReactNode; onChange: (checked: boolean) => void }
  | 'separator';

/** A menu that opens from `trigger`, which must be a single button element. */
export function Menu({ trigger, entries }: { trigger: ReactElement; entries: MenuEntry[] }) {
  return (
    <BaseMenu.Root>
      <BaseMenu.Trigger render={trigger} />
      <BaseMenu.Portal>
        <BaseMenu.Positioner className={s.positioner} sideOffset={4} align="end">
          <BaseMenu.Popup className={s.popup}>
            {entries.map((entry, index) => {
              if (entry === 'separator') {
                // biome-ignore lint/suspicious/noArrayIndexKey: separators have no identity of their own
                return <BaseMenu.Separator key={index} className={s.separator} />;
              }
              if ('checked' in entry) {
                return (
                  <BaseMenu.CheckboxItem
                    // biome-ignore lint/suspicious/noArrayIndexKey: the order of a menu's entries is fixed
                    key={index}
                    className={s.item}
                    checked={entry.checked}
                    onCheckedChange={entry.onChange}
                    closeOnClick={false}
                  >
                    <span className={s.tick}>
                      <BaseMenu.CheckboxItemIndicator>
                        <Check />
                      </BaseMenu.CheckboxItemIndicator>
                    </span>
                    {entry.label}
                  </BaseMenu.CheckboxItem>
                );
              }
              return (
                <BaseMenu.Item
                  // biome-ignore lint/suspicious/noArrayIndexKey: the order of a menu's entries is fixed
                  key={index}
                  className={s.item}
                  data-tone={entry.danger ? 'err' : undefined}
                  disabled={entry.disabled ?? false}
                  onClick={entry.onSelect}
                >
                  {entry.icon}
                  {entry.label}
                  {entry.meta && <span className={s.meta}>{entry.meta}</span>}
                </BaseMenu.Item>
              );
            })}
          </BaseMenu.Popup>
        </BaseMenu.Positioner>
      </BaseMenu.Portal>
    </BaseMenu.Root>
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
