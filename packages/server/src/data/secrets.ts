/**
 * The secrets of a relay: made at the first start, in one file that only its user can read. Three independent keys, one
 * for each purpose. Losing the file means that no device of the relay can connect again; the relay never makes a new one
 * in place of one that is damaged.
 */
import { hkdfSync } from 'node:crypto'
import { open } from 'node:fs/promises'
import { type Bytes, diskError, fromBase64url, quotePath, SealpostError, systemCode, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { z } from 'zod'
import { writeDurably } from './durable-file.ts'

export type Secrets = {
  /** Ed25519 seed of the server key, which devices pin (protocol.md §4). */
  server_sign_seed: Bytes
  /** Its public key, 32 bytes. */
  server_key: Bytes
  /** HMAC-SHA256 key of continuation tokens (protocol.md §7). */
  token_key: Bytes
  /** Ed25519 seed that signs access tokens (protocol.md §10). */
  jwt_sign_seed: Bytes
  /** AES-256-GCM key that hints between nodes are authenticated with (protocol.md §7), derived from `token_key`. */
  bus_key: Bytes
}

const KEY_BYTES = 32
const key = z.string().transform((text) => fromBase64url(text, KEY_BYTES))
const SHAPE = z.strictObject({ v: z.literal(1), server_sign_seed: key, token_key: key, jwt_sign_seed: key })

/** Throws `insecure_permissions`, `state_damaged` or `disk`. */
export async function openSecrets(path: string): Promise<Secrets> {
  const stored = (await readSecrets(path)) ?? (await createSecrets(path))
  const bus_key = new Uint8Array(hkdfSync('sha256', stored.token_key, '', 'sealpost/1 bus gmac', KEY_BYTES))
  return { ...stored, server_key: nodeCrypto.ed25519Public(stored.server_sign_seed), bus_key }
}

async function createSecrets(path: string): Promise<Omit<Secrets, 'server_key' | 'bus_key'>> {
  const random = (): string => toBase64url(nodeCrypto.random(KEY_BYTES))
  const fresh = { v: 1, server_sign_seed: random(), token_key: random(), jwt_sign_seed: random() }
  await writeDurably(path, `${JSON.stringify(fresh, null, 2)}\n`, 0o600, { keep: true })
  const stored = await readSecrets(path)
  if (stored === null)
    throw new SealpostError('disk', `${path} vanished while it was made`, { hint: 'look what else writes to that folder, then try again' })
  return stored
}

async function readSecrets(path: string): Promise<Omit<Secrets, 'server_key' | 'bus_key'> | null> {
  let text: string
  try {
    const file = await open(path, 'r')
    try {
      const stats = await file.stat()
      // the modes of a folder are another question; reading it says what it is
      if (process.platform !== 'win32' && (stats.mode & 0o077) !== 0 && !stats.isDirectory()) {
        throw new SealpostError('insecure_permissions', `others can read the secrets in ${path}`, {
          hint: `make the file private: chmod 600 ${quotePath(path)}; where an orchestrator mounts it, mount it with mode 0400`,
        })
      }
      text = await file.readFile('utf8')
    } finally {
      await file.close()
    }
  } catch (cause) {
    if (cause instanceof SealpostError) throw cause
    if (systemCode(cause) === 'ENOENT') return null
    throw diskError(`the secrets in ${path} cannot be read`, cause)
  }
  try {
    const { v: _, ...secrets } = SHAPE.parse(JSON.parse(text))
    return secrets
  } catch {
    // No cause: it could carry what the file holds.
    throw new SealpostError('state_damaged', `the secrets in ${path} are damaged; nothing was changed`, {
      hint: 'put the file back from a backup: devices refuse a server with another key',
    })
  }
}
