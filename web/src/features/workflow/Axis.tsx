import { type PointerEvent, useState } from 'react';
import { duration } from '~/ui/format';
import type { Scale, Zoom } from './timeline';
import { zoomBetween } from './timeline';
import s from './Workflow.module.css';

type Props = { scale: Scale; mode: 'time' | 'even'; onZoom: (zoom: Zoom | null) => void };

/** The times above the rows. Dragging across them looks closely at that stretch. */
export function Axis({ scale, mode, onZoom }: Props) {
  const [brush, setBrush] = useState<{ from: number; to: number } | null>(null);
  const place = (event: PointerEvent<HTMLDivElement>) => {
    const box = event.currentTarget.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  };
  return (
    <div className={s.axis} aria-hidden>
      <div />
      {/* biome-ignore lint/a11y/noStaticElementInteractions: for the pointer only; z and 0 do it with the keyboard */}
      <div
        className={s.axisTrack}
        title="Drag to zoom, double-click for all"
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          setBrush({ from: place(event), to: place(event) });
        }}
        onPointerMove={(event) => brush && setBrush({ from: brush.from, to: place(event) })}
        onPointerUp={() => {
          const zoom = brush && zoomBetween(scale, brush.from, brush.to);
          setBrush(null);
          if (zoom) onZoom(zoom);
        }}
        onPointerCancel={() => setBrush(null)}
        onDoubleClick={() => onZoom(null)}
      >
        {mode === 'even' ? (
          <span data-first style={{ left: 0 }}>
            widths by the logarithm of time
          </span>
        ) : (
          <Ticks scale={scale} />
        )}
        {brush && (
          <i
            className={s.brush}
            style={{
              left: `${Math.min(brush.from, brush.to) * 100}%`,
              width: `${Math.abs(brush.to - brush.from) * 100}%`,
            }}
          />
        )}
      </div>
      <div className={s.took} title="From the first to the last moment shown">
        {duration(scale.to - scale.from)}
      </div>
    </div>
  );
}

function Ticks({ scale }: { scale: Scale }) {
  return scale.ticks.map((tick, index) => {
    const last = index > 0 && scale.at(tick) > 0.96;
    return (
      <span
        key={tick}
        data-first={index === 0 || undefined}
        data-last={last || undefined}
        style={{ left: `${scale.at(tick) * 100}%` }}
      >
        {index === 0 ? '0' : duration(tick - scale.from)}
      </span>
    );
  });
}
