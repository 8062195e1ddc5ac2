import { useVirtualizer } from '@tanstack/react-virtual';
import { stringify } from 'lossless-json';
import { ChevronRight, Download } from 'lucide-react';
import { useMemo, useRef, useState } from 'react';
import { Button, Segments } from '~/ui/controls';
import { Copy } from '~/ui/data';
import { bytes } from '~/ui/format';
import { leaf, MOST_SHOWN, type Node, parseValue, visibleNodes } from './parse';
import s from './Value.module.css';

const LINE = 20;

/** A recorded value: a collapsible tree when it is JSON, else its text; any size, with the raw bytes as the way out. */
export function ValueView({ title, text, file }: { title: string; text: string | null; file: string }) {
  const [raw, setRaw] = useState(false);
  const parsed = useMemo(() => (text === null ? null : parseValue(text)), [text]);
  if (text === null || parsed === null) {
    return (
      <section className={s.value} aria-label={title}>
        <div className={s.bar}>
          <h2>{title}</h2>
        </div>
        <p className={s.none}>none</p>
      </section>
    );
  }
  const tree = parsed.kind === 'json' && !raw;
  return (
    <section className={s.value} aria-label={title}>
      <div className={s.bar}>
        <h2>{title}</h2>
        <span className="muted num">{bytes(text.length)}</span>
        <span className="grow" />
        {parsed.kind === 'json' && (
          <Segments
            label={`View of ${title}`}
            value={raw ? 'raw' : 'tree'}
            options={[
              { value: 'tree', label: 'Tree' },
              { value: 'raw', label: 'Raw' },
            ]}
            onChange={(view) => setRaw(view === 'raw')}
          />
        )}
        <Copy text={text} label={title} always />
        <Button kind="quiet" small icon aria-label={`Download ${title}`} onClick={() => download(text, file)}>
          <Download />
        </Button>
      </div>
      {tree ? <Tree value={parsed.value} label={title} /> : <Text text={text} label={title} />}
    </section>
  );
}

function Text({ text, label }: { text: string; label: string }) {
  const cut = text.length > MOST_SHOWN;
  return (
    <div className={s.body} tabIndex={0} role="region" aria-label={`${label}, text`}>
      <pre className={s.text}>{cut ? text.slice(0, MOST_SHOWN) : text}</pre>
      {cut && (
        <p className={s.none}>
          The first {bytes(MOST_SHOWN)} of {bytes(text.length)}. Download it to see all.
        </p>
      )}
    </div>
  );
}

function Tree({ value, label }: { value: unknown; label: string }) {
  const [toggled, setToggled] = useState<ReadonlySet<string>>(new Set());
  const nodes = useMemo(
    // Small containers near the top are open at first.
    () => visibleNodes(value, (path, depth, size) => (depth < 3 && size <= 50) !== toggled.has(path)),
    [value, toggled],
  );
  const body = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: nodes.length,
    getScrollElement: () => body.current,
    estimateSize: () => LINE,
    overscan: 20,
  });
  const toggle = (path: string) =>
    setToggled((was) => {
      const next = new Set(was);
      if (!next.delete(path)) next.add(path);
      return next;
    });
  const open = (node: Node) => (node.depth < 3 && (node.size ?? 0) <= 50) !== toggled.has(node.path);
  return (
    <div
      ref={body}
      className={s.body}
      tabIndex={0}
      role="region"
      aria-label={`${label}, tree`}
      style={{ height: Math.min(nodes.length * LINE + 12, 420), paddingBlock: 6 }}
    >
      <div style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {virtual.getVirtualItems().map((item) => {
          const node = nodes[item.index];
          return node ? (
            <Line
              key={node.path}
              node={node}
              open={open(node)}
              top={item.start}
              onToggle={() => toggle(node.path)}
            />
          ) : null;
        })}
      </div>
    </div>
  );
}

function Line({
  node,
  open,
  top,
  onToggle,
}: {
  node: Node;
  open: boolean;
  top: number;
  onToggle: () => void;
}) {
  return (
    <div className={s.line} style={{ transform: `translateY(${top}px)`, paddingLeft: 8 + node.depth * 16 }}>
      {node.size !== null && node.size > 0 ? (
        <button
          type="button"
          className={s.toggle}
          aria-expanded={open}
          aria-label={`${open ? 'Close' : 'Open'} ${node.path || 'the value'}`}
          onClick={onToggle}
        >
          <ChevronRight />
        </button>
      ) : (
        <span className={s.space} />
      )}
      {node.name !== null && <span className={s.key}>{node.name}: </span>}
      {node.size === null ? (
        <Leaf value={node.value} />
      ) : (
        <span className={s.size}>
          {node.array ? '[' : '{'}
          {node.size === 0 ? '' : open ? '' : ` ${node.size} `}
          {open && node.size > 0 ? ` ${node.size}` : node.array ? ']' : '}'}
        </span>
      )}
      <span className={s.copies}>
        <Copy text={stringify(node.value) ?? ''} label="value" />
        {node.path && <Copy text={node.path} label="path" />}
      </span>
    </div>
  );
}

function Leaf({ value }: { value: unknown }) {
  const { text, kind } = leaf(value);
  return (
    <span className={s[kind]} title={text.length > 80 ? `${text.slice(0, 2_000)}` : undefined}>
      {text.length > 2_000 ? `${text.slice(0, 2_000)}…` : text}
    </span>
  );
}

/** Saves text as a file without passing it through the page. */
export function download(text: string, name: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/octet-stream' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name.replaceAll(/[^\w.-]+/g, '_');
  link.click();
  // The browser has taken the blob by the next task.
  setTimeout(() => URL.revokeObjectURL(url));
}
