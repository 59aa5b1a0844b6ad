/** What people compare by eye: short prefixes of hashes in groups of four hexadecimal digits. The same on every end. */
import { type Bytes, toBase64url, toHex } from './bytes.ts'
import type { Crypto } from './crypto.ts'

/** 64 bits of SHA-256 of a server key (32 bytes): `0123 4567 89ab cdef`. */
export async function serverKeyFingerprint(crypto: Pick<Crypto, 'sha256'>, server_key: Bytes): Promise<string> {
  return inGroups((await crypto.sha256(server_key)).subarray(0, 8))
}

/** The first 80 bits of the head hash of a device log: equal on all devices that see the same device list. */
export function deviceListFingerprint(log_head: Bytes): string {
  return inGroups(log_head.subarray(0, 10))
}

/** The end of a server's key, for sentences that show two keys: `…x9Qk`. */
export function keyTail(key: Bytes): string {
  return `…${toBase64url(key).slice(-4)}`
}

function inGroups(bytes: Bytes): string {
  return toHex(bytes).replaceAll(/.{4}(?=.)/g, '$& ')
}
