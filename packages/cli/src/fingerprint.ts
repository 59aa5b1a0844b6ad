/** 64 bits of SHA-256 of a server key, in the form in which the relay prints it. */
import { type Bytes, fromBase64url, toHex } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'

/** `server_key`: 32 bytes, or their base64url form. */
export function fingerprintOf(server_key: Bytes | string): string {
  const bytes = typeof server_key === 'string' ? fromBase64url(server_key, 32) : server_key
  const digits = toHex(nodeCrypto.sha256(bytes).subarray(0, 8))
  return digits.match(/.{4}/g)?.join(' ') ?? digits
}
