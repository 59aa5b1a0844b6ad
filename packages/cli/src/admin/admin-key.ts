/**
 * The key of an admin on this machine: one file, 0600, with the Ed25519 seed and the relay that it is for. It never travels; an owner adds the
 * public part. The relay is pinned by its key at the first contact, or from the beginning where that is known.
 */
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { adminIdOf, type Bytes, check, diskError, fromBase64url, quotePath, SealpostError, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { userFolder } from '../command.ts'

export type AdminKey = {
  path: string
  sign_seed: Bytes
  public_key: Bytes
  admin_id: string
  /** SHA-256 of the key of the relay; null before the first contact. */
  server_key_hash: Bytes | null
}

const SEED_BYTES = 32
const FILE_BYTES_MAX = 4_096
const shape = { v: { oneOf: [1] }, sign_seed: 'key', server_key_hash: 'key|null' } as const

/** By option, then by `SEALPOST_ADMIN_KEY`, else `~/.sealpost-admin.json`. */
export function adminKeyPath(option: string | undefined, env: NodeJS.ProcessEnv): string {
  const named = option ?? env.SEALPOST_ADMIN_KEY
  return named === undefined || named === '' ? join(userFolder('--key or SEALPOST_ADMIN_KEY'), '.sealpost-admin.json') : resolve(named)
}

/** A new key, on disk; `discard` takes it away again. Throws `invalid_request` when the file exists, `disk`. */
export async function createAdminKey(path: string): Promise<AdminKey & { discard(): Promise<void> }> {
  const sign_seed = nodeCrypto.random(SEED_BYTES)
  const key = { ...(await keyOf(sign_seed)), path, server_key_hash: null }
  let file: FileHandle
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    file = await open(path, 'wx', 0o600)
  } catch (cause) {
    if (isCode(cause, 'EEXIST'))
      throw new SealpostError('invalid_request', `${path} exists already and is not overwritten`, {
        cause,
        hint: 'name another file with --key',
      })
    throw diskError(`the key file ${path} cannot be made`, cause)
  }
  await writeAll(file, path, key)
  return { ...key, discard: () => rm(path, { force: true }) }
}

/** Throws `not_admin` (there is none), `insecure_permissions`, `state_damaged`, `disk`. */
export async function readAdminKey(path: string): Promise<AdminKey> {
  let text: string
  try {
    await using file = await open(path, 'r')
    const { mode, size } = await file.stat()
    if (process.platform !== 'win32' && (mode & 0o077) !== 0)
      throw new SealpostError('insecure_permissions', `others can read the key in ${path}`, {
        hint: `make it yours alone: chmod 600 ${quotePath(path)}; whoever read it is an admin until an owner removes it`,
      })
    if (size > FILE_BYTES_MAX) throw damaged(path)
    text = await file.readFile('utf8')
  } catch (cause) {
    if (cause instanceof SealpostError) throw cause
    if (isCode(cause, 'ENOENT')) throw new SealpostError('not_admin', `there is no admin key in ${path}`, { cause })
    throw diskError(`the key file ${path} cannot be read`, cause)
  }
  try {
    const stored = check(shape, JSON.parse(text), 'admin key')
    const server_key_hash = stored.server_key_hash === null ? null : fromBase64url(stored.server_key_hash, 32)
    return { ...(await keyOf(fromBase64url(stored.sign_seed, SEED_BYTES))), path, server_key_hash }
  } catch {
    // no cause: it could carry what the file holds
    throw damaged(path)
  }
}

/** The relay that it is for, from now on. */
export async function pinServer(key: AdminKey, server_key_hash: Bytes): Promise<AdminKey> {
  const pinned = { ...key, server_key_hash }
  const fresh = `${key.path}.new`
  await rm(fresh, { force: true })
  await writeAll(await open(fresh, 'wx', 0o600), fresh, pinned)
  await rename(fresh, key.path)
  return pinned
}

async function keyOf(sign_seed: Bytes): Promise<Pick<AdminKey, 'sign_seed' | 'public_key' | 'admin_id'>> {
  const public_key = nodeCrypto.ed25519Public(sign_seed)
  return { sign_seed, public_key, admin_id: await adminIdOf(nodeCrypto, public_key) }
}

async function writeAll(file: FileHandle, path: string, { sign_seed, server_key_hash }: AdminKey): Promise<void> {
  const stored = {
    v: 1,
    sign_seed: toBase64url(sign_seed),
    server_key_hash: server_key_hash === null ? null : toBase64url(server_key_hash),
  }
  try {
    await file.writeFile(`${JSON.stringify(stored)}\n`)
    await file.sync()
  } catch (cause) {
    await rm(path, { force: true })
    throw diskError(`the key file ${path} cannot be written`, cause)
  } finally {
    await file.close()
  }
}

function damaged(path: string): SealpostError {
  return new SealpostError('state_damaged', `the key file ${path} is damaged`, {
    hint: 'put it back from a backup, or make another with sealpost admin key --key FILE and have an owner add it',
  })
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}
