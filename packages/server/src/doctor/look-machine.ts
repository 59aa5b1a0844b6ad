/** Looks at this machine and at the files of the relay, and changes nothing. */
import { readFileSync } from 'node:fs'
import { readFile, stat, statfs } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { SealpostError } from '@sealpost/protocol'
import { z } from 'zod'
import { openSecrets } from '../data/secrets.ts'
import type { Folder, Machine, SecretsFile } from './facts.ts'

const MANIFEST = z.object({ engines: z.object({ node: z.string().regex(/^>=[\d.]+$/) }) })

export async function lookAtMachine(): Promise<Machine> {
  const manifest = MANIFEST.parse(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')))
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '')
  const open_files = /^Max open files +(\d+|unlimited)/m.exec(limits)?.[1]
  const container = process.constrainedMemory()
  return {
    node: { version: process.versions.node, wanted: manifest.engines.node.slice(2) },
    open_files: open_files === undefined ? null : open_files === 'unlimited' ? Number.MAX_SAFE_INTEGER : Number(open_files),
    memory_bytes: container > 0 ? Math.min(container, totalmem()) : totalmem(),
    uid: process.getuid?.() ?? null,
  }
}

export async function lookAtFolder(path: string): Promise<Folder> {
  try {
    const folder = await stat(path)
    if (!folder.isDirectory()) return { path, is: 'unusable', reason: 'it is no folder' }
    const postgres = await stat(join(path, 'postgres')).catch(() => null)
    const { bavail, blocks, bsize, ffree, files } = await statfs(postgres === null ? path : join(path, 'postgres'))
    return {
      path,
      is: 'there',
      mode: folder.mode & 0o777,
      owner: folder.uid,
      postgres_owner: postgres?.uid ?? null,
      disk: { free_bytes: bavail * bsize, total_bytes: blocks * bsize, free_inodes: ffree, total_inodes: files },
    }
  } catch (error) {
    const { code = 'unknown' } = error as NodeJS.ErrnoException
    return code === 'ENOENT' ? { path, is: 'missing' } : { path, is: 'unusable', reason: code }
  }
}

export async function lookAtSecrets(path: string): Promise<SecretsFile> {
  try {
    // asked first, because what opens them makes them where there are none
    const { uid: owner } = await stat(path)
    const { server_key } = await openSecrets(path)
    return { path, is: 'read', owner, server_key }
  } catch (error) {
    const code = error instanceof SealpostError ? error.code : (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT') return { path, is: 'missing' }
    return { path, is: code === 'insecure_permissions' ? 'open' : code === 'state_damaged' ? 'damaged' : 'unreadable' }
  }
}
