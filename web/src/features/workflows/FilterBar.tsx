import { Autocomplete } from '@base-ui/react/autocomplete';
import { useQuery } from '@tanstack/react-query';
import { Search, X } from 'lucide-react';
import { useMemo, useRef, useState } from 'react';
import { read, type Workflow } from '~/api/queries';
import { useHotkeys } from '~/app/hotkeys';
import { Button, controlStyles, Kbd } from '~/ui/controls';
import { STATUSES, statusLabel } from '~/ui/data';
import { cut } from '~/ui/format';
import {
  addFilter,
  chips,
  type Filters,
  FLAG_FIELDS,
  isFiltered,
  LIST_FIELDS,
  parseQualifier,
  removeFilter,
  resolveTime,
  TIME_FIELDS,
} from './filters';
import s from './Workflows.module.css';

type Suggestion = {
  key: string;
  label: string;
  meta: string;
  pick: { name: string; value: string } | { text: string };
};

/** One field for every filter: qualifiers with suggestions, and what is filtered as removable chips. */
export function FilterBar(props: {
  app: string;
  filters: Filters;
  rows: Workflow[];
  onChange: (filters: Filters) => void;
}) {
  const { filters, onChange } = props;
  const [text, setText] = useState('');
  const [open, setOpen] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const suggestions = useSuggestions(props.app, props.rows, text);
  useHotkeys({ '/': () => input.current?.focus() });

  function choose(suggestion: Suggestion) {
    if ('text' in suggestion.pick) {
      setText(suggestion.pick.text);
      setOpen(true);
      input.current?.focus();
      return;
    }
    onChange(addFilter(filters, suggestion.pick.name, suggestion.pick.value));
    setText('');
  }

  return (
    <div className={s.search}>
      <Search aria-hidden />
      <Autocomplete.Root
        items={suggestions}
        mode="none"
        open={open}
        onOpenChange={setOpen}
        openOnInputClick
        autoHighlight={text !== ''}
        value={text}
        onValueChange={(value, details) => {
          // Choosing decides itself what becomes of the text.
          if (details.reason !== 'item-press') setText(value);
        }}
        itemToStringValue={(suggestion: Suggestion) => suggestion.label}
      >
        <Autocomplete.Input
          ref={input}
          className={controlStyles.input}
          placeholder="Filter: name, id, status:error, version:…, since:1h"
          aria-label="Filter workflows"
          spellCheck={false}
          onFocus={() => setOpen(true)}
          onKeyDown={(event) => {
            if (event.key === 'Escape' && text === '') input.current?.blur();
            if (event.key === 'Backspace' && text === '') {
              const last = chips(filters).at(-1);
              if (last) onChange(removeFilter(filters, last.name, last.value));
            }
          }}
        />
        <Autocomplete.Portal>
          <Autocomplete.Positioner className={controlStyles.positioner} sideOffset={4}>
            <Autocomplete.Popup className={controlStyles.popup}>
              <Autocomplete.List>
                {(suggestion: Suggestion) => (
                  <Autocomplete.Item
                    key={suggestion.key}
                    value={suggestion}
                    className={controlStyles.item}
                    onClick={() => choose(suggestion)}
                  >
                    <bdi className="clip">{suggestion.label}</bdi>
                    <span className={controlStyles.meta}>{suggestion.meta}</span>
                  </Autocomplete.Item>
                )}
              </Autocomplete.List>
            </Autocomplete.Popup>
          </Autocomplete.Positioner>
        </Autocomplete.Portal>
      </Autocomplete.Root>
      {text === '' && <Kbd>/</Kbd>}
    </div>
  );
}

export function FilterChips({
  filters,
  onChange,
}: {
  filters: Filters;
  onChange: (filters: Filters) => void;
}) {
  if (!isFiltered(filters)) return null;
  return (
    <ul className={s.chips} aria-label="Filters">
      {chips(filters).map((chip) => (
        <li key={`${chip.name} ${chip.value}`} className={s.filter}>
          <span>{chip.label}</span>
          <bdi className="clip" title={cut(chip.value)}>
            {chip.name === 'status' ? statusLabel(chip.value) : cut(chip.value)}
          </bdi>
          <button
            type="button"
            aria-label={`Remove ${chip.label} ${chip.value}`}
            onClick={() => onChange(removeFilter(filters, chip.name, chip.value))}
          >
            <X />
          </button>
        </li>
      ))}
      <li>
        <Button kind="quiet" small onClick={() => onChange(filters.order ? { order: filters.order } : {})}>
          Clear
        </Button>
      </li>
    </ul>
  );
}

const MOST_SUGGESTED = 12;
const SPANS = ['15m', '1h', '6h', '24h', '7d', '30d'];

/** What the text so far may mean. */
function useSuggestions(app: string, rows: Workflow[], text: string): Suggestion[] {
  const executors = useQuery(read.executors(app));
  return useMemo(() => {
    const qualifier = parseQualifier(text);
    if (qualifier) {
      const { name, value } = qualifier;
      const known = valuesOf(name, rows, executors.data ?? []);
      const label = labelOf(name);
      const matching = known.filter(
        (each) => each.toLowerCase().includes(value.toLowerCase()) && each !== value,
      );
      const own = value !== '' && isPossible(name, value, known) ? [value] : [];
      return [...own, ...matching].slice(0, MOST_SUGGESTED).map((each) => ({
        key: each,
        label: name === 'status' ? statusLabel(each) : each,
        meta: label,
        pick: { name, value: each },
      }));
    }
    const typed = text.trim();
    const fields = Object.entries({
      ...LIST_FIELDS,
      ...TIME_FIELDS,
      ...FLAG_FIELDS,
      attr: 'Attribute key=value',
    })
      .filter(([name]) => name.startsWith(typed.toLowerCase()))
      .map(([name]) => ({
        key: `${name}:`,
        label: `${name}:`,
        meta: labelOf(name),
        pick: { text: `${name}:` },
      }));
    if (typed === '') return fields;
    const direct = ['name', 'id'].map((name) => ({
      key: name,
      label: typed,
      meta: labelOf(name),
      pick: { name, value: typed },
    }));
    // Ids tend to have digits, names of workflows not.
    if (/\d/.test(typed)) direct.reverse();
    const statuses = STATUSES.filter((status) =>
      statusLabel(status).toLowerCase().startsWith(typed.toLowerCase()),
    ).map((status) => ({
      key: status,
      label: statusLabel(status),
      meta: 'Status',
      pick: { name: 'status', value: status },
    }));
    return [...statuses, ...direct, ...fields];
  }, [text, rows, executors.data]);
}

function labelOf(name: string): string {
  if (name in LIST_FIELDS) return LIST_FIELDS[name as keyof typeof LIST_FIELDS].label;
  if (name in TIME_FIELDS) return TIME_FIELDS[name as keyof typeof TIME_FIELDS];
  if (name in FLAG_FIELDS) return FLAG_FIELDS[name as keyof typeof FLAG_FIELDS];
  return 'Attribute';
}

function isPossible(name: string, value: string, known: string[]): boolean {
  if (name === 'status' || name in FLAG_FIELDS) return known.includes(value);
  if (name in TIME_FIELDS) return resolveTime(value, 0) !== null;
  return name !== 'attr' || value.indexOf('=') > 0;
}

function valuesOf(
  name: string,
  rows: Workflow[],
  executors: { executorId: string; appVersion: string }[],
): string[] {
  const unique = (values: (string | null)[]) =>
    [...new Set(values.filter((each): each is string => Boolean(each)))].sort();
  switch (name) {
    case 'status':
      return STATUSES;
    case 'since':
    case 'until':
      return SPANS;
    case 'child':
    case 'fork':
      return ['yes', 'no'];
    case 'queued':
      return ['yes'];
    case 'executor':
      return unique([...executors.map((each) => each.executorId), ...rows.map((row) => row.executorId)]);
    case 'version':
      return unique([...executors.map((each) => each.appVersion), ...rows.map((row) => row.appVersion)]);
    case 'name':
      return unique(rows.map((row) => row.workflowName));
    case 'queue':
      return unique(rows.map((row) => row.queueName));
    case 'user':
      return unique(rows.map((row) => row.user));
    case 'schedule':
      return unique(rows.map((row) => row.scheduleName));
    case 'parent':
      return unique(rows.map((row) => row.parentWorkflowId));
    case 'forked':
      return unique(rows.map((row) => row.forkedFrom));
    default:
      return [];
  }
}
