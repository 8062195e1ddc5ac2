import { createFileRoute } from '@tanstack/react-router';
import { one } from '~/app/search';
import { Compare } from '~/features/workflow/Compare';

export const Route = createFileRoute('/_console/apps/$app/compare')({
  validateSearch: (search: Record<string, unknown>): { left?: string; right?: string } => {
    const left = one(search.left);
    const right = one(search.right);
    return { ...(left ? { left } : {}), ...(right ? { right } : {}) };
  },
  component: Component,
});

function Component() {
  const { app } = Route.useParams();
  const { left, right } = Route.useSearch();
  return <Compare key={`${left} ${right}`} app={app} left={left} right={right} />;
}
