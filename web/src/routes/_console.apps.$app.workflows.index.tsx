import { createFileRoute } from '@tanstack/react-router';
import { readFilters } from '~/features/workflows/filters';
import { WorkflowsPage } from '~/features/workflows/WorkflowsPage';

export const Route = createFileRoute('/_console/apps/$app/workflows/')({
  validateSearch: readFilters,
  component: Component,
});

function Component() {
  const { app } = Route.useParams();
  const filters = Route.useSearch();
  const navigate = Route.useNavigate();
  return (
    <WorkflowsPage key={app} app={app} filters={filters} onFilters={(search) => void navigate({ search })} />
  );
}
