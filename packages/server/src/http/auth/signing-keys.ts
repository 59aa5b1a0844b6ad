/**
 * The keys that sign access tokens (protocol.md §10): next → active → retired. The seed of generation n is derived from the
 * secrets, so that all nodes with the same secrets have the same keys; the store says which generations are in force.
 *
 * Bound: a read of the store per `REFRESH_MS`, and at an unknown `kid` one a second at most.
 */
import { type Bytes, LIMITS, toBase64url, tuple } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { type CryptoKey, importJWK, type JWK } from 'jose'
import type { Audit } from '../../audit/recorder.ts'
import type { Log } from '../../telemetry/log.ts'
import type { KeySchedule, SigningKeyRow, SigningKeyStore } from '../../ports/store.ts'

export const ALG = 'Ed25519'

export type KeySet = {
  /** The active key. */
  signing(): Promise<{ kid: string; key: CryptoKey }>
  /** The public key of this name, if it is in force. */
  verifying(kid: string): Promise<CryptoKey | null>
  /** All public keys in force (RFC 7517). */
  jwks(): Promise<{ keys: JWK[] }>
}

export type SigningKeys = KeySet & {
  /** All in force, as they are. */
  list(): SigningKeyState[]
  /** The active key signs nothing more, the next one does. */
  rotate(): Promise<void>
  refresh(): Promise<void>
  close(): Promise<void>
}

/** Times in ms. */
export type SigningKeyState = {
  kid: string
  state: 'next' | 'active' | 'retired'
  created_at: number
  active_at: number | null
  retired_at: number | null
}

const DAY_MS = 86_400_000
const REFRESH_MS = 60_000
const ASK_AGAIN_MS = 1_000
const KID_CHARS = 16

export const KEY_SCHEDULE: KeySchedule = {
  active_ms: 90 * DAY_MS,
  published_ms: DAY_MS,
  // the last token that it signed, and ten minutes for clocks
  retired_ms: LIMITS.accessTokenSeconds * 1_000 + 600_000,
}

type Held = { kid: string; generation: number; row: SigningKeyRow }

export type SigningKeyOptions = {
  purpose?: 'rest' | 'admin' | undefined
  schedule?: KeySchedule
  audit?: Pick<Audit, 'note'>
}

/** Reads and rotates the keys at once and then every minute, until it is closed. Throws what the store throws. */
export async function openSigningKeys(
  store: SigningKeyStore,
  secret: Bytes,
  logger: Log,
  { purpose = 'rest', schedule = KEY_SCHEDULE, audit }: SigningKeyOptions = {},
): Promise<SigningKeys> {
  const seedOf = (generation: number): Bytes => nodeCrypto.hkdf(secret, new Uint8Array(), tuple('access-token-key', purpose, generation))
  const publicKeyOf = (generation: number): Bytes => nodeCrypto.ed25519Public(seedOf(generation))
  let held: Held[] = []
  let refreshed = 0
  let reading: Promise<void> | null = null
  const imported = new Map<string, Promise<CryptoKey>>()

  async function read(rules = schedule): Promise<void> {
    refreshed = performance.now()
    const rows = await store.rotateSigningKeys(purpose, publicKeyOf, rules)
    const before = held
    held = rows.map((row) => ({ kid: kidOf(row.public_key), generation: row.generation, row }))
    const kids = new Set(held.map(({ kid }) => kid))
    for (const name of imported.keys()) if (!kids.has(name.slice(0, KID_CHARS))) imported.delete(name)
    if (!before.some(({ kid, row }) => row.retired_at === null && !kids.has(kid))) return
    logger.error(
      { audit: 'signing_keys_replaced', purpose },
      'another relay on this database has other secrets: tokens of each are refused by the other',
    )
    audit?.note({ actor: 'server', action: 'signing_keys_replaced', outcome: 'done', target: `keys:${purpose}` })
  }
  const refresh = (): Promise<void> => (reading ??= read().finally(() => (reading = null)))
  const importOnce = (name: string, jwk: JWK): Promise<CryptoKey> => {
    const known = imported.get(name) ?? importKey(jwk)
    imported.set(name, known)
    return known
  }

  await refresh()
  const timer = setInterval(() => {
    // what is held stays in force; the next minute tries again
    refresh().catch((error: unknown) => logger.warn({ err: error }, 'the signing keys were not read'))
  }, REFRESH_MS)
  timer.unref()

  return {
    signing: async () => {
      const active = held.find(({ row }) => row.active_at !== null && row.retired_at === null)
      if (active === undefined) throw new TypeError('no signing key is active')
      const { kid, generation, row } = active
      return { kid, key: await importOnce(`${kid} private`, { ...publicJwk(row.public_key), d: toBase64url(seedOf(generation)) }) }
    },
    verifying: async (kid) => {
      const known = held.some((key) => key.kid === kid)
      // a reading that is under way may bring it
      if (!known && (reading !== null || performance.now() - refreshed > ASK_AGAIN_MS)) await refresh()
      const found = held.find((key) => key.kid === kid)
      return found === undefined ? null : importOnce(kid, publicJwk(found.row.public_key))
    },
    jwks: async () => ({ keys: held.map(({ row }) => publishedJwk(row.public_key)) }),
    list: () =>
      held.map(({ kid, row: { created_at, active_at, retired_at } }) => {
        const state = retired_at !== null ? 'retired' : active_at !== null ? 'active' : 'next'
        return { kid, state, created_at, active_at, retired_at }
      }),
    async rotate() {
      // a reading that is under way knows nothing of it
      await reading
      await (reading = read({ ...schedule, active_ms: 0, published_ms: 0 }).finally(() => (reading = null)))
    },
    refresh,
    close: async () => {
      clearInterval(timer)
      await reading?.catch(() => {})
    },
  }
}

/** Says which key it is and nothing else of it. */
export function kidOf(public_key: Bytes): string {
  return toBase64url(nodeCrypto.sha256(public_key)).slice(0, KID_CHARS)
}

export function publicJwk(public_key: Bytes): JWK {
  return { kty: 'OKP', crv: 'Ed25519', x: toBase64url(public_key) }
}

/** As the JWKS names it. */
export function publishedJwk(public_key: Bytes): JWK {
  return { ...publicJwk(public_key), kid: kidOf(public_key), use: 'sig', alg: ALG }
}

export async function importKey(jwk: JWK): Promise<CryptoKey> {
  const key = await importJWK(jwk, ALG)
  if (key instanceof Uint8Array) throw new TypeError('an Ed25519 key is not symmetric')
  return key
}
