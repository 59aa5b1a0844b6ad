import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findRunningPostgres, startEmbeddedPostgres, type EmbeddedPostgres } from '../store/postgres/embedded-postgres.ts'
import { POOLED_CONNECTIONS } from '../store/postgres/pool.ts'
import { createStore } from '../store/store.ts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { linkOf } from './look-database.ts'
import { lookAtFolder, lookAtMachine, lookAtSecrets } from './look-machine.ts'

const database = useDatabase()
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

test('the connections that are counted are those of both pools', async () => {
  const { pools, close } = await createStore({ connection: database.connection, log: silent })
  await close()
  expect(pools.main.options.max + pools.ingest.options.max).toBe(POOLED_CONNECTIONS)
})

describe('the link to the database', () => {
  const sslOf = (query: string): unknown => new Client({ connectionString: `postgresql://u:p@db.example/d${query}` }).ssl

  test.each([
    ['10.0.0.1', '', { over: 'network', tls: 'none' }],
    ['10.0.0.1', '?sslmode=disable', { over: 'network', tls: 'none' }],
    ['10.0.0.1', '?sslmode=no-verify', { over: 'network', tls: 'unverified' }],
    ['10.0.0.1', '?uselibpqcompat=true&sslmode=require', { over: 'network', tls: 'unverified' }],
    ['10.0.0.1', '?sslmode=verify-full', { over: 'network', tls: 'verified' }],
    ['10.0.0.1', '?ssl=true', { over: 'network', tls: 'verified' }],
    ['::ffff:127.0.0.1', '', { over: 'loopback', tls: 'none' }],
    ['::1', '', { over: 'loopback', tls: 'none' }],
    [undefined, '', { over: 'socket', tls: 'none' }],
  ])('from %s with %j is %j', (remoteAddress, query, link) => {
    expect(linkOf(remoteAddress, sslOf(query))).toEqual(link)
  })
})

test('this machine is looked at', async () => {
  const { node, open_files, memory_bytes, uid } = await lookAtMachine()
  expect(node).toEqual({ version: process.versions.node, wanted: expect.stringMatching(/^\d+\.\d+/) })
  if (process.platform === 'linux') expect(open_files).toBeGreaterThan(0)
  expect(memory_bytes).toBeGreaterThan(2 ** 28)
  expect(uid).toBe(process.getuid?.() ?? null)
})

describe('files that are not there', () => {
  test('are missing, and are not made', async () => {
    expect(await lookAtFolder(join(folder, 'none'))).toMatchObject({ is: 'missing' })
    expect(await lookAtSecrets(join(folder, 'none', 'secrets.json'))).toMatchObject({ is: 'missing' })
    expect(await lookAtSecrets(join(folder, 'secrets.json'))).toMatchObject({ is: 'missing' })
    expect(await readdir(folder)).toEqual([])
  })

  test('a file in place of the folder cannot be used', async () => {
    const path = join(folder, 'file')
    await writeFile(path, '')
    expect(await lookAtFolder(path)).toEqual({ path, is: 'unusable', reason: 'it is no folder' })
    expect(await lookAtFolder(join(path, 'below'))).toMatchObject({ is: 'unusable', reason: 'ENOTDIR' })
    await rm(path)
  })
})

describe('the running PostgreSQL of a folder', () => {
  let postgres: EmbeddedPostgres
  beforeAll(async () => {
    postgres = await startEmbeddedPostgres({ data_dir: join(folder, 'data'), test: true })
  })
  afterAll(() => postgres.stop())

  test('is found by its folder, by another path to it, and in no other folder', async () => {
    expect(await findRunningPostgres(join(folder, 'data'))).toEqual(postgres.connection)
    await symlink(join(folder, 'data'), join(folder, 'link'))
    expect(await findRunningPostgres(join(folder, 'link'))).toEqual(postgres.connection)
    expect(await findRunningPostgres(folder)).toBeNull()
  })

  test('is not another process that has its number', async () => {
    const cluster = join(folder, 'crashed', 'postgres')
    await mkdir(cluster, { recursive: true })
    await writeFile(join(cluster, 'postmaster.pid'), `${process.pid}\n${cluster}\n1\n5432\n/tmp\n\n\nready   \n`)
    expect(await findRunningPostgres(join(folder, 'crashed'))).toBeNull()
  })
})
