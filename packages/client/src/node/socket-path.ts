/**
 * A name for the home's Unix socket that fits `sockaddr_un` (108 bytes on Linux, 104 on macOS) however deep the folder is:
 * the path itself when it is short, on Linux the same socket through an open folder (`/proc/self/fd/N/…`), elsewhere a
 * 0700 folder below the temporary one, named by the hash of the path.
 */
import { closeSync, lstatSync, mkdirSync, openSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { quotePath, SealpostError, toHex, utf8 } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'

const PATH_BYTES_MAX = 100

export type SocketPath = { path: string; release(): void }

/** `release` once no socket of this path is open any more. */
export function openSocketPath(folder: string, name: string): SocketPath {
  const path = join(folder, name)
  if (process.platform === 'win32') return { path: `\\\\.\\pipe\\sealpost-${hashOf(path)}`, release() {} }
  if (Buffer.byteLength(path) <= PATH_BYTES_MAX) return { path, release() {} }
  if (process.platform === 'linux') {
    let descriptor: number | null = openSync(folder, 'r')
    return {
      path: `/proc/self/fd/${descriptor}/${name}`,
      release() {
        if (descriptor !== null) closeSync(descriptor)
        descriptor = null
      },
    }
  }
  const temporary = join(tmpdir(), `sealpost-${process.getuid?.() ?? 0}`)
  mkdirSync(temporary, { recursive: true, mode: 0o700 })
  const stats = lstatSync(temporary)
  if (!stats.isDirectory() || (stats.mode & 0o077) !== 0 || stats.uid !== process.getuid?.())
    throw new SealpostError('insecure_permissions', `${temporary} is not a folder of this user alone`, {
      hint: `move it away, or: chmod 700 ${quotePath(temporary)}`,
    })
  return { path: join(temporary, hashOf(path)), release() {} }
}

function hashOf(path: string): string {
  return toHex(nodeCrypto.sha256(utf8(path)).subarray(0, 12))
}
