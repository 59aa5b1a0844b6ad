/** Tokens for active devices (protocol.md §10): an assertion in, a JWT of 10 minutes out. The root and revoked devices get none. */
import type { LogStore, SessionStore } from '../ports.ts'
import { type AssertionDeps, acceptAssertion } from './assertions.ts'
import { signedObject } from './bodies.ts'
import { type Answer, type Answers, type Call, type Caller, parseInput } from './call.ts'
import { thumbprint, type Tokens } from './tokens.ts'

export type AuthDeps = AssertionDeps & {
  store: AssertionDeps['store'] & Pick<LogStore, 'findSigner'> & Pick<SessionStore, 'findDevice'>
  tokens: Tokens
}

const BEARER = /^Bearer ([A-Za-z0-9._-]+)$/i

export function createAuthRoutes(deps: AuthDeps): Answers<'create_token'> {
  return { create_token: (call) => createToken(deps, call) }
}

async function createToken(deps: AuthDeps, call: Call): Promise<Answer> {
  const { user_id, signer } = await acceptAssertion(deps, parseInput(signedObject, call.body), 'token', async (claimed) =>
    claimed.signer === 'root' ? null : ((await deps.store.findSigner(claimed.user_id, claimed.signer))?.sign_pub ?? null),
  )
  const device = await deps.store.findDevice(user_id, signer)
  if (device?.active === true) return { json: await deps.tokens.issue({ user_id, device_id: signer, sign_pub: device.sign_pub }) }
  const revoked = device?.account_active === true && device.revoked_log_seq !== null
  return { problem: { code: revoked ? 'device_revoked' : 'unauthorized' } }
}

/** The active device behind an `Authorization` header, or null: asked of the store each time, so a token dies with its device (R01). */
export async function authenticate(deps: AuthDeps, authorization: string | undefined): Promise<Caller | null> {
  const token = BEARER.exec(authorization ?? '')?.[1]
  const claims = token === undefined ? null : await deps.tokens.verify(token)
  if (claims === null) return null
  const device = await deps.store.findDevice(claims.user_id, claims.device_id)
  if (device?.active !== true || (await thumbprint(device.sign_pub)) !== claims.jkt) return null
  return { user_no: device.user_no, device_no: device.device_no, user_id: device.user_id, device_id: device.device_id }
}
