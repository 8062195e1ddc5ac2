import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import { tanstackRouter } from '@tanstack/router-plugin/vite';
import react from '@vitejs/plugin-react';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

// `npm run dev` serves the console and passes API calls to a running server.
const server = process.env.SEGNO_URL ?? 'http://127.0.0.1:8090';

/** Compresses once, as well as can be: the server only chooses what the browser takes. */
function precompress(): Plugin {
  const brotli = promisify(brotliCompress);
  const deflate = promisify(gzip);
  return {
    name: 'precompress',
    apply: 'build',
    enforce: 'post',
    async generateBundle(_options, bundle) {
      for (const [fileName, output] of Object.entries(bundle)) {
        if (!/\.(js|css|svg|html)$/.test(fileName)) continue;
        const source = Buffer.from(output.type === 'chunk' ? output.code : output.source);
        const params = {
          [constants.BROTLI_PARAM_QUALITY]: 11,
          [constants.BROTLI_PARAM_SIZE_HINT]: source.length,
        };
        this.emitFile({
          type: 'asset',
          fileName: `${fileName}.br`,
          source: await brotli(source, { params }),
        });
        this.emitFile({
          type: 'asset',
          fileName: `${fileName}.gz`,
          source: await deflate(source, { level: 9 }),
        });
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
  },
  server: {
    proxy: { '/v2': server, '/healthz': server, '/readyz': server, '/openapi.json': server, '/docs': server },
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
