/** Owners who turn on each other, and owners who are the first: whatever happens at once, one is left, and one was the first (G24). */
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import { writeFirstOwner } from '../src/admin/admins/first-owner.ts'
import { readConfig } from '../src/config/config.ts'
import { startServer } from '../src/server.ts'
import { type AdminNode, type TestAdmin, useAdminServer } from '@sealpost/testing/relays/admin-server'
import { createTestDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'

const server = useAdminServer()

describe('one owner always stays', () => {
  const ownersOf = async (): Promise<string[]> =>
    (await server.sql(`select admin_id from admin where role = 'owner' and removed_at is null order by 1`)).map(({ admin_id }) => admin_id)

  it('whatever two owners do to each other at once, in 200 rounds over two nodes', { timeout: 60_000 }, async () => {
    const node = await server.node()
    const keep = await ownersOf()
    await server.sql(`update admin set role = 'viewer' where role = 'owner'`)
    const outcomes = new Map<string, number>()
    for (let round = 0; round < 200; round++) {
      const [a, b] = [await server.admin('owner'), await server.admin('owner')]
      const [ofA, ofB] = [await server.token(a), await node.token(b)]
      const act = (from: AdminNode, bearer: string, { admin_id }: TestAdmin) =>
        round % 2 === 0
          ? from.ask('remove_admin', { token: bearer, params: { admin_id } })
          : from.ask('set_admin_role', { token: bearer, params: { admin_id }, json: { role: 'viewer' } })
      const answers = await Promise.all([act(server, ofA, b), act(node, ofB, a)])
      const codes = answers.map(({ status, body }) => String(body.code ?? status)).toSorted()
      outcomes.set(codes.join(' '), (outcomes.get(codes.join(' ')) ?? 0) + 1)
      const left = await ownersOf()
      expect(left).toHaveLength(1)
      expect([a.admin_id, b.admin_id]).toContain(left[0])
      // the one whose request was done is the one who is left
      const winner = answers.findIndex(({ status }) => status === 200)
      expect(left[0]).toBe([a, b][winner]!.admin_id)
      await server.sql(`update admin set role = 'viewer' where role = 'owner'`)
    }
    // they did meet: one found itself to be the last
    expect(outcomes.get('200 last_owner') ?? 0).toBeGreaterThan(10)
    for (const seen of outcomes.keys()) expect(['200 last_owner', '200 unauthorized', '200 forbidden']).toContain(seen)
    await server.sql(`update admin set role = 'owner' where admin_id = any($1)`, [keep])
    await node.stop()
  })

  it('the last one goes in no way: not by itself, not by another role, not twice at once', async () => {
    const keep = await ownersOf()
    await server.sql(`update admin set role = 'viewer' where role = 'owner'`)
    const last = await server.admin('owner')
    const live = await server.token(last)
    const params = { admin_id: last.admin_id }
    const asks = ['viewer', 'operator'].map((role) => server.ask('set_admin_role', { token: live, params, json: { role } }))
    const answers = await Promise.all([
      ...asks,
      server.ask('remove_admin', { token: live, params }),
      server.ask('remove_admin', { token: live, params }),
    ])
    expect(answers.map(({ status, body }) => [status, body.code])).toEqual(answers.map(() => [409, 'last_owner']))
    expect(await ownersOf()).toEqual([last.admin_id])
    await server.sql(`update admin set role = 'owner' where admin_id = any($1)`, [keep])
  })

  it('of first owners that are written at once one is written', async () => {
    const database = await createTestDatabase()
    const config = { data_dir: '/nonexistent', database_url: database.url, database_wait_ms_max: 5_000 }
    const write = (i: number, another = false) =>
      writeFirstOwner(config, { name: `owner ${i}`, public_key: nodeCrypto.ed25519Public(nodeCrypto.random(32)), another }, silent)
    const written = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => write(i)))
    const refused = written.filter((one) => one.status === 'rejected')
    expect(refused.map(({ reason }) => (reason as { code: string }).code)).toEqual(Array.from({ length: 7 }, () => 'admin_exists'))
    await expect(write(9)).rejects.toMatchObject({ code: 'admin_exists' })
    expect(await write(10, true)).toMatchObject({ server_key_hash: null })
    for (const name of ['', 'a\nb', '\u202eada', 'a'.repeat(65)])
      await expect(writeFirstOwner(config, { name, public_key: nodeCrypto.random(32), another: true }, silent)).rejects.toMatchObject({
        code: 'invalid_config',
      })
    const client = new Client(database.connection)
    await client.connect()
    const { rows } = await client.query(`select role, count(*)::int4 as n from admin group by 1`)
    expect(rows).toEqual([{ role: 'owner', n: 2 }])
    const audit = await client.query(`select outcome, count(*)::int4 as n from audit where action = 'admin_created' group by 1 order by 1`)
    expect(audit.rows).toEqual([
      { outcome: 'begun', n: 10 },
      { outcome: 'done', n: 2 },
      { outcome: 'refused', n: 8 },
    ])
    await client.end()
    await database.drop()
  })

  it('the data folder is enough, with its relay at work and without; one that is of no relay is refused', { timeout: 60_000 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 's-'))
    const config = readConfig({ SEALPOST_PORT: '0', SEALPOST_ADMIN_PORT: '0', SEALPOST_DATA: join(folder, 'data') })
    const write = (name: string, another: boolean) =>
      writeFirstOwner(config, { name, public_key: nodeCrypto.ed25519Public(nodeCrypto.random(32)), another }, silent)
    try {
      await expect(write('ada', false)).rejects.toMatchObject({ code: 'invalid_config' })
      const relay = await startServer(config, { logger: silent, test: true })
      const { server_key_hash } = await write('ada', false)
      expect(Buffer.from(server_key_hash!)).toEqual(createHash('sha256').update(relay.server_key).digest())
      await relay.stop()
      await expect(write('eve', false)).rejects.toMatchObject({ code: 'admin_exists' })
      await write('grace', true)
      // the folder is free again
      await (await startServer(config, { logger: silent, test: true })).stop()
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})
