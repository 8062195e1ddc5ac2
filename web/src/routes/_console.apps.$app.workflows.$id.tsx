import { createFileRoute } from '@tanstack/react-router';
import { one } from '~/app/search';
import { TABS, type Tab, type View } from '~/features/workflow/view';
import { WorkflowPage } from '~/features/workflow/WorkflowPage';

export const Route = createFileRoute('/_console/apps/$app/workflows/$id')({
  validateSearch: (search: Record<string, unknown>): View => {
    const tab = one(search.tab);
    const step = one(search.step);
    return { ...(TABS.includes(tab as Tab) ? { tab: tab as Tab } : {}), ...(step ? { step } : {}) };
  },
  component: Component,
});

function Component() {
  const { app, id } = Route.useParams();
  const view = Route.useSearch();
  const navigate = Route.useNavigate();
  return (
    <WorkflowPage
      key={`${app} ${id}`}
      app={app}
      id={id}
      view={view}
      onView={(search) => void navigate({ search, replace: true, resetScroll: false })}
    />
  );
}
