/**
 * The admin listener from the command line: a token by an assertion of the key at the first call, then one call after another, with a new
 * token when its five minutes are over. The relay's key is compared with the pinned one before anything is signed for it.
 * Bounds: 20 s and 32 MiB per answer.
 */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { createServerClock, networkError, nodeClock, type ServerClock } from '@sealpost/client/node'
import {
  ADMIN_ROUTES,
  type AdminRouteName,
  adminRoutePath,
  type Bytes,
  createAdminAssertion,
  equalBytes,
  ERROR,
  type ErrorCode,
  fromBase64url,
  type parseServerUrl,
  retryAfterMs,
  SealpostError,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { type Advice, advised } from '../exit-codes.ts'
import { type AdminKey, pinServer } from './admin-key.ts'

export type AdminAsk = { params?: Record<string, string>; query?: Record<string, string | undefined>; body?: object }

export type AdminClient = {
  readonly server_key: Bytes
  /** ms, the relay's clock. */
  now(): number
  // oxlint-disable-next-line typescript/no-explicit-any -- what an answer holds is shown as it is
  call(name: AdminRouteName, ask?: AdminAsk): Promise<any>
  /** The items of a list, page by page; where it asks too often it waits as long as it is told. */
  // oxlint-disable-next-line typescript/no-explicit-any -- as above
  all(name: AdminRouteName, member: string, ask?: AdminAsk, how?: { paged?: boolean; max?: number | undefined }): AsyncIterable<any>
}

const TIMEOUT_MS = 20_000
const ANSWER_BYTES_MAX = 32 * 1_048_576
const PAGE_MAX = 1_000
const RETRY_MS = 5_000
/** Rates of admins are by the minute. */
const RETRY_MS_MAX = 60_000

export async function openAdminClient(
  { url: base, pin }: ReturnType<typeof parseServerUrl>,
  key: AdminKey,
  signal: AbortSignal,
): Promise<AdminClient> {
  const time = createServerClock(nodeClock)
  // oxlint-disable-next-line typescript/no-explicit-any -- as above
  const ask = (name: AdminRouteName, what: AdminAsk, token: string | null): Promise<any> => askOnce(base, name, what, token, time, signal)
  const server_key = readServerKey(base, await ask('read_server', {}, null))
  const hash = createHash('sha256').update(server_key).digest()
  if (pin !== null && !equalBytes(pin, server_key))
    throw new SealpostError('server_identity', `what answers at ${base} does not have the key in the address; nothing was signed`)
  if (key.server_key_hash === null) await pinServer(key, hash)
  else if (!equalBytes(key.server_key_hash, hash))
    throw new SealpostError('server_identity', `what answers at ${base} is not the relay that this key is for; nothing was signed`)
  let token: string | null = null

  const call: AdminClient['call'] = async (name, o = {}) => {
    const isFresh = token === null
    token ??= await createToken()
    try {
      return await ask(name, o, token)
    } catch (error) {
      if (isFresh || !(error instanceof SealpostError && error.code === 'not_admin')) throw error
      // its time is over; whoever is an admin no more gets no other
      token = await createToken()
      return ask(name, o, token)
    }
  }
  const patiently: AdminClient['call'] = async (name, o) => {
    for (;;) {
      try {
        return await call(name, o)
      } catch (error) {
        if (!(error instanceof SealpostError && error.code === 'rate_limited')) throw error
        await sleep(Math.min(error.retry_after_ms ?? RETRY_MS, RETRY_MS_MAX), undefined, { signal }).catch((cause: unknown) => {
          throw new SealpostError('aborted', 'ended', { cause })
        })
      }
    }
  }
  async function createToken(): Promise<string> {
    const signed = await createAdminAssertion(nodeCrypto, key.sign_seed, server_key, time.now())
    return String((await ask('create_admin_token', { body: signed }, null)).access_token)
  }

  return {
    server_key,
    now: () => time.now(),
    call,
    async *all(name, member, o = {}, { paged = true, max = Infinity } = {}) {
      let left = max
      for (let cursor: string | null | undefined; cursor !== null && left > 0; ) {
        const limit = String(Math.min(PAGE_MAX, left))
        const page = await patiently(name, { ...o, query: { ...o.query, ...(paged ? { limit, cursor } : {}) } })
        const items = (page[member] as unknown[]).slice(0, left)
        left -= items.length
        yield* items
        cursor = (page.next_cursor ?? null) as string | null
      }
    },
  }
}

async function askOnce(
  base: string,
  name: AdminRouteName,
  { params, query, body }: AdminAsk,
  token: string | null,
  time: ServerClock,
  signal: AbortSignal,
  // oxlint-disable-next-line typescript/no-explicit-any -- as above
): Promise<any> {
  const search = new URLSearchParams(Object.entries(query ?? {}).filter((entry): entry is [string, string] => entry[1] !== undefined))
  const row = ADMIN_ROUTES[name]
  const json = body ?? (row.body === 'json' ? {} : undefined)
  let response: Response
  let text: string
  try {
    response = await fetch(`${base}${adminRoutePath(name, params)}${search.size === 0 ? '' : `?${search.toString()}`}`, {
      method: row.method,
      headers: {
        accept: 'application/json',
        ...(json === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(json === undefined ? {} : { body: JSON.stringify(json) }),
      redirect: 'error',
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    })
    time.hearDate(response.headers.get('date') ?? undefined)
    text = await readText(response)
  } catch (cause) {
    if (signal.aborted) throw new SealpostError('aborted', 'ended', { cause })
    const why = networkError(cause)
    throw new SealpostError('unreachable', `no listener for admins answers at ${base}${why === undefined ? '' : `: ${why.message}`}`, {
      cause: why ?? cause,
    })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw noListener(base, cause)
  }
  if (response.ok) return value
  throw problemOf(value, response)
}

function noListener(base: string, cause: unknown): SealpostError {
  return new SealpostError('unreachable', `what answers at ${base} is no admin listener`, { cause })
}

function readServerKey(base: string, value: unknown): Bytes {
  try {
    return fromBase64url((value as { server_key: string }).server_key, 32)
  } catch (cause) {
    throw noListener(base, cause)
  }
}

/** What a refusal means to whoever typed the command. */
const MEANS: Partial<Record<ErrorCode, Advice>> = {
  invalid_request: { exit: 'usage', hint: 'sealpost admin <command> --help shows what is possible' },
  forbidden: { hint: 'ask an owner for it; sealpost admin self shows your role' },
  expired: { hint: 'set the clock of this machine, then try again' },
}

function problemOf(value: unknown, { status, headers }: Response): SealpostError {
  const { code, detail } = (typeof value === 'object' && value !== null ? value : {}) as { code?: unknown; detail?: unknown }
  const known: ErrorCode =
    typeof code === 'string' && Object.hasOwn(ERROR, code) ? (code as ErrorCode) : status >= 500 ? 'unavailable' : 'invalid_request'
  if (known === 'unauthorized') return new SealpostError('not_admin', 'the relay does not know this key as an admin, or removed it')
  const later = { retry_after_ms: retryAfterMs(headers.get('retry-after')) }
  return advised(new SealpostError(known, typeof detail === 'string' ? detail : ERROR[known], later), MEANS[known] ?? {})
}

async function readText(response: Response): Promise<string> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of response.body ?? []) {
    length += part.length
    if (length > ANSWER_BYTES_MAX) throw new Error('the answer is too long')
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
