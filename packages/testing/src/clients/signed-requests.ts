/**
 * Requests behind a signature: what only a device can sign, odd in every way, signed by it. A person with one account sends one
 * after the other, keeps what is given out and goes on with it; who lost the account comes back with another.
 */
import { randomUUID } from 'node:crypto'
import { fromBase64url, toBase64url, tuple } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import * as fc from 'fast-check'
import { createAccount, makeDevice, makeEntry, type TestAccount, type TestChange, type TestDevice } from './store-accounts.ts'
import { type Asserted, PURPOSES } from './assertion.ts'
import { makeEventJson } from '../relays/event-server.ts'
import type { Fuzz, FuzzAnswer, Recipe } from '../forgeries/fuzzed-rest.ts'
import { type FuzzRequest, weird } from '../forgeries/schema-values.ts'

type Signed = Asserted | 'rename_device' | 'revoke_device' | 'append_events'

/** A member of a value, by number over all of them, becomes something like it, or anything, is left out, or gets a neighbour. */
type Oddity = { at: number; how: 'near' | 'replace' | 'drop' | 'add'; value: unknown; name: string }
/** What happens to the text between being written and being signed. */
const TEXTS: readonly ((text: string) => string | Uint8Array)[] = [
  (text) => `${text} `,
  (text) => `\uFEFF${text}`,
  (text) => text.slice(0, -1),
  (text) => `[${text}]`,
  (text) => text.replace('{', '{"__proto__":{"signer":"root"},'),
  (text) => text.replace('{', '{"v":1,"purpose":"token",'),
  (text) => text.replace(/"(\w+)":(\d+)/, '"$1":$2e0'),
  (text) => text.replace(/:(\d+)/, ':9007199254740993'),
  (text) => Buffer.concat([Buffer.from(text.slice(0, -1)), Buffer.from([0xff, 0x7d])]),
  (text) => `${'['.repeat(2_000)}${text}${']'.repeat(2_000)}`,
]

/** One step of a person. */
export type Step = {
  name: Signed
  oddities: Oddity[]
  text: number | null
  /** Offset of the time of an assertion, in ms. */
  early_ms: number
  /** Whose: itself, another device of the account, the root. */
  signer: 'own' | 'second' | 'root'
  /** A signature of somebody else. */
  forged: boolean
  change: 'rotate_keys' | 'rename_device' | 'add_device' | 'revoke_device'
  events: number
  /** Of what goes with the signed body in the request. */
  beside: Oddity[]
  again: boolean
  overSocket: boolean
}

const names: readonly Signed[] = [
  'append_log',
  'rename_device',
  'revoke_device',
  'read_log',
  'create_token',
  'refresh_token',
  'take_session',
  'append_events',
]
const rarely = <T>(weight: number, often: T, arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ weight, arbitrary: fc.constant(often) }, { weight: 1, arbitrary })
const oddity: fc.Arbitrary<Oddity> = fc.record({
  at: fc.nat(1_000),
  how: fc.constantFrom<Oddity['how']>('near', 'near', 'near', 'near', 'replace', 'drop', 'add'),
  value: fc.oneof(weird, fc.constantFrom('root', 0, 1, 2 ** 32, [], {}, 'A'.repeat(43), 'a'.repeat(51))),
  name: fc.constantFrom('role', 'device', 'revoked', 'rename', 'root_kem_pub', '__proto__', 'constructor', 'from_log_seq', 'ttl'),
})

export const step: fc.Arbitrary<Step> = fc.record({
  name: rarely<Signed>(40, 'read_log', fc.constant('delete_user')).chain((name) =>
    name === 'delete_user' ? fc.constant(name) : fc.constantFrom(...names),
  ),
  oddities: fc.oneof(
    { weight: 2, arbitrary: fc.constant<Oddity[]>([]) },
    { weight: 3, arbitrary: fc.array(oddity, { minLength: 1, maxLength: 3 }) },
  ),
  text: rarely<number | null>(9, null, fc.nat(TEXTS.length - 1)),
  early_ms: rarely(6, 0, fc.constantFrom(-299_000, 299_000, -301_000, 301_000, -1e15, 1e15, 0.5)),
  signer: rarely<Step['signer']>(9, 'own', fc.constantFrom('second', 'root')),
  forged: rarely(30, false, fc.constant(true)),
  change: fc.constantFrom('rotate_keys', 'rename_device', 'add_device', 'revoke_device'),
  events: fc.integer({ min: 1, max: 3 }),
  beside: rarely<Oddity[]>(9, [], fc.array(oddity, { minLength: 1, maxLength: 1 })),
  again: rarely(20, false, fc.constant(true)),
  overSocket: fc.nat(3).map((luck) => luck === 0),
})

type Person = {
  account: TestAccount
  /** The device that comes next. */
  coming: TestDevice
  token: string
  refresh_token: string
  session_id: string
  next: number
  entries: number
  /** By address. */
  sent: Map<string, FuzzRequest>
}

/** Asked with a token: who is not let in has no good one any more. */
const NO_PROOF: ReadonlySet<string> = new Set(['rename_device', 'revoke_device', 'append_events'])
/** More entries an hour are refused. */
const ENTRIES_MAX = 25

export function createPerson(fuzz: Fuzz, seed: number) {
  let person: Person | null = null

  async function arrive(): Promise<Person> {
    const account = await createAccount(fuzz.store, 3)
    const made: Person = {
      account,
      coming: makeDevice(),
      token: '',
      refresh_token: 'AAAA',
      session_id: '',
      next: 1,
      entries: 0,
      sent: new Map(),
    }
    for (const name of ['create_token', 'take_session'] as const) learn(made, { ...PLAIN, name }, await ask(made, { ...PLAIN, name }))
    return made
  }

  async function ask(of: Person, what: Step): Promise<FuzzAnswer> {
    const found = fuzz.operations.find(({ operation }) => operation.operationId === what.name)
    if (found === undefined) throw new TypeError(what.name)
    const make = async (): Promise<FuzzRequest> => {
      const { params, body } = makeBody(fuzz.server_key, of, what)
      const url = found.path.replace(/\{(\w+)\}/g, params ?? '')
      const headers = { authorization: `Bearer ${of.token}`, 'content-type': 'application/json' }
      const request = { method: found.method.toUpperCase(), url, headers, payload: JSON.stringify(makeOdd(body, what.beside)) }
      // the very bytes of before
      const sent = (what.again ? of.sent.get(url) : undefined) ?? request
      of.sent.set(url, sent)
      return sent
    }
    const recipe: Recipe = { operation: found.operation, make, overSocket: what.overSocket }
    return fuzz.send(recipe, seed)
  }

  return {
    async take(next: Step): Promise<void> {
      person ??= await arrive()
      const answer = await ask(person, next)
      const isLast =
        next.name === 'delete_user' || next.name === 'revoke_device' || (next.name === 'append_log' && next.change === 'revoke_device')
      const isOut = answer.code === 'device_revoked' || (answer.code === 'unauthorized' && NO_PROOF.has(next.name))
      if (answer.status === 200) learn(person, next, answer)
      // who is out, has used up the log or has a device less goes on with another account
      if (isOut || person.entries >= ENTRIES_MAX || (isLast && answer.status === 200)) person = null
    },
  }
}

/** Nothing odd. */
const PLAIN: Step = {
  name: 'create_token',
  oddities: [],
  text: null,
  early_ms: 0,
  signer: 'own',
  forged: false,
  change: 'rotate_keys',
  events: 1,
  beside: [],
  again: false,
  overSocket: false,
}

function learn(person: Person, { name, change }: Step, { text }: FuzzAnswer): void {
  const body = JSON.parse(text) as { [member: string]: unknown }
  if (typeof body['access_token'] === 'string') person.token = body['access_token']
  if (typeof body['refresh_token'] === 'string') person.refresh_token = body['refresh_token']
  if (typeof body['session_id'] === 'string')
    Object.assign(person, { session_id: body['session_id'], next: Number(body['last_device_seq']) + 1 })
  if (name === 'append_events') person.next += (body['acks'] as unknown[]).length
  if (name === 'read_log' || typeof body['log_head'] !== 'string' || !/log|device/.test(name)) return
  person.entries += 1
  person.account.log_seq = Number(body['log_seq'])
  person.account.log_head = fromBase64url(body['log_head'])
  if (name !== 'append_log' || change !== 'add_device') return
  person.account.devices.push(person.coming)
  person.coming = makeDevice()
}

function makeBody(server_key: Uint8Array, person: Person, what: Step): { params?: string; body: object } {
  const { account, session_id, next, refresh_token } = person
  const assertion = (name: Asserted) => assert(server_key, account, name, what)
  switch (what.name) {
    case 'append_log':
      return {
        body: {
          ...entry(account, what, changeOf(person, what.change)),
          proof: assert(server_key, account, 'append_log', { ...PLAIN, signer: what.signer }),
        },
      }
    case 'rename_device':
    case 'revoke_device': {
      const params = account.devices[1]!.device_id
      return { params, body: entry(account, what, changeOf(person, what.name)) }
    }
    case 'append_events': {
      const events = Array.from({ length: what.events }, (_, i) => makeOdd(makeEventJson(account, 0, next + i, {}).json, what.oddities))
      return { body: { session_id, events } }
    }
    case 'refresh_token':
      return { body: { ...assertion(what.name), refresh_token } }
    default:
      return { body: assertion(what.name) }
  }
}

function changeOf({ account, coming }: Person, change: Step['change']): TestChange {
  const { device_id } = account.devices[1]!
  switch (change) {
    case 'rename_device':
      return { type: 'rename_device', rename: { device_id, name: `name ${toBase64url(nodeCrypto.random(6))}` } }
    case 'revoke_device':
      return { type: 'revoke_device', revoked: [{ device_id }] }
    case 'add_device':
      return { type: 'add_device', device: coming }
    default:
      return { type: 'rotate_keys' }
  }
}

function assert(server_key: Uint8Array, account: TestAccount, name: Asserted, what: Step): { body: string; sig: string } {
  const { id, seed } = signerOf(account, what)
  const claims = {
    purpose: PURPOSES[name],
    aud: toBase64url(server_key),
    user_id: account.user_id,
    signer: id,
    iat: Date.now() + what.early_ms,
    jti: toBase64url(nodeCrypto.random(16)),
  }
  return sign('assertion', seed, claims, what)
}

function entry(account: TestAccount, what: Step, change: TestChange): object {
  const { seed } = signerOf(account, what)
  const made = makeEntry(account, change)
  return { ...sign('log', seed, JSON.parse(Buffer.from(made.entry.body).toString()) as object, what), boxes: made.boxes }
}

function signerOf(account: TestAccount, { signer, forged }: Pick<Step, 'signer' | 'forged'>): { id: string; seed: Uint8Array } {
  const device = account.devices[signer === 'second' ? 1 : 0] as TestDevice
  const own = signer === 'root' ? { id: 'root', seed: account.root_seed } : { id: device.device_id, seed: device.sign_seed }
  return forged ? { ...own, seed: account.devices[2]!.sign_seed } : own
}

function sign(label: string, seed: Uint8Array, value: object, { oddities, text }: Step): { body: string; sig: string } {
  const written = JSON.stringify(makeOdd(value, oddities))
  const body = Buffer.from((text === null ? written : TEXTS[text]!(written)) as string)
  return { body: toBase64url(body), sig: toBase64url(nodeCrypto.ed25519Sign(seed, tuple(label, null, body))) }
}

function makeOdd(value: object, oddities: readonly Oddity[]): object {
  const odd = structuredClone(value)
  for (const { at, how, value: given, name } of oddities) {
    const places = membersOf(odd)
    const place = places[at % places.length]
    if (place === undefined) continue
    const [holder, key] = place
    if (how === 'drop') delete holder[key]
    else if (how === 'near') holder[key] = near(holder[key], at)
    else
      Object.defineProperty(holder, how === 'add' ? name : key, {
        value: structuredClone(given),
        enumerable: true,
        configurable: true,
        writable: true,
      })
  }
  return odd
}

type Holder = Record<string, unknown>

/** Every member of every object and list. */
function membersOf(value: object): [Holder, string][] {
  return Object.entries(value).flatMap(([key, inner]) => [
    [value as Holder, key] as [Holder, string],
    ...(typeof inner === 'object' && inner !== null ? membersOf(inner) : []),
  ])
}

/** Of the same kind: what a decoder takes and a rule may not. */
function near(value: unknown, at: number): unknown {
  if (typeof value === 'number') return [value + 1, Math.max(0, value - 1), 0, 0xffff_ffff, Number.MAX_SAFE_INTEGER][at % 5]
  if (typeof value === 'boolean') return !value
  if (Array.isArray(value)) return [[], [...value, ...value], value.toReversed(), value.slice(1)][at % 4]
  if (typeof value !== 'string') return {}
  if (/^[0-9a-f-]{36}$/.test(value)) return at % 2 === 0 ? randomUUID() : value.toUpperCase()
  const bytes = Buffer.from(value, 'base64url')
  // of as many bytes, when it is bytes
  return bytes.length >= 16 && bytes.toString('base64url') === value ? toBase64url(nodeCrypto.random(bytes.length)) : `${value}x`
}
