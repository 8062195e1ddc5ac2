import { createFileRoute } from '@tanstack/react-router';
import { one } from '~/app/search';
import { OperationsPage } from '~/features/operations/OperationsPage';

export const Route = createFileRoute('/_console/apps/$app/operations')({
  validateSearch: (search: Record<string, unknown>): { id?: string } => {
    const id = one(search.id);
    return id ? { id } : {};
  },
  component: Component,
});

function Component() {
  const { app } = Route.useParams();
  const { id } = Route.useSearch();
  const navigate = Route.useNavigate();
  return (
    <OperationsPage
      key={app}
      app={app}
      chosen={id}
      onChoose={(next) => void navigate({ search: next ? { id: next } : {}, replace: true })}
    />
  );
}
