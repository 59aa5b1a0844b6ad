/** Invites: whoever has the code of one may create an account. The code is 128 random bits and kept nowhere; its hash is. */
import { createHash } from 'node:crypto'
import { type Bytes, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'

const CODE_BYTES = 16

export function createInviteCode(): string {
  return toBase64url(nodeCrypto.random(CODE_BYTES))
}

export function hashInviteCode(code: string): Bytes {
  return createHash('sha256').update(code).digest()
}
