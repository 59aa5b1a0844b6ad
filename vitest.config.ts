import { defineConfig } from 'vitest/config'
import { LongFirst } from './test/long-first.ts'
import { TIER } from './packages/testing/src/tier.ts'

// packages/testing/src/tier.ts says which file runs in which tier.
const ALL = ['packages/*/src/**/*.test.ts', 'packages/*/test/**/*.test.ts', 'test/**/*.test.ts']
const SYSTEM = ['**/*.system.test.ts']
const BOTH = ['**/*.long.test.ts']
/** These need no database. They are a project of their own, so that you can run them without PostgreSQL. */
const PURE = ['packages/protocol/**/*.test.ts', 'packages/server/src/core/**/*.test.ts']
const ELSEWHERE = ['**/node_modules/**', '**/dist/**']

export default defineConfig({
  resolve: { conditions: ['development'] },
  ssr: { resolve: { conditions: ['development'], externalConditions: ['development'] } },
  test: {
    pool: 'forks',
    // tests wait for processes and disks more than they compute: more workers than the two cores they are meant for
    maxWorkers: 4,
    sequence: { sequencer: LongFirst },
    execArgv: ['--conditions=development', '--disable-warning=ExperimentalWarning'],
    // only a hang reaches these limits, also on a slow machine
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: 'pure', include: PURE } },
      {
        extends: true,
        test: {
          name: 'quick',
          include: ALL,
          exclude: [...ELSEWHERE, ...PURE, ...SYSTEM],
          globalSetup: ['test/postgres-setup.ts'],
        },
      },
      {
        extends: true,
        test: {
          name: 'system',
          include: [...SYSTEM, ...BOTH],
          exclude: ELSEWHERE,
          env: { [TIER]: 'system' },
          globalSetup: ['test/components-setup.ts', 'test/postgres-setup.ts'],
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
