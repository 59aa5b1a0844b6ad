import { defineConfig } from 'vitest/config'
import { LongFirst } from './test/long-first.ts'

/** Tests without a database are a project of their own, so that running them alone starts no PostgreSQL. */
const PURE = ['packages/protocol/**/*.test.ts', 'packages/server/src/core/**/*.test.ts']

export default defineConfig({
  resolve: { conditions: ['development'] },
  ssr: { resolve: { conditions: ['development'], externalConditions: ['development'] } },
  test: {
    pool: 'forks',
    // tests wait for processes and disks more than they compute: one more than the two cores they are meant for
    maxWorkers: 3,
    sequence: { sequencer: LongFirst },
    execArgv: ['--conditions=development', '--disable-warning=ExperimentalWarning'],
    // many start processes of their own, which takes its time where cores are shared
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      { extends: true, test: { name: 'pure', include: PURE } },
      {
        extends: true,
        test: {
          name: 'postgres',
          include: ['packages/*/src/**/*.test.ts', 'packages/*/test/**/*.test.ts', 'test/**/*.test.ts'],
          exclude: ['**/node_modules/**', '**/dist/**', ...PURE],
          globalSetup: ['test/global-setup.ts'],
        },
      },
    ],
    coverage: {
      provider: 'v8',
      reportOnFailure: true,
      include: ['packages/*/src/**/*.ts'],
      exclude: ['**/*.test.ts', 'packages/testing/**'],
      reporter: ['text-summary', 'json-summary', 'html'],
      thresholds: {
        lines: 85,
        branches: 80,
        'packages/protocol/src/**': { lines: 95 },
        'packages/server/src/core/**': { lines: 95 },
        'packages/server/src/ingest/**': { lines: 95 },
        'packages/server/src/relay/**': { lines: 95 },
      },
    },
  },
})
