/** What the measurements of the store share: an embedded PostgreSQL of its own, and what its processes and its log took. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Client } from 'pg'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../packages/server/src/store/postgres/embedded-postgres.ts'

export type Cost = { wall_ms: number; postgres_ms: number; wal_bytes: number }

/** Of Linux, in ms: all kernels that Node runs on count in hundredths of a second. */
const TICK_MS = 10

export async function withPostgres(work: (postgres: EmbeddedPostgres) => Promise<void>): Promise<void> {
  const data_dir = await mkdtemp(join(tmpdir(), 'sealpost-measure-'))
  // as a database of this size would have it; no checkpoint while something is measured
  const settings = { shared_buffers: '1GB', max_wal_size: '20GB', checkpoint_timeout: '1h' }
  const postgres = await startEmbeddedPostgres({ data_dir, settings })
  try {
    await work(postgres)
  } finally {
    await postgres.stop()
    await rm(data_dir, { recursive: true, force: true })
  }
}

/** CPU time of the backends of this database and the log they wrote, the least of `repeats`: others make it more and never less. */
export async function costOf(admin: Client, repeats: number, work: () => Promise<unknown>): Promise<Cost> {
  const costs: Cost[] = []
  for (let i = 0; i < repeats; i++) {
    const before = await look(admin)
    const began = performance.now()
    await work()
    const wall_ms = performance.now() - began
    const after = await look(admin)
    let postgres_ms = 0
    for (const [pid, ms] of after.cpu) postgres_ms += ms - (before.cpu.get(pid) ?? 0)
    costs.push({ wall_ms, postgres_ms, wal_bytes: after.wal - before.wal })
  }
  const least = (of: (cost: Cost) => number): number => Math.min(...costs.map(of))
  return { wall_ms: least((c) => c.wall_ms), postgres_ms: least((c) => c.postgres_ms), wal_bytes: least((c) => c.wal_bytes) }
}

async function look(admin: Client): Promise<{ cpu: Map<number, number>; wal: number }> {
  const { rows } = await admin.query<{ pid: number; wal: string }>(
    `select a.pid, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::text as wal from pg_stat_activity a
      where a.datname = current_database()`,
  )
  const cpu = new Map<number, number>()
  for (const { pid } of rows) {
    // the name of a process, in brackets, may hold blanks
    const fields = ((await readFile(`/proc/${pid}/stat`, 'latin1')).split(') ')[1] ?? '').split(' ')
    cpu.set(pid, (Number(fields[11]) + Number(fields[12])) * TICK_MS)
  }
  return { cpu, wal: Number(rows[0]?.wal ?? 0) }
}
