import '@fontsource-variable/geist/wght.css';
import '@fontsource-variable/geist-mono/wght.css';
import './ui/tokens.css';
import './ui/base.css';
import { CSPProvider } from '@base-ui/react/csp-provider';
import { QueryClientProvider } from '@tanstack/react-query';
import { createRouter, RouterProvider } from '@tanstack/react-router';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { BASE } from './api/base';
import { queryClient, whenUnauthorized } from './api/client';
import { forgetSession } from './api/session';
import { parseSearch, stringifySearch } from './app/search';
import { applyTheme } from './app/theme';
import { routeTree } from './routeTree.gen';
import { LiveProvider } from './ui/live';

applyTheme();
// The icon's address is relative to the page that was opened first: pin it before the address changes.
for (const link of document.querySelectorAll<HTMLLinkElement>('link[rel=icon]'))
  link.href = String(link.href);

const router = createRouter({
  routeTree,
  basepath: BASE,
  parseSearch,
  stringifySearch,
  defaultPreload: 'intent',
  defaultPreloadStaleTime: 0,
  scrollRestoration: true,
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}

whenUnauthorized(() => {
  if (router.state.location.pathname.startsWith('/login')) return;
  forgetSession();
  queryClient.clear();
  void router.navigate({ to: '/login', search: { next: router.state.location.href } });
});

const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      {/* Nothing of the component kit may add style elements: the content security policy forbids them. */}
      <CSPProvider disableStyleElements>
        <QueryClientProvider client={queryClient}>
          <LiveProvider>
            <RouterProvider router={router} />
          </LiveProvider>
        </QueryClientProvider>
      </CSPProvider>
    </StrictMode>,
  );
}
