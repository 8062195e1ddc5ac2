import { createFileRoute } from '@tanstack/react-router';
import { one } from '~/app/search';
import { MetricsPage } from '~/features/metrics/MetricsPage';
import { type MetricsView, SPANS, type SpanName } from '~/features/metrics/view';

type Search = { by?: MetricsView['by']; span?: SpanName; name?: string };

export const Route = createFileRoute('/_console/apps/$app/metrics')({
  validateSearch: (search: Record<string, unknown>): Search => {
    const [by, span, name] = [one(search.by), one(search.span), one(search.name)];
    return {
      ...(by === 'step' || by === 'queue' ? { by } : {}),
      ...(span && span in SPANS && span !== '1h' ? { span: span as SpanName } : {}),
      ...(name ? { name } : {}),
    };
  },
  component: Component,
});

function Component() {
  const { app } = Route.useParams();
  const { by = 'workflow', span = '1h', name } = Route.useSearch();
  const navigate = Route.useNavigate();
  return (
    <MetricsPage
      key={app}
      app={app}
      view={{ by, span, name }}
      onView={(view) =>
        void navigate({
          search: {
            ...(view.by === 'workflow' ? {} : { by: view.by }),
            ...(view.span === '1h' ? {} : { span: view.span }),
            ...(view.name ? { name: view.name } : {}),
          },
          replace: true,
        })
      }
    />
  );
}
