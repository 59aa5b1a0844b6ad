/**
 * Requests made of the API document and requests behind real signatures (G21, G23, R02): none gives a 5xx, says anything of the inside,
 * is answered with what the document does not have, or takes a second. The seed is in the message of a failure; `FUZZ_SEED` repeats it,
 * `FUZZ_RUNS` goes on for longer.
 */
import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { createAccount } from '@sealpost/testing/clients/store-accounts'
import { assertOf } from '@sealpost/testing/clients/assertion'
import { type Recipe, useFuzz } from '@sealpost/testing/forgeries/fuzzed-rest'
import { type Known, requestOf } from '@sealpost/testing/forgeries/schema-values'
import { createPerson, step } from '@sealpost/testing/clients/signed-requests'
import { roundsOf } from '@sealpost/testing/tier'

const RUNS = Number(process.env['FUZZ_RUNS'] ?? roundsOf({ quick: 5_000, system: 50_000 }))
/** Enough for each kind of refusal to come up. */
const SIGNED = Math.max(1_500, Math.ceil(RUNS / 16))
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)
const AT_ONCE = 8
/** Of what is made of the document: every so many goes over a socket. */
const SOCKET_EVERY = 16

const fuzz = useFuzz()
const count = (outcome: string): number => fuzz.outcomes.get(outcome) ?? 0

it(`${SIGNED.toLocaleString('en')} requests that a device signed, odd in every way`, { timeout: 600_000 }, async () => {
  const steps = fc.sample(step, { numRuns: SIGNED, seed: SEED })
  await Promise.all(
    Array.from({ length: AT_ONCE }, async (_, i) => {
      const person = createPerson(fuzz, SEED)
      for (let at = i; at < steps.length; at += AT_ONCE) await person.take(steps[at]!)
    }),
  )
  await fuzz.askSlowOnes(SEED)
  // they came past the signature: what is wrong behind it was told, and much was right
  for (const code of [
    'expired',
    'forbidden',
    'invalid_entry',
    'invalid_token',
    'log_conflict',
    'superseded',
    'unauthorized',
    'unknown_version',
  ])
    expect(count(code), code).toBeGreaterThan(0)
  expect(count('200')).toBeGreaterThan(SIGNED / 6)
})

it(`${(RUNS - SIGNED).toLocaleString('en')} requests of the document`, { timeout: 600_000 }, async () => {
  const before = count('200')
  const account = await createAccount(fuzz.store, 2)
  const { operation: tokens } = fuzz.operations.find(({ operation }) => operation.operationId === 'create_token')!
  /** A new one for each operation: one of them ends it. */
  const newToken = async (): Promise<string> => {
    const payload = JSON.stringify(await assertOf(account, fuzz.server_key, 'token'))
    const make = async () => ({ method: 'POST', url: '/api/auth/token', headers: { 'content-type': 'application/json' }, payload })
    const { text } = await fuzz.send({ operation: tokens, make, overSocket: false }, SEED)
    return (JSON.parse(text) as { access_token: string }).access_token
  }
  const ids = account.devices.map(({ device_id }) => device_id)
  const per = Math.ceil((RUNS - SIGNED) / fuzz.operations.length)
  for (const [index, { path, method, operation }] of fuzz.operations.entries()) {
    const known: Known = { ids, token: await newToken(), files: ['swagger-ui.css', 'start.js'] }
    const requests = fc.sample(requestOf(path, method, operation, known), { numRuns: per, seed: SEED + index })
    // a long poll waits on purpose
    const recipes = requests.map((request, i): Recipe => {
      const url = request.url.replace(/([?&])wait=\d+/, '$1wait=0')
      return { operation, make: async () => ({ ...request, url }), overSocket: i % SOCKET_EVERY === 0 }
    })
    for (let at = 0; at < recipes.length; at += AT_ONCE)
      await Promise.all(recipes.slice(at, at + AT_ONCE).map((recipe) => fuzz.send(recipe, SEED)))
  }
  await fuzz.askSlowOnes(SEED)
  const sent = [...fuzz.outcomes.values()].reduce((sum, each) => sum + each, 0)
  expect(sent).toBeGreaterThanOrEqual(RUNS)
  // the requests were not all noise: many came through
  expect(count('200') - before).toBeGreaterThan((RUNS - SIGNED) / 10)
  if (process.env['FIGURES'] !== undefined) process.stdout.write(`${sent} requests: ${JSON.stringify(Object.fromEntries(fuzz.outcomes))}\n`)
})
