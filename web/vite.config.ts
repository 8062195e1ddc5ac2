import { readFile, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import { tanstackRouter } from '@tanstack/router-plugin/vite';
import react from '@vitejs/plugin-react';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

// `npm run dev` serves the console and passes API calls to a running server.
const server = process.env.SEGNO_URL ?? 'http://127.0.0.1:8090';

/** Compresses once, as well as can be: the server only chooses what the browser takes, and unpacks for the few that take neither. */
function precompress(): Plugin {
  const brotli = promisify(brotliCompress);
  const deflate = promisify(gzip);
  return {
    name: 'precompress',
    apply: 'build',
    // What is on disk: other plugins still change the bundle after every earlier hook.
    async writeBundle({ dir }, bundle) {
      for (const name of Object.keys(bundle).filter((each) => /\.(js|css|svg)$/.test(each))) {
        const path = join(dir ?? 'dist', name);
        const source = await readFile(path);
        const params = {
          [constants.BROTLI_PARAM_QUALITY]: 11,
          [constants.BROTLI_PARAM_SIZE_HINT]: source.length,
        };
        await writeFile(`${path}.br`, await brotli(source, { params }));
        await writeFile(`${path}.gz`, await deflate(source, { level: 9 }));
        await unlink(path);
      }
    },
  };
}

export default defineConfig({
  plugins: [
    tanstackRouter({ target: 'react', autoCodeSplitting: true, routeFileIgnorePattern: '\\.test\\.' }),
    react(),
    precompress(),
  ],
  // The server says in each page where its files are, so that any prefix of a proxy will do.
  base: './',
  resolve: { alias: { '~': new URL('./src', import.meta.url).pathname } },
  build: {
    // Sizes are of interest compressed, and those files are there to be looked at.
    reportCompressedSize: false,
    // The first releases with light-dark() and the other CSS used here.
    target: ['chrome123', 'firefox128', 'safari17.5'],
    // The content security policy allows no data: scripts or fonts.
    assetsInlineLimit: 0,
    // The policy also forbids the inline script that the module preload polyfill needs.
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: {
        // One file for what the first page needs, not one for each set of pages that share a piece of it: on a slow
        // network requests cost more than bytes.
        codeSplitting: { groups: [{ name: 'base', tags: ['$initial'] }] },
      },
    },
  },
  server: {
    proxy: {
      '/v2': server,
      '/healthz': server,
      '/readyz': server,
      '/openapi.json': server,
      '/docs': server,
      '/console': server,
    },
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
