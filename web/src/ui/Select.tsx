import { Select as BaseSelect } from '@base-ui/react/select';
import { Check, ChevronsUpDown } from 'lucide-react';
import type { ReactNode } from 'react';
import s from './controls.module.css';

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
