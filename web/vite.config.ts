import { tanstackRouter } from '@tanstack/router-plugin/vite';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// `npm run dev` serves the console and passes API calls to a running server.
const server = process.env.SEGNO_URL ?? 'http://127.0.0.1:8090';

export default defineConfig({
  plugins: [
    tanstackRouter({ target: 'react', autoCodeSplitting: true, routeFileIgnorePattern: '\\.test\\.' }),
    react(),
  ],
  resolve: { alias: { '~': new URL('./src', import.meta.url).pathname } },
  build: {
    // The first releases with light-dark() and the other CSS used here.
    target: ['chrome123', 'firefox128', 'safari17.5'],
    // The content security policy allows no data: scripts or fonts.
    assetsInlineLimit: 0,
    // The policy also forbids the inline script that the module preload polyfill needs.
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: { '/v2': server, '/healthz': server, '/readyz': server, '/openapi.json': server, '/docs': server },
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
