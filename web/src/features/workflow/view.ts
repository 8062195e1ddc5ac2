// Apart from the page, so that the route can read the address without loading the page.

export type Tab = 'timeline' | 'values' | 'exchange' | 'graph' | 'raw';
export const TABS: Tab[] = ['timeline', 'values', 'exchange', 'graph', 'raw'];

export type View = { tab?: Tab; step?: string };
