import { Menu as BaseMenu } from '@base-ui/react/menu';
import { Check } from 'lucide-react';
import type { ReactElement, ReactNode } from 'react';
import s from './controls.module.css';

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
