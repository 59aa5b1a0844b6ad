/** Suites that need real components: run where those are, skipped elsewhere (the global setup says so once), failed in CI. */
import { describe, test } from 'vitest'
import { type Component, isCi, whyMissing } from './available.ts'

export type { Component }

/** `describe` for tests that start `components`. */
export function describeWith(components: readonly Component[], title: string, suite: () => void): void {
  const reasons = components.map(whyMissing).filter((reason) => reason !== null)
  if (reasons.length === 0) {
    describe(title, suite)
  } else if (isCi()) {
    describe(title, () => {
      test('has the components it needs', () => {
        throw new Error(reasons.join('\n'))
      })
    })
  } else {
    describe.skip(title, suite)
  }
}
