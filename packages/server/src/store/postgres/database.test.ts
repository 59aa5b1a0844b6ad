import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Pool } from 'pg'
import { describe, expect, it } from 'vitest'
import type { Log } from '../../telemetry/log.ts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { openEmbeddedDatabase, openExternalDatabase } from './database.ts'

const database = useDatabase()

describe('the database of a relay', () => {
  it('an embedded PostgreSQL that is killed is started again, and the same pool goes on', { timeout: 60_000 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 's-'))
    const data_dir = join(folder, 'deep'.repeat(30))
    const embedded = await openEmbeddedDatabase({ data_dir, logger: silent, test: true })
    const pidNow = async (): Promise<number> =>
      Number((await readFile(join(data_dir, 'postgres', 'postmaster.pid'), 'utf8')).split('\n')[0])
    const pool = new Pool(embedded.connection)
    pool.on('error', () => {})
    try {
      await pool.query('create table kept as select 7 as n')
      for (let round = 0; round < 2; round++) {
        process.kill(await pidNow(), 'SIGKILL')
        await sleep(50)
        await expect.poll(() => pool.query('select n from kept').then(({ rows }) => rows[0].n, String), { timeout: 10_000 }).toBe(7)
      }
      process.kill(await pidNow(), 'SIGKILL')
      await sleep(30)
    } finally {
      await pool.end()
      // Also while it is being started again.
      await embedded.stop()
      await rm(folder, { recursive: true })
    }
  })

  it('an external one that answers is taken at once', async () => {
    const external = await openExternalDatabase(database.url, silent, 0)
    expect(external.connection).toMatchObject({ connectionString: database.url })
  })

  it('an external one that is down is waited for, then a clear error without the password', async () => {
    const warned: string[] = []
    const logger: Log = { ...silent, warn: (_: unknown, sentence?: string) => void warned.push(String(sentence)) }
    const error = await openExternalDatabase('postgresql://u:hunter2@127.0.0.1:1/db', logger, 300).catch((error: unknown) => error)
    expect(error).toMatchObject({ code: 'unreachable', message: expect.stringContaining('connection refused') })
    expect((error as Error).message).not.toContain('hunter2')
    expect(warned).toEqual(['the database cannot be used yet; trying for 0.3 s'])
  })
})
