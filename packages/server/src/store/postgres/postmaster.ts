/**
 * `postmaster.pid` of a cluster, and which PostgreSQL still runs on that cluster. A process id alone tells nothing: after a
 * hard kill, in a container above all, the id in the file may belong to anybody, also to this process or to its children.
 *
 * A process counts as PostgreSQL on the cluster if it is called `postgres` and works in that folder, as the postmaster and
 * all its children do. The caller holds the lock of the data folder, so that no other relay starts one meanwhile.
 */
import { execFile } from 'node:child_process'
import { readdir, readFile, readlink, stat } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Of the port that is in the names of the socket and its lock; nothing listens on TCP. */
export const SOCKET_FILE = '.s.PGSQL.5432'
const CONNECT_MS = 1_000

/** The lines 1, 2, 5 and 8 of the file, and when it was written (ns). `pid` is not a number when the file is cut short. */
export type Postmaster = { pid: number; path: string; sockets: string; ready: boolean; written_ns: bigint }

export async function readPostmaster(cluster: string): Promise<Postmaster | null> {
  const path = pidFileOf(cluster)
  const [text, stats] = await Promise.all([readFile(path, 'utf8'), stat(path, { bigint: true })]).catch(() => [null, null])
  if (text === null || stats === null) return null
  const lines = text.split('\n')
  return {
    pid: /^\d+$/.test(lines[0] ?? '') ? Number(lines[0]) : Number.NaN,
    path: lines[1] ?? '',
    sockets: lines[4] ?? '',
    ready: lines[7]?.trim() === 'ready',
    written_ns: stats.mtimeNs,
  }
}

export function pidFileOf(cluster: string): string {
  return join(cluster, 'postmaster.pid')
}

/** What an earlier life left on a cluster. */
export type Remains =
  /** Nothing of it runs. `pid`: the one in the file, if there is a file, and whoever has it now. */
  | { is: 'stale'; pid: number | null }
  /** PostgreSQL runs on it. `postmaster`: the one that the file names, if it is among them. */
  | { is: 'running'; pids: number[]; postmaster: number | null }
  /** It answers on its socket, and no process of this machine or container is it. */
  | { is: 'elsewhere' }
  /** This system does not tell what its processes do. */
  | { is: 'unknown'; pid: number | null }

export async function judgeRemains(cluster: string): Promise<Remains> {
  const file = await readPostmaster(cluster)
  const pids = await findPostgresOn(cluster)
  const pid = file?.pid ?? null
  if (pids === null) return { is: 'unknown', pid }
  if (pids.length > 0) return { is: 'running', pids, postmaster: pids.find((one) => one === pid) ?? null }
  if (file !== null && (await answers(file.sockets))) return { is: 'elsewhere' }
  return { is: 'stale', pid }
}

/** Null: the system does not tell. */
export async function findPostgresOn(cluster: string): Promise<number[] | null> {
  return process.platform === 'linux' ? findInProc(cluster) : findWithPs(cluster)
}

/** Folders are compared by device and inode: a path may have links in it, or have another name in another container. */
async function findInProc(cluster: string): Promise<number[] | null> {
  // not there, or of other processes than those that the ids here mean
  if ((await readlink('/proc/self').catch(() => '')) !== String(process.pid)) return null
  const folder = await stat(cluster)
  const found: number[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')
    if (command.trim() !== 'postgres') continue
    try {
      // a zombie has none
      const { dev, ino } = await stat(`/proc/${pid}/cwd`)
      if (dev === folder.dev && ino === folder.ino) found.push(Number(pid))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EACCES' && (await isOwn(pid))) return null
    }
  }
  return found
}

/** PostgreSQL takes no folder of another user. */
async function isOwn(pid: string): Promise<boolean> {
  return (await stat(`/proc/${pid}`).catch(() => null))?.uid === process.getuid?.()
}

/** The postmaster has the path of the cluster in its command, as it was given; its children have not, and end with it. */
async function findWithPs(cluster: string): Promise<number[] | null> {
  const listed = await run('ps', ['-axww', '-o', 'pid=,command='], { maxBuffer: 1 << 26 }).catch(() => null)
  if (listed === null) return null
  const options = [cluster, (await readPostmaster(cluster))?.path ?? cluster].map((path) => ` -D ${path} `)
  const lines = listed.stdout.split('\n').filter((line) => line.includes('postgres') && options.some((option) => line.includes(option)))
  return lines.map((line) => Number.parseInt(line, 10))
}

/** Whether somebody listens, also from another container. */
function answers(sockets: string): Promise<boolean> {
  if (sockets === '') return Promise.resolve(false)
  return new Promise((resolve) => {
    const socket = createConnection(join(sockets, SOCKET_FILE))
    const end = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    // who takes no connection in time has a full queue, and lives
    socket.setTimeout(CONNECT_MS, () => end(true))
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
  })
}
