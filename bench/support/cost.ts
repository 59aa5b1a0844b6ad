/** What processes cost, as Linux counts it: CPU time with that of their children, and memory. */
import { readdirSync, readFileSync } from 'node:fs'

/** USER_HZ, which is 100 wherever Node runs on Linux. */
const TICKS_PER_SECOND = 100
const KIB = 1024

/** CPU seconds of the process, of its children, and of those children that have ended; 0 of one that is gone. */
export function cpuSeconds(pid: number): number {
  const text = readOrEmpty(`/proc/${pid}/stat`)
  // the name, in parentheses, may hold anything
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  // utime, stime, cutime, cstime
  const own = fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND
  return childrenOf(pid).reduce((sum, child) => sum + cpuSeconds(child), own)
}

/** What the process holds in memory now, and the most it has held. */
export function residentBytes(pid: number): { now: number; peak: number } {
  const status = readOrEmpty(`/proc/${pid}/status`)
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * KIB
  return { now: field('VmRSS'), peak: field('VmHWM') }
}

function childrenOf(pid: number): number[] {
  return foldersOf(`/proc/${pid}/task`).flatMap((thread) =>
    readOrEmpty(`/proc/${pid}/task/${thread}/children`).split(' ').filter(Boolean).map(Number),
  )
}

function foldersOf(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
