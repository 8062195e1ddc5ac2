import 'uplot/dist/uPlot.min.css';
import { useEffect, useRef, useState } from 'react';
import uPlot from 'uplot';
import type { ChartProps, Series } from './Chart';
import { count } from './format';
import s from './Plot.module.css';

/** What `BarChart` shows, with the library that draws it. The canvas is described to screen readers by `label`. */
export function Plot(props: ChartProps) {
  const host = useRef<HTMLDivElement>(null);
  const generation = useThemeGeneration();
  const [at, setAt] = useState<number | null>(null);
  const { times, series, height, spark = false, line = false, format = count } = props;
  const plot = useRef<uPlot | null>(null);
  const shape = series.map((each) => `${each.label}:${each.tone}`).join('|');
  const latest = useRef({ times, series, format });
  latest.current = { times, series, format };

  // biome-ignore lint/correctness/useExhaustiveDependencies: colours are read anew for each theme generation
  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const options = chartOptions(element, latest.current.series, { height, spark, line });
    if (!spark) {
      const axis = options.axes?.[1];
      if (axis) axis.values = (_chart, splits) => splits.map((value) => latest.current.format(value));
      options.hooks = { setCursor: [(chart) => setAt(chart.cursor.idx ?? null)] };
    }
    const chart = new uPlot(options, stacked(latest.current.times, latest.current.series), element);
    plot.current = chart;
    const observer = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [shape, height, spark, line, generation]);

  useEffect(() => {
    plot.current?.setData(stacked(times, series));
  }, [times, series]);

  const time = at === null ? undefined : times[at];
  return (
    <div className={s.host}>
      <div ref={host} className={s.chart} role="img" aria-label={props.label} style={{ height }} />
      {time !== undefined && at !== null && (
        <div className={s.readout} aria-hidden>
          <span>{moment.format(time * 1_000)}</span>
          {series.map((each) => (
            <span key={each.label} data-tone={each.tone}>
              <i /> {each.label} <b>{format(each.values[at] ?? 0)}</b>
            </span>
          ))}
        </div>
      )}
    </div>
  );
}

const moment = new Intl.DateTimeFormat(undefined, {
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  hourCycle: 'h23',
});

/** uPlot draws series over each other: the whole stack first, then what lies below it. */
function stacked(times: number[], series: Series[]): uPlot.AlignedData {
  const sums = times.map(() => 0);
  const layers = series.map((each) =>
    times.map((_, at) => {
      sums[at] = (sums[at] ?? 0) + (each.values[at] ?? 0);
      return sums[at] ?? 0;
    }),
  );
  return [times, ...layers.reverse()];
}

function chartOptions(
  element: HTMLElement,
  series: Series[],
  { height, spark, line: lines }: { height: number; spark: boolean; line: boolean },
): uPlot.Options {
  const bars = lines
    ? undefined
    : uPlot.paths.bars?.({ size: [spark ? 0.8 : 0.72, 24], gap: spark ? 1 : 2, radius: 0.12 });
  const ink = colour(element, '--ink-3');
  const line = colour(element, '--line');
  const axis: uPlot.Axis = {
    stroke: ink,
    font: '11px "Geist Variable", system-ui, sans-serif',
    grid: { stroke: line, width: 1 },
    ticks: { show: false },
  };
  const reversed = [...series].reverse();
  return {
    width: element.clientWidth || 100,
    height,
    padding: spark ? [1, 0, 1, 0] : [8, 16, 0, 0],
    legend: { show: false },
    cursor: spark ? { show: false } : { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: {
      // Half a bucket of room on both sides, or the first and last bar would be cut.
      x: { range: (chart, min, max) => [min - halfBucket(chart), max + halfBucket(chart)] },
      y: { range: (_chart, _min, max) => [0, Math.max(max, spark ? 2 : 4) * (lines ? 1.08 : 1)] },
    },
    axes: spark
      ? [{ show: false }, { show: false }]
      : [
          {
            ...axis,
            grid: { show: false },
            space: 70,
            size: 24,
            values: (_chart, splits) => timeLabels(splits),
          },
          {
            ...axis,
            size: lines ? 56 : 40,
            ...(lines ? {} : { incrs: WHOLE }),
          },
        ],
    series: [
      {},
      ...reversed.map((each) => {
        const fill = colour(element, `--${each.tone}-mark`);
        return {
          label: each.label,
          fill: lines ? faded(fill) : fill,
          stroke: fill,
          width: lines ? 1.5 : 0,
          points: { show: false },
          ...(bars ? { paths: bars } : {}),
        };
      }),
    ],
  };
}

/** Steps of an axis of counts. */
const WHOLE = [1, 2, 5]
  .flatMap((step) => Array.from({ length: 9 }, (_, power) => step * 10 ** power))
  .sort((a, b) => a - b);

/** The same colour, to lie under a line. */
function faded(fill: string): string {
  return `color-mix(in oklab, ${fill} 16%, transparent)`;
}

function halfBucket(chart: uPlot): number {
  const [first = 0, second = first + 60] = chart.data[0];
  return (second - first) / 2;
}

const hours = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
const days = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });

/** The hour of each tick, or the day where ticks are days apart or a day begins. */
function timeLabels(ticks: number[]): string[] {
  return ticks.map((tick) => {
    const date = new Date(tick * 1_000);
    return date.getHours() === 0 && date.getMinutes() === 0 ? days.format(date) : hours.format(date);
  });
}

/** A canvas does not know light-dark(): let the browser resolve the token to a colour first. */
function colour(element: HTMLElement, token: string): string {
  const probe = document.createElement('span');
  probe.style.color = `var(${token})`;
  element.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

/** Changes whenever the theme does, whoever changed it. */
function useThemeGeneration(): number {
  const [generation, setGeneration] = useState(0);
  useEffect(() => {
    const renew = () => setGeneration((value) => value + 1);
    const query = window.matchMedia('(prefers-color-scheme: dark)');
    query.addEventListener('change', renew);
    const observer = new MutationObserver(renew);
    observer.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
    return () => {
      query.removeEventListener('change', renew);
      observer.disconnect();
    };
  }, []);
  return generation;
}
