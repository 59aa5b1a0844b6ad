/**
 * Tokens (protocol.md §10, G23): an assertion in, an access token and a refresh token out. The root and revoked devices get
 * none. No token is worth anything without the store's word that its device is active, on every request (R01).
 */
import { ERROR } from '@sealpost/protocol'
import { randomUUID } from 'node:crypto'
import type { SecurityAction } from '../../audit/actions.ts'
import { deviceName } from '../../audit/entry.ts'
import type { Audit } from '../../audit/recorder.ts'
import type { Log } from '../../telemetry/log.ts'
import type { Bus, SessionStore, TokenStore } from '../../ports/store.ts'
import type { Answer, Caller, RouteAnswers, RouteCall } from '../call.ts'
import { standingProblem } from './standing.ts'
import { type ProofDeps, proveDevice } from './prove-device.ts'
import { hashToken, type RefreshTokens } from './refresh-tokens.ts'
import type { KeySet } from './signing-keys.ts'
import { bearerOf, thumbprint } from './jwt.ts'
import type { Tokens } from './tokens.ts'
import type { AUTH_CONTRACTS } from './contracts.ts'

type Call<N extends keyof typeof AUTH_CONTRACTS> = RouteCall<typeof AUTH_CONTRACTS, N>

export type AuthDeps = ProofDeps & {
  store: ProofDeps['store'] & TokenStore
  tokens: Tokens
  refresh_tokens: RefreshTokens
  keys: Pick<KeySet, 'jwks'>
  bus: Pick<Bus, 'publish'>
  audit: Pick<Audit, 'write'>
  logger: Log
}

/** How long an answer that was lost may be asked for again. */
export const REFRESH_GRACE_MS = 30_000
export const REFRESH_LIFETIME_MS = 30 * 86_400_000

const JWKS_HEADERS = { 'cache-control': 'public, max-age=300' }

export function createAuthRoutes(deps: AuthDeps): RouteAnswers<typeof AUTH_CONTRACTS> {
  return {
    create_token: (call) => createToken(deps, call),
    refresh_token: (call) => refreshToken(deps, call),
    logout: async ({ caller }) => {
      await deps.store.endFamily(caller.user_no, caller.device_no)
      // streams that were opened with a token that is no more
      deps.bus.publish(caller.user_no, { is: 'device', device_id: caller.device_id })
      return { empty: true }
    },
    read_jwks: async () => ({ json: await deps.keys.jwks(), headers: JWKS_HEADERS }),
  }
}

/** The active device behind an `Authorization` header; `suspended` when an operator shut it out; null for all that is no token in force. */
export async function authenticate(
  deps: Pick<AuthDeps, 'tokens'> & { store: Pick<SessionStore, 'findDevice'> },
  authorization: string | undefined,
): Promise<Caller | 'suspended' | null> {
  const token = bearerOf(authorization)
  const claims = token === undefined ? null : await deps.tokens.verify(token)
  if (claims === null) return null
  const device = await deps.store.findDevice(claims.user_id, claims.device_id)
  if (device === null || device.token_version !== claims.token_version) return null
  if ((await thumbprint(device.sign_pub)) !== claims.jkt) return null
  const standing = standingProblem(device)
  if (standing !== null) return standing.problem.code === 'suspended' ? 'suspended' : null
  const { user_no, device_no, user_id, device_id, token_version } = device
  return { user_no, device_no, user_id, device_id, token_version, token_expires_at: claims.expires_at }
}

async function createToken(deps: AuthDeps, call: Call<'create_token'>): Promise<Answer> {
  const device = await proveDevice(deps, call.body, 'token')
  if ('problem' in device) return device
  const family_id = randomUUID()
  const refresh_token = deps.refresh_tokens.create(device, family_id, 0)
  const family = { family_id, token_hash: hashToken(refresh_token) }
  const started = await deps.store.startFamily(device.user_no, device.device_no, family, REFRESH_LIFETIME_MS)
  if (started === null) return UNAUTHORIZED
  return grant(deps, { ...device, ...started }, refresh_token)
}

async function refreshToken(deps: AuthDeps, call: Call<'refresh_token'>): Promise<Answer> {
  const { refresh_token, ...signed } = call.body
  const device = await proveDevice(deps, signed, 'refresh')
  if ('problem' in device) return device
  const presented = deps.refresh_tokens.read(refresh_token, device)
  if (presented === null) return INVALID_TOKEN
  const { family_id, generation } = presented
  const next = deps.refresh_tokens.create(device, family_id, generation + 1)
  const rotation = await deps.store.rotateFamily(
    device.user_no,
    device.device_no,
    { family_id, generation, token_hash: hashToken(refresh_token), next_hash: hashToken(next) },
    { grace_ms: REFRESH_GRACE_MS, lifetime_ms: REFRESH_LIFETIME_MS },
  )
  switch (rotation.is) {
    case 'rotated':
    case 'repeated':
      return grant(
        deps,
        { ...device, token_version: rotation.token_version },
        deps.refresh_tokens.create(device, family_id, rotation.generation),
      )
    case 'reused':
      deps.bus.publish(device.user_no, { is: 'device', device_id: device.device_id })
      await report(deps, call, device, 'refresh_token_reused')
      return INVALID_TOKEN
    case 'replaced':
      await report(deps, call, device, 'refresh_token_replaced')
      return INVALID_TOKEN
    case 'unknown':
      return INVALID_TOKEN
    default:
      return rotation satisfies never
  }
}

const REPORTS = {
  refresh_token_reused: 'a refresh token was used twice: the tokens and the session of the device are ended',
  refresh_token_replaced: 'a refresh token came of a family that another took the place of: it is refused, and nothing is ended',
} as const satisfies Partial<Record<SecurityAction, string>>

/** Into the log and, on disk before the answer leaves, into the audit log. */
async function report(
  { logger, audit }: AuthDeps,
  { request_id, address }: Call<'refresh_token'>,
  { user_id, device_id }: { user_id: string; device_id: string },
  action: keyof typeof REPORTS,
): Promise<void> {
  logger.warn({ audit: action, user_id, device_id, request_id, address }, REPORTS[action])
  await audit.write({ actor: deviceName(device_id), action, outcome: 'done', user_id, origin: { request_id, address } })
}

const UNAUTHORIZED = { problem: { code: 'unauthorized' } } as const
/** One answer for every token that is not in force. */
const INVALID_TOKEN = { problem: { code: 'invalid_token', detail: ERROR.invalid_token } } as const

async function grant(deps: AuthDeps, device: Parameters<Tokens['issue']>[0], refresh_token: string): Promise<Answer> {
  const { access_token, expires_in } = await deps.tokens.issue(device)
  const refresh_expires_in = REFRESH_LIFETIME_MS / 1_000
  return { json: { access_token, token_type: 'Bearer', expires_in, refresh_token, refresh_expires_in } }
}
