import { lazy, Suspense } from 'react';
import type { Tone } from './data';

// What draws is a quarter of what a page with a chart loads, and the page is readable before it is there.
const Plot = lazy(() => import('./Plot').then((module) => ({ default: module.Plot })));

export type Series = { label: string; tone: Tone; values: number[] };

export type ChartProps = {
  label: string;
  /** Start of each bucket, epoch seconds, ascending and evenly spaced. */
  times: number[];
  series: Series[];
  height: number;
  spark?: boolean;
  /** A line instead of bars, for what is no count. */
  line?: boolean;
  /** How a value is written; a count unless said otherwise. */
  format?: (value: number) => string;
};

/**
 * Stacked bars over time. `spark` is a bare strip for a table row; otherwise axes and a cursor read-out are drawn.
 * Takes its room at once.
 */
export function BarChart(props: ChartProps) {
  return (
    <Suspense fallback={<div aria-busy style={{ height: props.height }} />}>
      <Plot {...props} />
    </Suspense>
  );
}
