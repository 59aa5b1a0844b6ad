import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { hasCluster } from './cluster-version.ts'
import { startEmbeddedPostgres } from './embedded-postgres.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

describe('the folder of the embedded database', () => {
  it('that is missing, or empty, gets a database', async () => {
    expect(await hasCluster(join(folder, 'none'), 18)).toBe(false)
    expect(await hasCluster(folder, 18)).toBe(false)
  })

  it.each([
    ['an older PostgreSQL', '17\n', 'disk', /is of PostgreSQL 17, and this version brings PostgreSQL 18/, /pg_upgrade to 18/],
    ['one before version 10', '9.6\n', 'disk', /is of PostgreSQL 9\.6/, /run a PostgreSQL 9\.6 on it and set DATABASE_URL/],
    ['a newer PostgreSQL', '19\n', 'data_newer', /is of PostgreSQL 19/, null],
    ['a start that was cut short', '', 'state_damaged', /PG_VERSION .* damaged or was never written/, /backup/],
    ['something else', 'hello', 'state_damaged', /PG_VERSION .* damaged/, /backup/],
    ['no database', null, 'state_damaged', /no PG_VERSION/, /move the folder away/],
  ] as const)('of %s says what it is, and stays as it is', async (_, version, code, message, hint) => {
    const cluster = join(folder, 'postgres')
    await mkdir(cluster)
    await writeFile(join(cluster, version === null ? 'other' : 'PG_VERSION'), version ?? '')
    const before = await readdir(cluster)
    const error = await startEmbeddedPostgres({ data_dir: folder, test: true }).catch((error: unknown) => error)
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) })
    expect((error as Error).message).toContain('nothing was changed')
    if (hint !== null) expect((error as { hint?: string }).hint).toMatch(hint)
    expect(await readdir(cluster)).toEqual(before)
    expect(await readdir(folder)).toEqual(['postgres'])
  })

  it('that is a file, or holds a folder in place of PG_VERSION, is a fault of the disk', async () => {
    await writeFile(join(folder, 'file'), '')
    await expect(hasCluster(join(folder, 'file'), 18)).rejects.toMatchObject({ code: 'disk', message: expect.stringContaining('a file') })
    await mkdir(join(folder, 'PG_VERSION'))
    await expect(hasCluster(folder, 18)).rejects.toMatchObject({ code: 'disk', message: expect.stringContaining('it is a folder') })
  })
})
