/**
 * The two tiers of the tests. `npm test` is the quick tier: it needs npm packages alone. `npm run test:system` adds real
 * Redis, balancers, namespaces, and the whole length of long tests.
 *
 * The name of a file says where it runs: `x.test.ts` in the quick tier, `x.system.test.ts` in the system tier,
 * `x.long.test.ts` in both, with few rounds in the quick tier and all of them in the system tier.
 */

/** `vitest.config.ts` sets this variable for the tests of the system tier. */
export const TIER = 'TEST_TIER'

/** How many rounds a long test runs in this tier. */
export function roundsOf(tiers: { quick: number; system: number }): number {
  return process.env[TIER] === 'system' ? tiers.system : tiers.quick
}
