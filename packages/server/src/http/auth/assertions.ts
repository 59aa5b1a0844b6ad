/**
 * Device assertions as REST accepts them (protocol.md §10, G07): signed by the key that the caller names, for this purpose and
 * this server, made within the configured tolerance of the database's clock, and used once. Refusals do not say whether the signer exists.
 */
import {
  type Assertion,
  type Bytes,
  readAssertion,
  SealpostError,
  type SignedObject,
  toBase64url,
  verifyAssertion,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { AssertionStore } from '../../ports/store.ts'

export type AssertionDeps = {
  store: AssertionStore & { now(): number }
  server_key: Bytes
  /** How far the clock of a device may be off. */
  skew_ms: number
}

const JTI_CHARS_MAX = 128
const INVALID = 'the assertion is not valid'

/** `key` finds the public key of who claims to have signed; null = nobody. Throws `invalid_request`, `unauthorized` or `expired`. */
export async function acceptAssertion(
  deps: AssertionDeps,
  signed: SignedObject,
  purpose: string,
  key: (assertion: Assertion) => Promise<Bytes | null>,
): Promise<Assertion> {
  const claimed = readClaims(readAssertion, signed)
  const sign_pub = await key(claimed)
  // an unknown signer costs the same verification as a known one
  const checked = await verifyAssertion(nodeCrypto, sign_pub ?? deps.server_key, signed, {
    purpose,
    aud: toBase64url(deps.server_key),
    now_ms: deps.store.now(),
    skew_ms: deps.skew_ms,
  })
  if (sign_pub === null || !checked.ok) {
    if (sign_pub !== null && !checked.ok && checked.code === 'expired')
      throw new SealpostError('expired', `the clock of this device is off by more than ${deps.skew_ms / 1000} s; set it`)
    throw unauthorized()
  }
  if (!(await deps.store.rememberAssertion(claimed.jti, claimed.user_id))) throw unauthorized()
  return checked.assertion
}

/** Reads without verifying. Throws `invalid_request`. */
export function readClaims<C extends { jti: string }>(read: (signed: SignedObject) => C, signed: SignedObject): C {
  let claimed: C
  try {
    claimed = read(signed)
  } catch (cause) {
    throw new SealpostError('invalid_request', INVALID, { cause })
  }
  if (claimed.jti.length > JTI_CHARS_MAX) throw new SealpostError('invalid_request', INVALID)
  return claimed
}

function unauthorized(): SealpostError {
  return new SealpostError('unauthorized', 'the assertion is not accepted')
}
